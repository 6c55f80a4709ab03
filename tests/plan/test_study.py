"""Plans of studies: what fits where, what to change, what a run took beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tldr.cli.main import app
from tldr.errors import UsageError
from tldr.plan.actual import actual
from tldr.plan.counts import Counts
from tldr.plan.hardware import GIB, Assumed, DeviceSpec, device_named, hardware
from tldr.plan.jobs import TrainingJob
from tldr.plan.memory import Options, TrainingStep, standing
from tldr.plan.models import model_config
from tldr.plan.steps import Shape
from tldr.plan.study import Machine, Planner, RunPlan
from tldr.stages.labels.algorithm import SELECTION
from tldr.stages.reward.settings import RewardSettings
from tldr.study.load import load_study
from tldr.study.runs import Run
from tldr.study.settings import Study

CONFIGS = Path(__file__).parents[2] / "configs"
TABLE = hardware()
TINY = """
name: tiny
data: {kind: files, sft: a, valid1: b, valid2: c, comparisons: d}
lengths: {query: 24, response: 8, rm_response: 12}
ladder: {s: {d_model: 32, layers: 2, heads: 2, context: 64}}
pretrain: {steps: 10, batch: 4}
sft: {batch: 8}
reward: {batch: 8, seeds: 2}
ppo: {batch: 16, episodes: 64}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Study:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return load_study(path)


def planned(study: Study, memory: float, gpus: int = 1, stage: str | None = None) -> list[RunPlan]:
    device = DeviceSpec(memory=memory, bf16=None, fp32=1.0, bandwidth=10.0, note="made up")
    assumed = TABLE.assumed.model_copy(update={"reserve": 0.0})
    return Planner(study, Machine(device, "made-up", gpus, rate=2.0), assumed).plan(stage)


def test_every_trained_run_has_a_plan_and_seeds_share_one(tiny: Study) -> None:
    plans = {plan.title: plan for plan in planned(tiny, 1.0)}
    assert {title for title, plan in plans.items() if plan.job.trained} == {
        "pretrain-s",
        "sft-s",
        "reward-s",
        "ppo-s",
    }
    assert len(plans["reward-s"].runs) == 2 and all(plan.fits for plan in plans.values())
    sft = plans["sft-s"]
    assert sft.micro_batch == sft.largest == 8
    assert sft.price == pytest.approx(2.0 * sft.hours)
    # 116,722 posts of 24 + 8 tokens, no file being there
    assert sft.cost.tokens == 116_722 * 32
    ppo = plans["ppo-s"]
    assert ppo.cost.tokens == 4 * 64 * 32  # four epochs over 64 episodes
    assert ppo.work.trained == ppo.work.shape.policy + ppo.work.shape.reward


def test_posts_are_counted_where_the_file_is(tiny: Study, tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text("{}\n" * 7)
    data = tiny.data.model_copy(update={"sft": str(path)})
    (plan,) = planned(tiny.model_copy(update={"data": data}), 1.0, stage="sft")
    assert plan.cost.tokens == 7 * 32


def test_hours_by_hand(tiny: Study) -> None:
    (plan,) = planned(tiny, 1.0, stage="sft")
    shape = plan.work.shape
    flops = (
        116_722
        * 3
        * (
            32 * (2 * shape.matrices + 4 * 2 * 32 * 32)  # the body, its attention among it
            - 23 * 2 * shape.spared  # of its last layer, before the query's last token
            + 8 * 2 * shape.head  # the output head, at response tokens alone
        )
    )
    assert plan.cost.flops == pytest.approx(flops)
    assert plan.hours == pytest.approx(flops / (1e12 * TABLE.assumed.training) / 3600)


def test_fewer_demonstrations_cost_as_much_less(tiny: Study) -> None:
    def tokens(limit: int | None) -> float:
        sft = tiny.sft.model_copy(update={"limit": limit})
        (plan,) = planned(tiny.model_copy(update={"sft": sft}), 1.0, stage="sft")
        return plan.cost.tokens

    assert tokens(1000) == 1000 * 32 and tokens(None) == tokens(10**6) == 116_722 * 32


def test_fewer_prompts_cost_the_same(tiny: Study) -> None:
    """The episodes are as many: the posts come back."""

    def cost(limit: int | None) -> object:
        ppo = tiny.ppo.model_copy(update={"limit": limit})
        (plan,) = planned(tiny.model_copy(update={"ppo": ppo}), 1.0, stage="ppo")
        return plan.cost

    assert cost(512) == cost(None)


def test_pairs_apart_read_each_post_once_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    ranked = TINY.replace(
        "{kind: files, sft: a, valid1: b, valid2: c, comparisons: d}",
        "{kind: toy}\nlabels: {pairs: 40, k: [4, 5]}",
    )
    path.write_text(ranked + "variants: {apart: {kind: reward, set: {pairs: apart, limit: 10}}}")
    plans = {plan.title: plan for plan in planned(load_study(path), 1.0, stage="reward")}
    assert plans["reward-s"].cost.tokens == 40 * (24 + 5 * 12)
    apart = plans["reward-s-apart"]
    assert apart.cost.tokens == 10 * (6 + 10) / 2 * (24 + 2 * 12) and apart.work.options == 2
    judged, together = (plans[name].job.judged for name in ("reward-s-apart", "reward-s"))  # type: ignore[union-attr]
    assert judged == together, "held-out rankings are scored whole in either case"


def test_what_does_not_fit_comes_with_settings_that_do(tiny: Study) -> None:
    (whole,) = planned(tiny, 1.0, stage="ppo")
    room = 0.75 * whole.memory.total / GIB
    (plan,) = planned(tiny, room, stage="ppo")
    assert not plan.fits and plan.suggestion == (f"ppo.micro_batch={plan.largest}",)
    smaller = tiny.model_copy(update={"ppo": tiny.ppo.model_copy(update={"micro_batch": plan.largest})})
    (again,) = planned(smaller, room, stage="ppo")
    assert again.fits and again.memory.total <= room * GIB


def test_suggestions_go_on_to_more_devices(tiny: Study) -> None:
    (whole,) = planned(tiny, 1.0, stage="ppo")
    states = (whole.memory.parts["weights"] + whole.memory.parts["optimizer"]) / GIB
    (plan,) = planned(tiny, 0.6 * states, stage="ppo")
    assert plan.largest == 0 and plan.suggestion[0] == "ppo.gradient_checkpointing=true"
    assert plan.suggestion[-1].startswith(("ppo.micro_batch=", "a smaller model"))
    assert "ppo.frozen_place=cpu" in plan.suggestion


def test_sharding_divides_what_ddp_repeats() -> None:
    shape = Shape(model_config(load_study(CONFIGS / "opt-6.7b.yaml").ladder["6.7b"], 0))
    work = TrainingStep("ppo", shape, 512, 1, 48, 256, frozen=(shape.policy, shape.reward), drawn=256)
    ddp = standing(work, Options(processes=8, placement="ddp"))
    fsdp = standing(work, Options(processes=8, placement="fsdp2", frozen_bf16=True, frozen_place="shard"))
    assert ddp["weights"] == 4 * work.trained and ddp["optimizer"] == 8 * work.trained
    assert fsdp["optimizer"] == work.trained  # 8 bytes over 8 processes
    assert work.trained / 2 < fsdp["weights"] < 0.75 * work.trained  # its share, and what is gathered
    assert fsdp["frozen"] < ddp["frozen"] / 8
    assert fsdp["rollout copy"] == 2 * shape.policy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "gpus", "stage"),
    [
        *((f"opt-{size}", 1, None) for size in ("125m", "350m", "1.3b")),
        *((f"opt-{size}", 8, None) for size in ("2.7b", "6.7b")),
        ("opt-13b", 16, None),
        ("pythia-1b", 1, None),
        *((f"pythia-{size}", 8, None) for size in ("2.8b", "6.9b")),
        *(("scaling", 16, stage) for stage in ("sft", "reward", "ppo", "sample", "score")),
        ("rm-scaling", 8, "reward"),
    ],
)
def test_presets_fit_on_80_gb(name: str, gpus: int, stage: str | None) -> None:
    machine = Machine(device_named("h100-80gb", TABLE), "h100-80gb", gpus)
    for plan in Planner(load_study(CONFIGS / f"{name}.yaml"), machine, TABLE.assumed).plan(stage):
        assert plan.fits, (plan.title, plan.memory)


def test_thirteen_billion_weights_and_a_batch_of_samples_fit_80_gb() -> None:
    """In bf16 24 GiB of weights, and 20 of keys and values however long the texts."""
    machine = Machine(device_named("h100-80gb", TABLE), "h100-80gb", 16)
    planner = Planner(load_study(CONFIGS / "opt-13b.yaml"), machine, TABLE.assumed)
    for plan in planner.plan("sample"):
        memory = plan.memory.parts
        token = 40 * 2 * 5120 * 2  # layers, keys and values, bf16
        assert memory["frozen"] == 2 * 12_853_473_280 and plan.micro_batch == 20 * 2**30 // token // (
            512 + 48
        )
        assert memory["cache"] == plan.micro_batch * 560 * token
        assert plan.fits


def test_a_finished_run_stands_beside_its_plan(tiny: Study, tmp_path: Path) -> None:
    (plan,) = planned(tiny, 1.0, stage="sft")
    assert actual(plan, tmp_path) == []
    folder = tmp_path / plan.runs[0].name
    folder.mkdir()
    rows = [
        {"update": 1, "tokens": 100, "tokens_per_s": 50.0},
        {"update": 2, "tokens": 300, "tokens_per_s": 75.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "environment.json").write_text(
        json.dumps({"seconds": 7.2, "device": "made up", "peak_bytes": 5})
    )
    (folder / "DONE").write_text("{}")
    (took,) = actual(plan, tmp_path)
    assert took.tokens_per_s == pytest.approx(400 / 6) and took.hours == pytest.approx(0.002)
    assert took.device == "made up" and took.peak_bytes == 5


def test_a_finished_run_without_training_stands_beside_its_plan(tiny: Study, tmp_path: Path) -> None:
    (plan, *_) = planned(tiny, 1.0, stage="sample")
    folder = tmp_path / plan.runs[0].name
    folder.mkdir()
    (folder / "environment.json").write_text(json.dumps({"seconds": 36.0, "peak_bytes": 7}))
    (folder / "DONE").write_text("{}")
    (took,) = actual(plan, tmp_path)
    assert took.hours == pytest.approx(0.01) and took.peak_bytes == 7 and took.tokens_per_s == 0


def test_the_command_prints_tables_or_json(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    arguments = ["plan", str(path), "--gpu", "cpu", "--only", "sft", "--rate", "1", "--runs", str(tmp_path)]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    words = ("sft-s", "gradients", "activations", "micro-batch", "tokens/s", "of all runs", "in price")
    for word in (*words, "By figure of the paper", "The main line"):
        assert word in shown.output
    made = CliRunner().invoke(app, [*arguments, "--json", "--utilisation", "0.2"])
    (row,) = json.loads(made.output)["runs"]
    assert row["peak"] == pytest.approx(sum(row["memory"].values())) and row["fits"] is True


def test_unknown_devices_and_placements_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    for wrong, word in (("--gpu h200", "h200-141gb"), ("--placement fsdp", "fsdp2")):
        shown = CliRunner().invoke(app, ["plan", str(path), *wrong.split()])
        assert shown.exit_code == 2 and f"did you mean '{word}'" in shown.output
    with pytest.raises(UsageError, match=r"devices\.cpu"):
        hardware(_table(tmp_path, "devices: {cpu: {memory: 0}}\nassumed: {}\n"))


def _table(folder: Path, text: str) -> Path:
    path = folder / "table.yaml"
    path.write_text(text)
    return path


def test_the_table_is_whole() -> None:
    assert isinstance(TABLE.assumed, Assumed)
    wanted = "a100-40gb a100-80gb h100-80gb h100-pcie-80gb h200-141gb b200-180gb l40s-48gb a10-24gb"
    assert set(wanted.split()) < set(TABLE.devices)
    assert all(device.note for device in TABLE.devices.values())


def test_what_a_reward_model_judges_is_in_its_hours_and_its_peak(tiny: Study, tmp_path: Path) -> None:
    """Every process its share, at the end: the references, and both sides of the pairs held out."""
    rows = [
        {"split": split}
        for split, count in (("train", 40), ("valid1", 9), ("valid2", 31))
        for _ in range(count)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = tiny.data.model_copy(update={"comparisons": str(tmp_path / "pairs.jsonl")})
    study = tiny.model_copy(update={"data": data})
    (plan,) = planned(study, 1.0, stage="reward")
    job = plan.job
    assert isinstance(job, TrainingJob) and job.judged is not None and job.examples == 40
    references, pairs = job.judged.portions
    assert (references.queries, references.window.options) == (TABLE.assumed.posts.sft, 1)
    assert (pairs.queries, pairs.window.options) == (9 + 31, 2)
    scored = job.judged.cost(Options(bf16=False))
    assert plan.cost.scoring == scored.scoring > 0 == replace(job, judged=None).cost(Options()).scoring
    # This model is so small that scoring 16,384 tokens at once is its peak, without gradients.
    assert plan.memory.phase == "scoring" and plan.memory.parts["gradients"] == 0
    assert plan.memory.parts["weights"] == 4 * job.trained
    # DDP keeps the buckets that gradients are views of.
    options = Options(bf16=False, processes=2, placement="ddp")
    memory, _ = job.peak(options, TABLE.assumed)
    assert memory.parts["gradients"] == 4 * job.trained


def test_folds_are_counted_from_all_rows(tiny: Study, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"split":"train"}\n' * 300)
    data = tiny.data.model_copy(update={"comparisons": str(tmp_path / "pairs.jsonl")})
    labels = tiny.labels.model_copy(update={"folds": 3})
    study = tiny.model_copy(update={"data": data, "labels": labels})
    train, held = Counts(study, TABLE.assumed).comparisons(Run("reward", RewardSettings()))
    assert train + held == 300 and train == round(200 * (1 - 1 / SELECTION))


def test_a_round_trains_on_the_labels_so_far(tmp_path: Path) -> None:
    """Round 1 has 40 rankings of two summaries, the last one 100 of four and these."""
    path = tmp_path / "rounds.yaml"
    rounds = "rounds: [{labels: {pairs: 40, valid_pairs: 10, k: [2, 2]}}]"
    last = "labels: {pairs: 100, valid_pairs: 30, k: [4, 4]}"
    files = "{kind: files, sft: a, valid1: b, valid2: c, comparisons: d}"
    path.write_text(f"{TINY.replace(files, '{kind: toy}')}{rounds}\n{last}\n")
    plans = {plan.title: plan for plan in planned(load_study(path), 1.0, stage="reward")}
    assert plans["reward-s-r1"].cost.tokens == 40 * (24 + 2 * 12)
    assert plans["reward-s"].cost.tokens == 140 * (24 + 4 * 12)
