"""Study files on top of others: where a mistake is, what null takes away, and rungs left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study, read_settings, resolved
from tldr.study.variant_settings import PPOVariant

Refusal = Callable[[Callable[[], object]], str]

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def files(config: Path) -> tuple[Path, Path]:
    """A base and the file on top of it, as yet without mistakes."""
    top = config.with_name("top.yaml")
    top.write_text("base: tiny.yaml\nname: top\n")
    return config, top


def test_an_unknown_key_is_named_in_the_file_that_holds_it(
    files: tuple[Path, Path], refusal: Refusal
) -> None:
    base, top = files
    base.write_text(base.read_text() + "sft:\n  optimizer:\n    wormup: 3\n")
    assert refusal(lambda: load_study(top)).startswith(
        f"{base}:12: sft.optimizer.wormup: unknown key 'wormup'; did you mean 'warmup'?"
    )
    top.write_text("base: tiny.yaml\n\nsft: {optimizer: {wormup: 4}}\n")
    assert refusal(lambda: load_study(top)).startswith(f"{top}:3: sft.optimizer.wormup")


def test_a_wrong_value_is_named_in_the_file_that_holds_it(files: tuple[Path, Path], refusal: Refusal) -> None:
    base, top = files
    base.write_text(base.read_text().replace("batch: 8", "batch: -8"))
    assert refusal(lambda: load_study(top)).startswith(f"{base}:9: ppo.batch: found -8")
    assert refusal(lambda: load_study(top, ["ppo.batch=-9"])).startswith(f"{top} with --set: ppo.batch")


def test_a_missing_key_is_named_with_the_mapping_that_lacks_it(
    files: tuple[Path, Path], refusal: Refusal
) -> None:
    _, top = files
    top.write_text("base: tiny.yaml\nname: top\ndata:\n  kind: files\n  sft: a\n  valid1: b\n")
    assert refusal(lambda: load_study(top)).startswith(f"{top}:3: data.valid2: this key is missing")


def test_lists_replace_and_null_takes_away(files: tuple[Path, Path]) -> None:
    base, top = files
    base.write_text(base.read_text() + "evaluation: {temperatures: [0.0, 0.7]}\nbest_of_n: {n: 4}\n")
    top.write_text("base: tiny.yaml\nevaluation: {temperatures: [1.0]}\nbest_of_n: null\n")
    study = load_study(top)
    assert study.evaluation.temperatures == [1.0] and study.best_of_n is None


OF_FEWER_SIZES = {
    *("name", "description", "seeds", "ladder", "pretrain", "sft", "reward", "ppo"),
    *("best_of_n", "ratings", "pairs", "variants"),
}
"""What a study of toy-full's main line at fewer sizes and cells says."""


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("toy-full", "toy"),
        ("toy-instructgpt", "toy"),
        ("toy-questions", "toy-full"),
        ("toy-asking", "toy-full"),
        ("toy-ptx", "toy-full"),
        ("toy-prompts", "toy-full"),
    ],
)
def test_the_toy_studies_differ_from_their_base_in_what_they_say(name: str, below: str) -> None:
    base, top = (resolved(load_study(CONFIGS / f"{file}.yaml")) for file in (below, name))
    said = {
        "toy-full": {"name", "description", "seeds", "data"},
        "toy-instructgpt": {"name", "description", "sft", "labels", "ppo", "rounds", "variants"},
        "toy-questions": {"name", "description", "best_of_n", "ratings", "pairs", "variants"},
        "toy-asking": {*OF_FEWER_SIZES, "rounds"},
        "toy-ptx": {*OF_FEWER_SIZES, "data", "rounds"},
        "toy-prompts": {*OF_FEWER_SIZES, "rounds"} - {"seeds"},
    }
    assert {key for key in base if base[key] != top[key]} == said[name]


def test_the_questions_are_asked_of_the_runs_of_toy_full() -> None:
    """All that both studies have has the same names, so that the runs can be copied."""
    full, questions = (
        {run.title: run.name for run in expand(load_study(CONFIGS / f"{name}.yaml"), FileHashes())}
        for name in ("toy-full", "toy-questions")
    )
    shared = {title for title in full.keys() & questions.keys() if not title.startswith("pairs")}
    assert all(full[title] == questions[title] for title in shared)
    assert {title.split("-")[0] for title in shared} >= {"data", "pretrain", "sft", "labels", "reward", "ppo"}
    new = {title.split("-")[0] for title in questions.keys() - shared}
    assert new == {"sft", "sample", "score", "reward", "pairs"}


def test_rungs_that_are_not_chosen_are_left_out_everywhere(config: Path) -> None:
    config.write_text(
        config.read_text()
        + "variants:\n"
        + "  n: {kind: reward, sweep: {limit: [5]}}\n"
        + "  kl: {kind: ppo, sizes: [s, m], set: {beta: 0.1}}\n"
        + "  only-s: {kind: ppo, sizes: [s], set: {beta: 0.2}}\n"
    )
    study = load_study(config, ["sizes=[m]"])
    assert list(study.ladder) == ["m"] and study.sizes is None
    assert study.ppo.optimizer.lr == {"m": 5e-4} and study.pretrain.steps == {"m": 2}
    assert list(study.variants) == ["n-5", "kl"]
    kl = study.variants["kl"]
    assert isinstance(kl, PPOVariant) and kl.sizes == ["m"] and kl.set.optimizer.lr == {"m": 5e-4}
    assert read_settings(type(study), resolved(study)) == study


def test_a_rung_that_the_ladder_lacks_is_refused(config: Path, refusal: Refusal) -> None:
    config.write_text(config.read_text() + "sizes: [s, xl]\n")
    assert refusal(lambda: load_study(config)).startswith(
        f"{config}:10: sizes: the ladder has m, s, but not xl"
    )
