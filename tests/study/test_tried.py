"""Several learning rates of SFT and reward models: their runs, and which one the others are made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.runs.section import tried_rows
from tests.eval.section_study import Made
from tests.study.test_graph import changed, parents, runs_of
from tldr.errors import LabError
from tldr.records import write_json
from tldr.study.load import load_study
from tldr.study.prepare import describe, locked_or_new
from tldr.study.runs import Run

Refusal = Callable[[Callable[[], object]], str]

pytestmark = pytest.mark.usefixtures("same_code")

SFT = "sft.lr_factors=[1, 0.5, 2]"
REWARD = "reward={lr_factors: [1, 3], seeds: 2}"


def rate(run: Run) -> float:
    return run.settings.optimizer.lr  # type: ignore[attr-defined, no-any-return]


def test_every_rate_is_a_run_and_the_first_ones_keep_their_names(config: Path) -> None:
    before, after = runs_of(config), runs_of(config, SFT, REWARD)
    tried = {title for title in after if title.startswith(("sft-s", "reward-s"))}
    assert tried == {
        "sft-s-s0", "sft-s-s0-lr0.5", "sft-s-s0-lr2",
        "reward-s-s0", "reward-s-s0-lr3", "reward-s-s0-rm1", "reward-s-s0-rm1-lr3",
    }  # fmt: skip
    assert after["sft-s-s0"].key == before["sft-s-s0"].key
    main = rate(before["sft-s-s0"])
    assert [rate(after[f"sft-s-s0{end}"]) for end in ("", "-lr0.5", "-lr2")] == [main, main / 2, 2 * main]
    assert rate(after["reward-s-s0-rm1-lr3"]) == 3 * rate(after["reward-s-s0-rm1"])
    assert after["reward-s-s0-rm1-lr3"].offset == after["reward-s-s0-rm1"].offset > 0
    assert parents(after["ppo-s-s0"])["policy"] == ["sft-s-s0", "sft-s-s0-lr0.5", "sft-s-s0-lr2"]
    assert len(parents(after["ppo-s-s0"])["reward"]) == 4
    assert parents(after["labels-s0"])["policy-sft-s"] == ["sft-s-s0", "sft-s-s0-lr0.5", "sft-s-s0-lr2"]


def test_rates_by_size_are_scaled_each(config: Path) -> None:
    rates = "sft.optimizer.lr={s: 0.004, m: 0.002}"
    after = runs_of(config, rates, "sft.lr_factors=[0.5]")
    assert "sft-s-s0" not in after
    assert [rate(after[f"sft-{size}-s0-lr0.5"]) for size in "sm"] == [0.002, 0.001]


def test_earlier_rounds_and_variants(config: Path) -> None:
    after = runs_of(config, "rounds=[{sizes: [s]}]", REWARD, "variants.n={kind: reward, sweep: {limit: [9]}}")
    assert {title for title in after if title.startswith("reward-s") and "r1" in title} == {
        "reward-s-s0-r1", "reward-s-s0-r1-lr3", "reward-s-s0-r1-rm1", "reward-s-s0-r1-rm1-lr3",
    }  # fmt: skip
    assert {title for title in after if "n-9" in title} == {"reward-s-s0-n-9", "reward-m-s0-n-9"}


def test_one_rate_is_the_default_and_no_part_of_a_name(config: Path) -> None:
    assert changed(config, "sft.lr_factors=[1.0]", "reward.lr_factors=[1]") == set()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sft.lr_factors=[]", "at least 1 item"),
        ("sft.lr_factors=[1, 1.0]", "1.0 is there twice"),
        ("reward.lr_factors=[0]", "greater than 0"),
        ("ppo.lr_factors=[1]", "unknown key 'lr_factors'"),
    ],
)
def test_what_cannot_be_tried_is_refused(config: Path, refusal: Refusal, override: str, words: str) -> None:
    assert words in refusal(lambda: runs_of(config, override))


def done(root: Path, run: Run, **figures: float) -> None:
    with locked_or_new(root / run.name):
        (root / run.name / "DONE").write_text(json.dumps({"outputs": {"checkpoint/model": run.name}}))
        write_json(root / run.name / "evaluation.json", figures)


def test_what_reads_several_is_made_from_the_best_on_valid1(config: Path, tmp_path: Path) -> None:
    study = load_study(config, [SFT, REWARD])
    runs = runs_of(config, SFT, REWARD)
    losses = {"": 2.0, "-lr0.5": 1.5, "-lr2": 1.5}
    accuracies = {"": 0.6, "-lr3": 0.61, "-rm1": 0.7, "-rm1-lr3": 0.65}
    for end, loss in losses.items():
        done(tmp_path, runs[f"sft-s-s0{end}"], valid1_loss=loss)
    for end, accuracy in accuracies.items():
        done(tmp_path, runs[f"reward-s-s0{end}"], valid1_accuracy=accuracy)
    done(tmp_path, runs["data"])
    made = describe(runs["ppo-s-s0"], study, tmp_path).parents
    # the first of a tie, the lowest loss, the highest accuracy
    assert made["policy"].run == made["reference"].run == runs["sft-s-s0-lr0.5"].name
    assert made["reward"].run == runs["reward-s-s0-rm1"].name
    write_json(tmp_path / runs["sft-s-s0-lr2"].name / "evaluation.json", {})
    with pytest.raises(LabError, match="no valid1_loss to choose by"):
        describe(runs["ppo-s-s0"], study, tmp_path)


def test_the_report_lists_what_was_tried_and_what_was_used(tmp_path: Path) -> None:
    made = Made(tmp_path, 5)
    for variant, loss in (("", 2.0), ("lr0.5", 1.5)):
        settings = {"optimizer": {"lr": 0.004 if not variant else 0.002}}
        write_json(
            made.run("sft", "s", variant, settings=settings) / "evaluation.json", {"valid1_loss": loss}
        )
    write_json(made.run("sft", "m") / "evaluation.json", {"valid1_loss": 1.0})
    made.run("sft", "s", "few", settings={})
    made.run("ppo", "s", parents={"policy": "sft-s-lr0.5"})
    write_json(tmp_path / "study.json", {"study": "made", "runs": made.runs})
    rows = tried_rows(StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=10))
    assert [(row["variant"], row["learning rate"], row["on valid1"], row["used"]) for row in rows] == [
        ("", 0.004, 2.0, ""),
        ("lr0.5", 0.002, 1.5, "yes"),
    ]
