"""A study beside a committed report: prediction intervals, and what lies outside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval.claims.section import claims_section
from eval.common.beside import ALONE, CommittedReport, compared, told
from eval.common.study import StudyResults
from eval.common.tables import write_table
from eval.preference.section import preference_section
from tests.eval.cells_study import cells_study
from tldr.errors import UsageError


def rows(**columns: object) -> pd.DataFrame:
    table = pd.DataFrame({"key": ["a", "b"], "low": np.nan, "high": np.nan, "cells": 1, "cell_sd": np.nan})
    return table.assign(**columns)


def committed(study: StudyResults, folder: Path) -> CommittedReport:
    """The tables of a study's claims and preferences, as a report writes them."""
    for section in (claims_section(study), preference_section(study)):
        for table in section.tables:
            write_table(table.frame, table.shown, folder / "tables", table.name)
    return CommittedReport(folder)


def beside(study: StudyResults, other: CommittedReport) -> StudyResults:
    return StudyResults(study.runs, study.paper, study.draws, other)


def test_the_prediction_interval_by_hand() -> None:
    other = rows(value=[0.5, 0.5], cells=4, cell_sd=0.1)
    table = compared(rows(value=[0.85, 0.86]), other, ["key"])
    # t(0.975, 3) = 3.182446; 3.182446 * 0.1 * sqrt(1 + 1/4) = 0.355808.
    assert table["predicted_high"].tolist() == pytest.approx([0.855808] * 2, abs=1e-6)
    assert table["predicted_low"].tolist() == pytest.approx([0.144192] * 2, abs=1e-6)
    assert table["outside"].tolist() == [False, True]
    said = told(table, ["first", "second"], "toy")
    assert said.startswith("Beside toy: 1 of 2 shared values") and said.endswith("): second.")
    # The mean of four new cells scatters less: sqrt(1/4 + 1/4).
    several = compared(rows(value=[0.85, 0.7], cells=4, cell_sd=0.1), other, ["key"])
    assert several["predicted_high"].tolist() == pytest.approx([0.5 + 0.3182446 * np.sqrt(0.5)] * 2)
    assert several["outside"].tolist() == [True, False]


def test_another_draw_lies_inside_19_times_in_20() -> None:
    draw, tries = np.random.default_rng(1), 600
    seen = draw.normal(0.5, 0.1, (tries, 6))
    about = {"key": range(tries), "low": np.nan, "high": np.nan}
    of_six = {"value": seen.mean(axis=1), "cells": 6, "cell_sd": seen.std(axis=1, ddof=1)}
    of_one = {"value": draw.normal(0.5, 0.1, tries), "cells": 1, "cell_sd": np.nan}
    table = compared(pd.DataFrame(about | of_one), pd.DataFrame(about | of_six), ["key"])
    assert 0.93 < 1 - table["outside"].mean() < 0.97


def test_one_committed_cell_predicts_nothing() -> None:
    table = compared(rows(value=[0.5, 0.6]), rows(value=[0.1, 0.2]), ["key"])
    assert table["predicted_low"].isna().all() and not table["outside"].any()
    assert told(table, ["a", "b"], "toy") == f"Beside toy: {ALONE}."
    assert "no value is shared" in told(table.iloc[:0], [], "toy")
    mixed = compared(rows(value=[0.5, 0.6]), rows(value=0.1, cells=[1, 3], cell_sd=[np.nan, 0.01]), ["key"])
    assert "1 of 1 shared values" in told(mixed, ["a", "b"], "toy")
    assert told(mixed, ["a", "b"], "toy").endswith("b. 1 more are of one cell there and predict nothing.")


def test_absent_keys_are_equal_however_they_are_read() -> None:
    own = rows(value=1.0, key=[None, 0.0])
    other = rows(value=1.0, key=["", 0])
    assert len(compared(own, other, ["key"])) == 2


def test_the_report_sets_one_draw_beside_the_committed_cells(tmp_path: Path) -> None:
    cells = ((3, 0), (3, 1), (4, 0))
    other = committed(cells_study(tmp_path / "other", cells, posts=12), tmp_path / "full")
    study = beside(cells_study(tmp_path / "own", ((5, 0),), posts=12), other)
    section = preference_section(study)
    table = next(one for one in section.tables if one.name == "preference_gold_beside")
    frame = table.frame.set_index(["method", "size"])
    assert len(frame) == 6 and (frame["other_cells"] == 3).all() and (frame["cells"] == 1).all()
    assert (frame["predicted_high"] > frame["other_high"]).all(), "wider than the interval of the mean"
    assert table.caption.startswith(f"Beside full: {frame['outside'].sum()} of 6 shared values")
    figure = next(one for one in section.pictures if one.name == "preference_gold").figure
    assert "full: 95 % interval over 3 cells" in figure.axes[0].get_legend_handles_labels()[1]
    claims = claims_section(study).tables[0]
    assert "full" in claims.shown and "Beside full: " in claims.caption
    at_m = claims.shown.set_index("claim")["full"]
    shown = at_m["Human feedback (PPO) is preferred to supervised learning at each size (m)"]
    assert "3 cells" in shown and "[" in shown


def test_a_committed_report_of_one_draw_is_said_to_predict_nothing(tmp_path: Path) -> None:
    other = committed(cells_study(tmp_path / "other", ((3, 0),), posts=12), tmp_path / "toy")
    study = beside(cells_study(tmp_path / "own", ((5, 0),), posts=12), other)
    claims = claims_section(study).tables[0]
    assert claims.caption.endswith(f"Beside toy: {ALONE}.") and "1 cell" in " ".join(claims.shown["toy"])
    table = next(one for one in preference_section(study).tables if one.name == "preference_gold_beside")
    assert table.caption == f"Beside toy: {ALONE}."


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tables of a report"):
        CommittedReport(tmp_path)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "old.csv").write_text("measure,value,seeds\nx,1,1\n")
    assert CommittedReport(tmp_path).table("claims") is None
    with pytest.raises(UsageError, match="a table without cells"):
        CommittedReport(tmp_path).table("old")


def test_the_committed_results_can_be_read_beside_a_study() -> None:
    toy = CommittedReport(Path(__file__).resolve().parents[2] / "results" / "toy")
    claims, table = toy.table("claims"), toy.table("preference_gold")
    assert claims is not None and table is not None
    assert {"step", "cell_sd", "holds_in"} <= set(claims) and {"cells", "cell_sd"} <= set(table)
