"""The presets: each loads and expands offline, and holds the paper's values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.sources.test_hub_sources import COMPARISON, POST, lines, put
from tldr.errors import UsageError
from tldr.inputs.posts import load_comparisons, load_posts
from tldr.plan.figures import RATINGS, not_asked_for
from tldr.plan.models import known_models, model_config
from tldr.plan.steps import Shape
from tldr.plan.study import UnreadFiles
from tldr.sources.hub.catalog import CATALOG, TLDR_3
from tldr.sources.hub.layout import split_name
from tldr.sources.place import posts_at, rankings_at
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.data import DataInputs
from tldr.stages.data import stage as data_stage
from tldr.stages.data.settings import DataSettings, FileData, TokenizerSpec
from tldr.stages.labels import LabelsInputs
from tldr.stages.labels import stage as labels_stage
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.shared.context import RunContext
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study
from tldr.study.variant_settings import PPOVariant

CONFIGS = Path(__file__).parents[1] / "configs"
OPT = ["125m", "350m", "1.3b", "2.7b", "6.7b", "13b"]
PYTHIA = ["1b", "2.8b", "6.9b"]
CEREBRAS = ["111m", "256m", "590m", "1.3b", "2.7b", "6.7b", "13b"]
LADDERS = (
    {f"opt-{size}": [size] for size in OPT}
    | {f"pythia-{size}": [size] for size in PYTHIA}
    | {"scaling": OPT, "rm-scaling": CEREBRAS}
)
BATCHES = [f"batch{number}" for number in (*range(3, 21), 22)]
RELEASED = {f"datasets/tldr_3_filtered/{split}.jsonl": lines(POST | {"id": split}) for split in TLDR_3} | {
    f"dataset/comparisons/batch{n}.json": lines(COMPARISON | {"batch": f"batch{n}"})
    for n in (*range(3, 21), 22)
}
PUBLISHED = {  # P App. B.1, billions of parameters -> learning rate
    "sft": {1.3: 6.35e-5, 2.7: 5.66e-5, 6.7: 2.83e-5, 13.0: 2.83e-5},
    "reward": {1.3: 1.5e-5, 6.7: 5e-6},
    "ppo": {1.3: 1.5e-5, 6.7: 7e-6},
}


def billions(size: str) -> float:
    return float(size[:-1]) / (1000 if size[-1] == "m" else 1)


def moved(data: FileData, folder: Path) -> FileData:
    """The same splits of a local folder, without the articles."""
    values = data.model_dump(exclude_none=True, exclude={"cnndm"})
    places = {
        name: value.replace("openai-files@", f"{folder}@")
        for name, value in values.items()
        if isinstance(value, str)
    }
    return FileData.model_validate(values | places)


def test_the_presets_data_are_openais_files_by_name() -> None:
    data = load_study(CONFIGS / "opt-1.3b.yaml").data
    assert isinstance(data, FileData) and data.comparisons is not None
    assert (data.sft, data.valid1, data.valid2, data.test) == tuple(
        f"openai-files@tldr_3_filtered/{split}" for split in ("train", "valid", "valid", "test")
    )
    assert data.report_unmarked
    source, _, splits = data.comparisons.partition("@")
    known = set(map(split_name, CATALOG[source].files))
    assert splits.split("+") == [f"comparisons/{batch}" for batch in BATCHES]
    assert set(splits.split("+")) < known and {f"tldr_3_filtered/{split}" for split in TLDR_3} < known


def test_the_presets_data_are_read_from_a_folder_as_released(tmp_path: Path) -> None:
    study = load_study(CONFIGS / "opt-1.3b.yaml")
    assert isinstance(study.data, FileData)
    data = moved(study.data, put(tmp_path, RELEASED))
    assert data.comparisons is not None
    assert len(posts_at(data.sft)) == len(posts_at(data.valid1)) == len(posts_at(data.valid2)) == 1
    assert [row.batch for row in rankings_at(data.comparisons)] == BATCHES


@pytest.mark.parametrize("name", LADDERS)
def test_a_presets_data_and_labels_pass_where_validation_posts_are_marked_valid2(
    name: str, tmp_path: Path
) -> None:
    def post(id: str) -> dict[str, Any]:
        return POST | {"id": id, "post": f"Post {id}."}

    def label(id: str, split: str) -> dict[str, Any]:
        return COMPARISON | {"split": split, "info": COMPARISON["info"] | {"id": id, "post": f"Post {id}."}}

    ids = {"train": ["t3_1"], "valid": ["t3_2", "t3_3", "t3_4"], "test": ["t3_5"]}
    files = {f"datasets/tldr_3_filtered/{split}.jsonl": lines(*map(post, ids[split])) for split in TLDR_3}
    labels = lines(label("t3_1", "train"), label("t3_2", "valid1"), label("t3_3", "valid2"))
    batches = {place: labels for place in RELEASED if "comparisons" in place}
    study = load_study(CONFIGS / f"{name}.yaml")
    assert isinstance(study.data, FileData)
    settings = DataSettings(
        data=moved(study.data, put(tmp_path / "in", files | batches)),
        tokenizer=TokenizerSpec(vocab_size=270),
    )
    data, out = tmp_path / "data", tmp_path / "labels"
    for folder in (data, out):
        folder.mkdir()
    data_stage.run(RunContext(settings, data, DataInputs()))
    labels_stage.run(RunContext(study.labels, out, inputs=LabelsInputs(data=data)))
    sets = {"valid1": "t3_2", "valid2": "t3_3", "validation_unmarked": "t3_4", "test": "t3_5"}
    for name, id in sets.items():
        assert [row.id for row in load_posts(data / f"{name}.jsonl")] == [id]
    for split, id in (("train", "t3_1"), ("valid1", "t3_2"), ("valid2", "t3_3")):
        assert [row.info.id for row in load_comparisons(out / f"{split}.jsonl")] == [id] * len(BATCHES)


@pytest.mark.parametrize("name", LADDERS)
def test_a_preset_expands_offline_on_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(CONFIGS / f"{name}.yaml")
    assert study.name == name and list(study.ladder) == LADDERS[name]
    assert isinstance(study.data, FileData)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    study = study.model_copy(update={"data": moved(study.data, put(tmp_path, RELEASED))})
    runs = expand(study, FileHashes())
    assert {run.size for run in runs if run.size} == set(LADDERS[name])
    sft = [run for run in runs if run.stage == "sft"]
    assert {run.parents["policy"].external for run in sft} == {spec.path for spec in study.ladder.values()}
    assert {path.removesuffix("-deduped") for run in sft for path in [run.parents["policy"].external]} <= set(
        known_models()
    )


def test_no_preset_is_a_copy() -> None:
    for name in LADDERS:
        lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()
        settings = [line for line in lines if line.strip() and not line.startswith("#")]
        assert any(line.startswith(("base: base/", "base: [base/")) for line in settings)
        assert len(settings) <= (60 if name == "rm-scaling" else 10), name


@pytest.mark.parametrize("name", ["scaling", "rm-scaling"])
@pytest.mark.parametrize("stage", PUBLISHED)
def test_learning_rates_are_the_papers_or_lie_on_the_line_through_them(name: str, stage: str) -> None:
    if name == "rm-scaling" and stage == "ppo":
        return  # it trains no policy
    rates = getattr(load_study(CONFIGS / f"{name}.yaml"), stage).optimizer.lr
    known = PUBLISHED[stage]
    for size, rate in rates.items():
        at = billions(size)
        if at in known:
            assert rate == known[at]
            continue
        (n0, r0), (n1, r1) = sorted(sorted(known.items(), key=lambda one: abs(math.log(one[0] / at)))[:2])
        slope = math.log(r1 / r0) / math.log(n1 / n0)
        assert rate == pytest.approx(r0 * (at / n0) ** slope, rel=2e-3), (stage, size)


def test_the_papers_recipe() -> None:
    study = load_study(CONFIGS / "opt-1.3b.yaml")
    assert (study.lengths.query, study.lengths.response, study.lengths.rm_response) == (512, 48, 128)
    assert (study.sft.epochs, study.sft.batch, study.sft.optimizer.schedule) == (1, 128, "cosine")
    assert (study.reward.epochs, study.reward.batch, study.reward.limit) == (1, 64, 64_832)
    ppo = study.ppo
    assert (ppo.episodes, ppo.epochs, ppo.beta, ppo.optimizer.schedule) == (1_000_000, 4, 0.05, "linear")
    assert (ppo.gamma, ppo.lam, ppo.value_network, ppo.adaptive_kl) == (1.0, 0.95, "separate", None)
    assert ppo.batch == {"1.3b": 512} and load_study(CONFIGS / "opt-6.7b.yaml").ppo.batch == {"6.7b": 256}


def test_n_plus_settings() -> None:
    study = load_study(CONFIGS / "pythia-1b.yaml")
    assert study.seeds == [44413, 55513, 66613, 77713] and study.sft.query_loss
    assert (study.lengths.response, study.lengths.rm_response) == (53, 169)
    for stage in (study.sft, study.reward, study.ppo):
        assert (stage.optimizer.lr, stage.optimizer.eps, stage.optimizer.betas) == (3e-6, 1e-5, (0.9, 0.999))
    assert (study.ppo.batch, study.ppo.temperature, study.ppo.eos.missing) == (512, 0.7, "replace")
    assert study.reward.limit is None


WHOLE = ["opt-1.3b", "opt-6.7b", "pythia-1b", "pythia-2.8b", "pythia-6.9b"]
"""Presets that draw every figure of the paper; best-of-N pools are of the smaller ones."""
PARTS = {
    "data.cnndm=null": "Figs. 4, 13, 14b: news",
    "evaluation.zero_shot=null": "Fig. 1: examples in context",
    "pairs=null": "Sections 4.3, 4.4: agreement and probes",
    "variants.kl=null": "Fig. 5: the KL penalty",
    "variants.shared=null": "Fig. 11: the value network",
}
"""How a part is left out -> the part as the plan names it."""


def left_out(name: str, *overrides: str) -> dict[str, str]:
    study = load_study(CONFIGS / f"{name}.yaml", overrides)
    return not_asked_for(study, expand(study, UnreadFiles()))


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_preset_asks_for_every_figure_that_needs_no_people(name: str) -> None:
    assert set(left_out(name)) == {RATINGS}
    study = load_study(CONFIGS / f"{name}.yaml")
    zero_shot = study.evaluation.zero_shot
    assert zero_shot is not None and zero_shot.query_tokens + study.lengths.response == 2047
    for spec in study.ladder.values():
        assert Shape(model_config(spec, 1)).config.max_position_embeddings == 2048
    assert ("pool" in study.variants) == (name in ("opt-1.3b", "pythia-1b"))


@pytest.mark.parametrize("override", PARTS)
def test_a_part_is_left_out_on_the_command_line(override: str) -> None:
    assert set(left_out("opt-1.3b", override)) == {RATINGS, PARTS[override]}


def test_parts_of_several_settings_are_left_out_together() -> None:
    sweeps = ["evaluation.sft_temperatures=[]", "evaluation.sft_top_ps=[]"]
    assert set(left_out("opt-1.3b", *sweeps)) == {RATINGS, "Fig. 8: the sweeps"}
    pools = ["best_of_n=null", "variants.pool=null"]
    assert set(left_out("opt-1.3b", *pools)) == {RATINGS, "Fig. 7: best of N"}
    labels = ["variants.n=null", "variants.weak=null", "variants.kl=null"]
    assert "Fig. 6: reward models on other labels" in left_out("opt-1.3b", *labels)
    with pytest.raises(UsageError, match="'weak' is not a reward variant"):
        load_study(CONFIGS / "opt-1.3b.yaml", ["variants.weak=null"])


def test_the_papers_sweeps() -> None:
    study = load_study(CONFIGS / "opt-1.3b.yaml")
    sweep = {name: one for name, one in study.variants.items() if name.startswith("kl-")}
    # P Table 9 has 0.1, 0.07 and 0.05 against rm3; the figure has six policies
    assert {0.1, 0.07, 0.05} < {one.set.beta for one in sweep.values() if isinstance(one, PPOVariant)}
    assert len(sweep) == 6
    weak = {name: load_study(CONFIGS / f"{name}.yaml").variants["weak"].set for name in WHOLE}
    assert isinstance(weak["opt-1.3b"], RewardSettings) and weak["opt-1.3b"].limit == 0.75 * 64_832
    assert isinstance(weak["pythia-1b"], RewardSettings)
    assert weak["pythia-1b"].limit == round(0.75 * 92_858 + 0.5)
    evaluation = study.evaluation
    assert [*evaluation.temperatures, *evaluation.sft_temperatures] == [0, 0.3, 0.5, 0.7, 1.0]
    pool = study.variants["pool"].set
    assert isinstance(pool, BestOfNSettings) and pool.n == 2048 and pool.temperature == 0.7


def test_the_papers_reward_model_by_its_batches() -> None:
    """docs/paper.md has this line: batches 3 to 10 instead of as many rows as the paper had."""
    batches = [f"batch{number}" for number in range(3, 11)]
    study = load_study(
        CONFIGS / "opt-1.3b.yaml", ["reward.limit=null", f"reward.batches=[{','.join(batches)}]"]
    )
    assert (study.reward.limit, study.reward.batches) == (None, batches)


def test_reward_models_by_data_and_size() -> None:
    study = load_study(CONFIGS / "rm-scaling.yaml")
    limits = [variant.set.limit for variant in study.variants.values()]
    assert sorted([*limits, study.reward.limit]) == [8_000, 16_000, 32_000, 64_000]
