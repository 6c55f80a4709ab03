"""Reward models on labels asked for in different ways: tables by hand, and the figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from eval.asking.measure import gain_by_doubling, gain_over_random
from eval.asking.section import asking_gain_table, asking_section, asking_table
from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.report.sections import SECTIONS
from eval.reward.scored_pairs import reward_models
from tests.eval.section_study import Made, add_rewards
from tldr.records import write_json

VALUES: dict[str, dict[int, float]] = {
    "random": {125: 0.60, 250: 0.62, 500: 0.64},
    "disagreement": {125: 0.61, 250: 0.65, 500: 0.66},
}
"""Of cell 0; cell 1 has .02 more, and .04 more where questions were chosen."""


def add_ways(made: Made) -> None:
    """Two ways of asking, on labels of two rounds; and a main reward model, which reports on its own."""
    made.run("labels", variant="r1", settings={"pairs": 1000, "choose_by": None})
    made.run("labels", settings={"pairs": 2000, "choose_by": None})
    for way, amounts in VALUES.items():
        for pairs, value in amounts.items():
            name = f"{way}-{pairs}"
            chosen = None if way == "random" else way
            made.run("labels", variant=name, settings={"pairs": pairs, "choose_by": chosen})
            parents = {"labels": "labels-r1", "labels-2": f"labels-{name}", "held_out": "labels"}
            where = made.run("reward", "s", name, parents=parents)
            more = made.seed * (0.02 if chosen is None else 0.04)
            evaluation: dict[str, Any] = {"valid2_accuracy": value + more, "valid2_pairs": 400, "n": 400}
            write_json(where / "evaluation.json", evaluation | {"train_rankings": 1000 + pairs})


def study(folder: Path, seeds: int) -> StudyResults:
    runs = []
    for seed in range(seeds):
        made = Made(folder, 30, seed)
        add_rewards(made)
        add_ways(made)
        runs += made.runs
    write_json(folder / "study.json", {"study": "made", "runs": runs})
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=100)


def test_accuracy_by_way_and_labels(tmp_path: Path) -> None:
    table = asking_table(study(tmp_path, 2))
    found = {(row.way, row.labels): row.value for row in table.itertuples()}
    expected = {
        (way, pairs): value + (0.01 if way == "random" else 0.02)
        for way, amounts in VALUES.items()
        for pairs, value in amounts.items()
    }
    assert found == pytest.approx(expected)
    assert list(table["way"].unique()) == ["random", "disagreement"]
    assert set(table["cells"]) == {2} and set(table["size"]) == {"s"} and set(table["n"]) == {800}


def test_what_choosing_gains_and_what_a_doubling_gains_by_hand(tmp_path: Path) -> None:
    table = asking_gain_table(study(tmp_path, 2)).set_index("measure")
    # cell 0: mean of .01, .03, .02; cell 1: .02 more
    gain = table.loc["gain_over_random"]
    assert gain["value"] == pytest.approx(0.03) and gain["way"] == "disagreement"
    assert gain["cell_values"] and gain["low"] < 0.03 < gain["high"]
    doubling = table.loc["gain_by_doubling"]
    assert doubling["value"] == pytest.approx(0.02) and doubling["high"] - doubling["low"] < 1e-9


def test_amounts_without_a_partner_do_not_count() -> None:
    rows = [("c", "random", 100, 0.6), ("c", "random", 200, 0.7), ("c", "uncertainty", 200, 0.8)]
    rows += [("c", "uncertainty", 400, 0.1)]
    table = pd.DataFrame(rows, columns=["cell", "way", "labels", "value"]).assign(n=10)
    gain = gain_over_random(table, "uncertainty")
    assert gain is not None and gain.value == pytest.approx(0.1) and math.isnan(gain.low)
    assert gain_over_random(table, "disagreement") is None
    doubling = gain_by_doubling(table)
    assert doubling is not None and doubling.value == pytest.approx(0.1)
    assert gain_by_doubling(table[table["labels"] == 200]) is None


def test_the_section_draws_each_size_and_is_in_the_report(tmp_path: Path) -> None:
    section = asking_section(study(tmp_path, 1))
    assert [picture.name for picture in section.pictures] == ["asking_s"]
    (axis,) = section.pictures[0].figure.axes
    assert len(axis.containers) == 2 and "log scale" in axis.get_xlabel()
    section.pictures[0].figure.draw_without_rendering()
    ticks = [label.get_text() for label in axis.get_yticklabels()]
    assert len(set(ticks)) == len(ticks), "two ticks have one label"
    assert [table.name for table in section.tables] == ["asking", "asking_gain"]
    assert "one draw" in section.tables[0].caption
    plt.close("all")
    assert asking_section in SECTIONS


def test_a_study_without_such_variants_has_nothing_to_show(tmp_path: Path) -> None:
    made = Made(tmp_path, 10)
    add_rewards(made)
    section = asking_section(made.close())
    assert not section.pictures and section.missing


def test_they_are_no_reward_models_of_the_other_figures(tmp_path: Path) -> None:
    """Their accuracy is of other pairs, and their labels are no part of a larger sample (Fig. 6)."""
    found = reward_models(study(tmp_path, 1).runs)
    assert found and not any("random" in name or "disagreement" in name for name in found)
