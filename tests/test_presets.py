"""The presets: each loads and expands offline, and holds the paper's values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tldr.config import FileData
from tldr.plan.models import known_models
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study

CONFIGS = Path(__file__).parents[1] / "configs"
OPT = ["125m", "350m", "1.3b", "2.7b", "6.7b", "13b"]
PYTHIA = ["1b", "2.8b", "6.9b"]
CEREBRAS = ["111m", "256m", "590m", "1.3b", "2.7b", "6.7b", "13b"]
LADDERS = (
    {f"opt-{size}": [size] for size in OPT}
    | {f"pythia-{size}": [size] for size in PYTHIA}
    | {"scaling": OPT, "rm-scaling": CEREBRAS}
)
PUBLISHED = {  # P App. B.1, billions of parameters -> learning rate
    "sft": {1.3: 6.35e-5, 2.7: 5.66e-5, 6.7: 2.83e-5, 13.0: 2.83e-5},
    "reward": {1.3: 1.5e-5, 6.7: 5e-6},
    "ppo": {1.3: 1.5e-5, 6.7: 7e-6},
}


def billions(size: str) -> float:
    return float(size[:-1]) / (1000 if size[-1] == "m" else 1)


@pytest.mark.parametrize("name", LADDERS)
def test_a_preset_expands_offline_on_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(CONFIGS / f"{name}.yaml")
    assert study.name == name and list(study.ladder) == LADDERS[name]
    assert isinstance(study.data, FileData)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "tldr").mkdir(parents=True)
    for path in {study.data.sft, study.data.valid1, study.data.valid2, study.data.comparisons}:
        Path(str(path)).write_text("{}\n")
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
        assert any(line.startswith("base: base/") for line in settings)
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


def test_reward_models_by_data_and_size() -> None:
    study = load_study(CONFIGS / "rm-scaling.yaml")
    limits = [variant.set.limit for variant in study.variants.values()]
    assert sorted([*limits, study.reward.limit]) == [8_000, 16_000, 32_000, 64_000]
