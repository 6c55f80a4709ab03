"""A study file is read strictly, and every mistake in it is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.study.conftest import TINY
from tldr.settings.training import Optimizer
from tldr.stages.sft.settings import SFTSettings
from tldr.strict_yaml import parse_yaml
from tldr.study.load import load_study, read_settings, resolved

Refusal = Callable[[Callable[[], object]], str]

MISTAKES = {
    "ppo.bata=0.1": ["ppo.bata", "did you mean 'beta'", "known here: ", "samples_per_query"],
    "ppo.optimizer.wormup=0.1": ["ppo.optimizer.wormup", "did you mean 'warmup'"],
    "data.sft_postz=3": ["data.sft_postz", "did you mean 'sft_posts'"],
    "ladder.s.d_modle=8": ["ladder.s.d_modle", "did you mean 'd_model'"],
    "data={kind: files, sfft: a}": ["data.sfft", "did you mean 'sft'"],
    "ppo.beta=-0.1": ["ppo.beta", "-0.1", "greater than or equal to 0"],
    "ppo.beta=much": ["ppo.beta", '"much"', "valid number"],
    "ppo.batch='8'": ["ppo.batch", '"8"', "valid integer"],
    "ppo.batch=8.0": ["ppo.batch", "8.0", "valid integer"],
    "ppo.whiten_rewards=1": ["ppo.whiten_rewards", "valid boolean"],
    "sft.epochs=true": ["sft.epochs", "true", "valid number"],
    "sft=3": ["sft", "3", "object"],
    "data=3": ["data", "3"],
    "data.kind=web": ["data", "'toy', 'files'"],
    "precision=fp16": ["precision", "fp16", "'bf16'"],
    "ppo.optimizer.lr=1e999": ["ppo.optimizer.lr", "finite"],
    "labels.k=[1, 1]": ["labels", "at least 2"],
    "labels.k=[3]": ["labels.k.1", "missing"],
    "lengths.response=60": ["rm_response", "response"],
    "lengths={query: 60, response: 16, rm_response: 24}": ["ladder.s.context 64", "76"],
    "ladder.m={d_model: 30, heads: 4}": ["ladder.m", "30", "multiple"],
    "ladder.XL={}": ["ladder.XL", "match"],
    "ppo.algorithm=rloo": ["ppo", "rloo", "epochs"],
    "ppo.beta={s: 0.1}": ["ppo.beta", "m", "ladder"],
    "ppo.beta={s: 0.1, m: 0.2, l: 0.3}": ["ppo.beta", "differ in l"],
    "ppo={batch: {s: 7, m: 8}, samples_per_query: 4}": ["ppo of size s", "7", "4"],
    "pretrain=null": ["ladder.s", "pretrain"],
    "seeds=[1, 1]": ["seeds", "repeated"],
    "seeds=[-1]": ["seeds.0", "-1"],
    "seeds=[99999999999999999999]": ["seeds.0", "99999999999999999999", "less than or equal to"],
    "ppo.seed_offset=-99999999999999999999": ["ppo.seed_offset", "greater than or equal to"],
    "data.seeds=[99999999999999999999]": ["data.seeds", "less than or equal to"],
    "seeds=[]": ["seeds", "at least 1"],
    "evaluation.temperatures=[]": ["evaluation.temperatures", "at least 1"],
    "name=Tiny Study": ["name", "Tiny Study", "match"],
    "name=null": ["name", "null", "valid string"],
    "best_of_n.scorers=[rmm]": ["best_of_n.scorers.0", "rmm"],
    "data={kind: files, sft: a, valid1: b, valid2: c}": ["data.comparisons"],
    "data={kind: files, sft: a, valid1: b}": ["data.valid2", "missing"],
    "ppo": ["'ppo' is not an override", "key=value"],
    "=3": ["not an override"],
    "a..b=3": ["not an override"],
    "ppo.beta=[": ["--set ppo.beta:1:2", "broken YAML"],
}


@pytest.mark.parametrize("override", MISTAKES)
def test_mistakes_are_named(config: Path, refusal: Refusal, override: str) -> None:
    text = refusal(lambda: load_study(config, [override]))
    for word in MISTAKES[override]:
        assert word in text, text


def test_the_file_is_named(config: Path, refusal: Refusal) -> None:
    config.write_text(TINY + "sedes: [0]\n")
    assert refusal(lambda: load_study(config)).startswith(
        f"{config}:10: sedes: unknown key 'sedes'; did you mean 'seeds'?"
    )


BROKEN = {
    "name: a\nname: b\n": [":2:1", "the key 'name' is given twice"],
    "ppo:\n  beta: 1\n  beta: 2\n": [":3:3", "the key 'beta' is given twice"],
    "ladder: {1: {}}\n": [":1:10", "quotes"],
    "seeds: [0\nname: a\n": ["broken YAML"],
    "a: &x [*x]\n": ["recursive"],
    "a: !!python/object/apply:os.getcwd []\n": ["constructor"],
    "- a\n": ["no settings"],
    "": ["no settings"],
    "a: 1\n---\nb: 1\n": ["another document"],
    "[" * 3000: ["broken YAML"],
    "a: \0": ["broken YAML"],
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_broken_yaml_is_named_with_its_line(config: Path, refusal: Refusal, text: str) -> None:
    config.write_text(text)
    told = refusal(lambda: load_study(config))
    assert str(config) in told
    for word in BROKEN[text]:
        assert word in told


def test_unreadable_files(config: Path, refusal: Refusal) -> None:
    config.write_bytes(b"name: \xff\n")
    assert "invalid UTF-8 at byte 6" in refusal(lambda: load_study(config))
    missing = config.with_name("none.yaml")
    assert str(missing) in refusal(lambda: load_study(missing))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-3", 0.005),
        ("1E-4", 0.0001),
        ("-2.5e+1", -25),
        (".5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("010", 10),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ('"5"', "5"),
        ("~", None),
        ("[True, null, {a: 1}]", [True, None, {"a": 1}]),
    ],
)
def test_trap_yaml_scalars(text: str, value: object) -> None:
    """PyYAML alone reads 5e-3 as text, no as False, 010 as 8 and 1:30 as 90."""
    assert parse_yaml(text, "") == value


def test_whole_numbers_in_scientific_notation_are_counts() -> None:
    assert type(parse_yaml("1e6", "")) is int
    assert type(parse_yaml("1.0", "")) is float


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(value: float) -> None:
    assert parse_yaml(repr(value), "") == value


def test_bases_are_merged_key_by_key(config: Path) -> None:
    top = config.with_name("top.yaml")
    middle = config.parent / "sub" / "middle.yaml"
    middle.parent.mkdir()
    middle.write_text("base: ../tiny.yaml\nppo: {beta: 0.2, optimizer: {lr: {s: 2e-3}}}\nseeds: [0, 1]\n")
    top.write_text("base: sub/middle.yaml\nname: top\nseeds: [5]\n")
    study = load_study(top, ["ppo.gamma=0.9"])
    assert (study.name, study.seeds, study.ppo.beta, study.ppo.gamma) == ("top", [5], 0.2, 0.9)
    assert study.ppo.optimizer.lr == {"s": 2e-3, "m": 5e-4}
    assert study.ppo.episodes == 16


def test_data_of_another_kind_replaces_the_whole(config: Path) -> None:
    top = config.with_name("top.yaml")
    top.write_text("base: tiny.yaml\ndata: {kind: files, sft: a, valid1: b, valid2: c, comparisons: d}\n")
    assert load_study(top).data.kind == "files"
    top.write_text("base: tiny.yaml\ndata: {sft_posts: 7}\n")
    data = load_study(top).data
    assert data.kind == "toy" and (data.corpus, data.sft_posts) == (10, 7)


def test_a_circle_of_bases_is_refused(config: Path, refusal: Refusal) -> None:
    one, two = config.with_name("one.yaml"), config.with_name("two.yaml")
    one.write_text("base: two.yaml\n")
    two.write_text("base: one.yaml\n")
    assert "one.yaml -> two.yaml -> one.yaml" in refusal(lambda: load_study(one))
    one.write_text("base: one.yaml\n")
    assert "one.yaml -> one.yaml" in refusal(lambda: load_study(one))


def test_a_missing_base_is_named(config: Path, refusal: Refusal) -> None:
    config.write_text("base: gone.yaml\n")
    assert "gone.yaml" in refusal(lambda: load_study(config))
    for wrong in ("[]", "[7]", "{a: tiny.yaml}"):
        config.write_text(f"base: {wrong}\n")
        assert "expected the path" in refusal(lambda: load_study(config))


def test_of_several_bases_a_later_one_is_laid_over_an_earlier_one(config: Path, refusal: Refusal) -> None:
    top, parts = config.with_name("top.yaml"), config.with_name("parts.yaml")
    parts.write_text("ppo: {beta: 0.3}\nvariants: {kl: {kind: ppo, sweep: {beta: [0.1, 0.2]}}}\n")
    top.write_text("base: [tiny.yaml, parts.yaml]\nname: top\n")
    study = load_study(top)
    assert (study.name, study.ppo.beta, set(study.variants)) == ("top", 0.3, {"kl-0.1", "kl-0.2"})
    assert study.ppo.episodes == 16
    assert load_study(top, ["variants.kl=null"]).variants == {}
    parts.write_text("ppo:\n  bata: 0.3\n")
    assert f"{parts}:2: ppo.bata" in refusal(lambda: load_study(top))
    parts.write_text("base: top.yaml\n")
    assert "top.yaml -> parts.yaml -> top.yaml" in refusal(lambda: load_study(top))


def test_resolved_settings_make_the_same_study(config: Path) -> None:
    study = load_study(config)
    assert read_settings(type(study), resolved(study)) == study


def test_one_size_of_the_settings(config: Path) -> None:
    ppo = load_study(config).ppo.for_size("m")
    assert ppo.optimizer.lr == 5e-4
    assert list(ppo.size_maps()) == []


def test_the_embedded_study_is_sound() -> None:
    study = load_study(Path(__file__).parents[2] / "configs" / "toy.yaml")
    assert study.name == "toy" and set(study.ladder) == {"s", "m", "l"}


def test_stage_settings_can_be_read_alone(refusal: Refusal) -> None:
    assert read_settings(SFTSettings, {}, ["optimizer.lr=1e-5"]).optimizer == Optimizer(lr=1e-5)
    assert "did you mean 'epochs'" in refusal(lambda: read_settings(SFTSettings, {}, ["epoch=2"]))
