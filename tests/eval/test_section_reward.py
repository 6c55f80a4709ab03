from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from eval.common.paper import PAPER_FOLDER, load_paper
from eval.common.runs import StudyRun, StudyRuns, load_runs
from eval.common.study import StudyResults
from eval.common.tables import COLUMNS
from eval.probes.section import probe_table, probes_section
from eval.reward import section as reward_tables
from eval.reward.measure import calibration, calibration_estimates
from eval.reward.scored_pairs import model_pairs, reward_models, scored_pairs
from eval.reward.section import (
    calibration_summary_table,
    calibration_table,
    length_bias_table,
    reward_accuracy_table,
    reward_breakdown_table,
    reward_difference_table,
    reward_section,
    reward_slope_table,
)
from tests.eval.section_study import PROBES, SKILL, Made, add_pairs, add_rewards
from tldr.errors import NonFiniteError, RecordError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("reward")
    made = Made(where, posts=150)
    add_rewards(made)
    add_pairs(made)
    made.close()
    return where


@pytest.fixture(scope="module")
def study(folder: Path) -> StudyResults:
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=300)


def raw_hits(folder: Path, scorer: str, seed: int = 0) -> list[int]:
    file = folder / f"pairs-{seed}" / "valid2.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        int(
            (row["summaries"][0]["scores"][scorer] > row["summaries"][1]["scores"][scorer])
            == (row["choice"] == 0)
        )
        for row in rows
    ]


def test_accuracy_comes_from_the_scored_pairs_with_its_sources(study: StudyResults, folder: Path) -> None:
    table = reward_accuracy_table(study)
    rows = table[table["measure"] == "valid2_accuracy"].set_index("scorer")
    assert list(rows.index) == ["rm_s", "rm_m", "rm_s_n750", "rm_m_n750"]
    for scorer in rows.index:
        hits = raw_hits(folder, scorer)
        assert rows.loc[scorer, "value"] == pytest.approx(np.mean(hits)) and rows.loc[scorer, "n"] == len(
            hits
        )
        assert rows.loc[scorer, "posts"] == 150 and rows.loc[scorer, "low"] < rows.loc[scorer, "value"]
    assert rows["rankings"].to_dict() == {"rm_s": 12000, "rm_m": 12000, "rm_s_n750": 750, "rm_m_n750": 750}
    assert rows.loc["rm_m_n750", "runs"] == "pairs-0 reward-m-n750-0"
    valid1 = table[table["measure"] == "valid1_accuracy"].set_index("scorer")
    assert valid1.loc["rm_s", "value"] == 0.66 and valid1.loc["rm_s", "runs"] == "reward-s-0"


def test_without_pairs_the_evaluation_files_serve(folder: Path, tmp_path: Path) -> None:
    listing = json.loads((folder / "study.json").read_text())
    listing["runs"] = [
        row | {"folder": str(folder / row["folder"])} for row in listing["runs"] if row["stage"] == "reward"
    ]
    (tmp_path / "study.json").write_text(json.dumps(listing))
    study = StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=50)
    table = reward_accuracy_table(study)
    assert set(table.loc[table["measure"] == "valid2_accuracy", "value"]) == {0.65}
    for make in (reward_slope_table, reward_difference_table, reward_breakdown_table, calibration_table):
        assert make(study).empty and set(COLUMNS) <= set(make(study).columns)
    section = reward_section(study)
    assert [picture.name for picture in section.pictures] == ["reward_accuracy"] and section.missing == []


def test_differences_are_paired_and_named_larger_first(study: StudyResults, folder: Path) -> None:
    table = reward_difference_table(study).set_index(["scorer", "against"])
    assert set(table.index) == {("rm_m", "rm_s"), ("rm_s", "rm_s_n750"), ("rm_m", "rm_m_n750")}
    hits = {scorer: np.array(raw_hits(folder, scorer)) for scorer in ("rm_s", "rm_m")}
    row = table.loc[("rm_m", "rm_s")]
    assert row["value"] == pytest.approx((hits["rm_m"] - hits["rm_s"]).mean())
    assert row["kind"] == "size" and table.loc[("rm_s", "rm_s_n750"), "kind"] == "data"
    apart = np.hypot(*(one.std() / np.sqrt(len(one)) for one in hits.values()))
    assert row["se"] < apart, "the same pairs: what is hard for both cancels"


def test_slopes_equal_a_regression_of_the_accuracies(study: StudyResults) -> None:
    accuracy = reward_accuracy_table(study).query("measure == 'valid2_accuracy'")
    design = sm.add_constant(
        np.column_stack([np.log2(accuracy["params"]), np.log2(accuracy["rankings"].astype(float))])
    )
    expected = sm.OLS(accuracy["value"].to_numpy(), design).fit().params[1:]
    slopes = reward_slope_table(study).set_index("measure")
    assert slopes.loc["accuracy_gain_model_doubling", "value"] == pytest.approx(expected[0])
    assert slopes.loc["accuracy_gain_data_doubling", "value"] == pytest.approx(expected[1])
    assert (slopes["low"] < slopes["value"]).all() and (slopes["value"] < slopes["high"]).all()
    assert slopes.loc["accuracy_gain_data_doubling", "low"] > 0, "planted: more labels, more truth"


def test_breakdowns_add_up(study: StudyResults) -> None:
    table = reward_breakdown_table(study)
    one = table[table["scorer"] == "rm_m"]
    whole = one.query("breakdown == 'all'").iloc[0]
    for name in ("batch", "strength", "subreddit", "split", "policies"):
        part = one[one["breakdown"] == name]
        assert part["n"].sum() == whole["n"]
        assert (part["value"] * part["n"]).sum() == pytest.approx(whole["value"] * whole["n"])
    strength = one[one["breakdown"] == "strength"].set_index("group")["value"]
    assert strength["4"] > strength["1"], "what labelers are sure of is easier"


def test_calibration_tables_agree(study: StudyResults) -> None:
    bins, summary = calibration_table(study), calibration_summary_table(study)
    for scorer, part in bins.groupby("scorer"):
        errors = summary[summary["scorer"] == scorer].set_index("measure")
        ece = ((part["claimed"] - part["value"]).abs() * part["n"]).sum() / part["n"].sum()
        assert errors.loc["ece", "value"] == pytest.approx(ece)
        signed = ((part["claimed"] - part["value"]) * part["n"]).sum() / part["n"].sum()
        assert errors.loc["overconfidence", "value"] == pytest.approx(signed)
        assert (errors["low"] <= errors["value"]).all() and (errors["value"] <= errors["high"]).all()


def test_calibration_estimates_cover_a_planted_overconfidence() -> None:
    """The model claims sigma(2 x), the truth is sigma(x)."""
    inside = 0
    far = np.abs(np.random.default_rng(0).normal(scale=1.5, size=400_000))
    truth = float((1 / (1 + np.exp(-2 * far)) - 1 / (1 + np.exp(-far))).mean())
    for seed in range(40):
        draw = np.random.default_rng(seed)
        margin = draw.normal(scale=1.5, size=600)
        pairs = pd.DataFrame(
            {
                "id": np.repeat(np.arange(300), 2), "first": "a", "second": "b", "second_score": 0.0,
                "first_score": 2 * margin,
                "preferred": (draw.random(600) < 1 / (1 + np.exp(-margin))).astype(float),
            }
        )  # fmt: skip
        found = calibration_estimates(pairs, draws=200)
        inside += found["overconfidence"].low <= truth <= found["overconfidence"].high
        assert 0 <= found["ece"].low <= found["ece"].value <= found["ece"].high
    assert found["ece"].value == pytest.approx(calibration(pairs).ece)
    assert inside / 40 > 0.85


def test_length_bias_is_told_apart_from_the_labelers(study: StudyResults) -> None:
    table = length_bias_table(study).set_index(["scorer", "measure"])["value"]
    assert table["rm_m", "labelers_longer"] == table["rm_s", "labelers_longer"] > 0.5
    assert table["rm_m", "accuracy_longer_chosen"] > table["rm_m", "accuracy_shorter_chosen"]


def test_probes_by_probe_and_scorer(study: StudyResults, folder: Path) -> None:
    table = probe_table(study)
    assert list(dict.fromkeys(table["measure"])) == list(PROBES), "in the order they were made"
    assert set(table["scorer"]) == {"rm_s", "rm_m", "rm_s_n750", "rm_m_n750", "gold"}
    rows = [json.loads(line) for line in (folder / "pairs-0" / "probes.jsonl").read_text().splitlines()]
    right = [
        row["summaries"][0]["scores"]["rm_m"] > row["summaries"][1]["scores"]["rm_m"]
        for row in rows
        if row["batch"] == PROBES[2]
    ]
    one = table.query("scorer == 'rm_m' and measure == @PROBES[2]").iloc[0]
    assert one["value"] == pytest.approx(np.mean(right)) and one["n"] == 150
    gold = table[table["scorer"] == "gold"].set_index("measure")["value"]
    assert gold[PROBES[0]] == 1 and gold[PROBES[2]] == 0, "the truth says which rules are right"


def test_probe_figure_marks_the_papers_values(study: StudyResults) -> None:
    axis = probes_section(study).pictures[0].figure.axes[0]
    marks = {
        line.get_label(): dict(zip(line.get_ydata(), line.get_xdata(), strict=True))
        for line in axis.lines
        if str(line.get_label()).startswith("Published")
    }
    assert marks["Published: 6.7B reward model"] == {0: 0.828, 1: 0.972}
    assert [text.get_text() for text in axis.get_yticklabels()] == list(PROBES)


def test_accuracy_figure_has_a_line_an_amount_of_labels_and_the_papers(study: StudyResults) -> None:
    ours, theirs = reward_section(study).pictures[0].figure.axes
    assert [bar.get_label() for bar in ours.containers] == ["12k labels", "750 labels"]
    lines = {line.get_label(): line.get_ydata() for line in theirs.lines}
    assert list(lines["64k labels"]) == [0.638, 0.661, 0.681, 0.696, 0.721, 0.745, 0.752]
    assert lines["One labeler"][0] == 0.77 and lines["Ensemble of labelers"][0] == 0.832
    assert load_paper("fig6", "fig6_slope")["value"].tolist() == [0.011, 0.018]


def edited(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, dict[str, float]]], object]
) -> StudyResults:
    """The study with the first pair's first summary's scores changed."""
    listing = json.loads((folder / "study.json").read_text())
    for row in listing["runs"]:
        row["folder"] = str(tmp_path / "pairs" if row["stage"] == "pairs" else folder / row["folder"])
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "DONE").touch()
    lines = (folder / "pairs-0" / "valid2.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    change(first["summaries"][0])
    (tmp_path / "pairs" / "valid2.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]))
    (tmp_path / "study.json").write_text(json.dumps(listing))
    return StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=50)


def test_trap_pairs_that_a_model_did_not_score_are_no_misses(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="1 of 300 pairs"):
        reward_accuracy_table(edited(folder, tmp_path, lambda side: side["scores"].pop("rm_m")))


def test_broken_lines_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"valid2\.jsonl:1"):
        reward_accuracy_table(edited(folder, tmp_path, lambda side: side.pop("text")))


def test_cells_are_averaged_and_share_their_posts(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        made = Made(tmp_path / str(seed), posts=40, seed=seed)
        add_rewards(made)
        add_pairs(made)
        made.close()
        rows = json.loads((tmp_path / str(seed) / "study.json").read_text())["runs"]
        runs += [row | {"folder": f"{seed}/{row['folder']}"} for row in rows]
    (tmp_path / "study.json").write_text(json.dumps({"runs": runs}))
    study = StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=50)
    row = reward_accuracy_table(study).query("measure == 'valid2_accuracy' and scorer == 'rm_m'").iloc[0]
    assert (row["n"], row["posts"], row["cells"]) == (160, 40, 2)
    alone = [np.mean(raw_hits(tmp_path / str(seed), "rm_m", seed)) for seed in (0, 1)]
    assert row["value"] == pytest.approx(np.mean(alone))
    assert row["cell_sd"] == pytest.approx(np.std(alone, ddof=1))
    assert row["runs"] == "pairs-0 pairs-1 reward-m-0 reward-m-1"
    assert len(reward_slope_table(study)) == 2


def test_model_pairs_follow_the_parents(study: StudyResults) -> None:
    found = model_pairs(study.runs, "valid2.jsonl")
    assert [model.scorer for model, _ in found] == ["rm_s", "rm_s_n750", "rm_m", "rm_m_n750"]
    assert "gold" in scored_pairs(study.runs, "valid2.jsonl") and len(SKILL) == len(found)
    assert model_pairs(study.runs, "nowhere.jsonl") == []


def test_trap_a_reward_model_of_an_earlier_round_is_no_point_of_a_sweep_of_labels(tmp_path: Path) -> None:
    """In each of two cells the main model reads both rounds, `n-450` a part of both, `r1` the first's labels.
    One cell's `n-150` is not finished: its model reads all rounds all the same."""
    runs = []
    for seed in (0, 1):
        rounds = {f"labels-{name}": f"labels-{name}-{seed}" for name in ("r1", "r2")}
        runs += [StudyRun(name, "labels", tmp_path, seed=seed) for name in rounds.values()]
        for variant, parents in (
            ("", rounds),
            ("n-450", rounds),
            ("n-150", rounds),
            ("r1", {"labels": f"labels-r1-{seed}"}),
            ("elsewhere", {"labels": f"labels-r3-{seed}"}),
        ):
            made = StudyRun(f"reward-m-{variant}-{seed}", "reward", tmp_path, "m", seed, variant)
            runs.append(replace(made, parents=parents, finished=(variant, seed) != ("n-150", 1)))
    models = reward_models(StudyRuns(tmp_path, tuple(runs)))
    assert len(models) == 5 and [name for name, model in models.items() if model.earlier_round] == ["rm_m_r1"]
    without = [run for run in runs if run.variant]
    found = reward_models(StudyRuns(tmp_path, tuple(without)))
    assert not any(model.earlier_round for model in found.values()), "no main model says what all labels are"


def test_an_earlier_round_is_left_out_of_differences_and_slopes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        (replace(model, earlier_round=bool(model.variant)), pairs)
        for model, pairs in model_pairs(load_runs(folder), "valid2.jsonl")
    ]
    monkeypatch.setattr(reward_tables, "model_pairs", lambda *_: found)
    study = StudyResults(load_runs(folder), PAPER_FOLDER, draws=20)
    differences = reward_difference_table(study)
    assert list(zip(differences["scorer"], differences["against"], strict=True)) == [("rm_m", "rm_s")]
    assert list(reward_slope_table(study)["measure"]) == ["accuracy_gain_model_doubling"]
