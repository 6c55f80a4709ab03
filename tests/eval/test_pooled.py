"""Claims over the cells of reports that were made apart."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from eval.claims.pooled import NOT_POOLED, POOLED_COLUMNS, pool_reports
from eval.claims.section import claims_section
from eval.common.paper import PAPER_FOLDER
from eval.common.study import StudyResults
from eval.common.tables import write_table
from tests.eval.cells_study import cells_study
from tldr.cli.main import app
from tldr.errors import UsageError

FIRST, SECOND = ((3, 0), (4, 0)), ((3, 1), (4, 1), (4, 2))


def report_of(study: StudyResults, folder: Path) -> pd.DataFrame:
    """Write the tables of a study's claims, all of the papers'; the shapes that it ran."""
    tables = claims_section(StudyResults(study.runs, PAPER_FOLDER, 50)).tables
    for table in tables:
        write_table(table.frame, table.shown, folder / "tables", table.name)
    claims = tables[0].frame
    steps = tables[1].frame
    return claims[claims["claim"].isin(steps["claim"]) & (claims["kind"] == "shape")].reset_index(drop=True)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], pd.DataFrame]:
    """Two reports of a study in pieces, and the shapes of the study in one piece."""
    root = tmp_path_factory.mktemp("pieces")
    for name, cells in (("first", FIRST), ("second", SECOND)):
        report_of(cells_study(root / f"runs-{name}", cells, posts=24, whole=True), root / name)
    together = cells_study(root / "runs", FIRST + SECOND, posts=24, whole=True)
    return [root / "first", root / "second"], report_of(together, root / "whole")


def test_pieces_give_the_verdicts_of_the_study_in_one_piece(
    reports: tuple[list[Path], pd.DataFrame], tmp_path: Path
) -> None:
    folders, whole = reports
    pooled = pool_reports(folders, tmp_path)
    assert list(pooled.columns) == [*POOLED_COLUMNS, "first", "second"]
    assert list(pooled["claim"]) == list(whole["claim"]) and len(pooled) > 10
    known = pooled["verdict"] != NOT_POOLED
    assert known.sum() >= len(pooled) - 2, "only the two shapes with a peak may differ in its place"
    for column in ("ours", "low", "high", "cell_sd"):
        assert pooled.loc[known, column].tolist() == pytest.approx(whole.loc[known, column].tolist())
    for column in ("verdict", "cells", "holds_in"):
        assert pooled.loc[known, column].tolist() == whole.loc[known, column].tolist()
    assert pooled.loc[known, "cells"].value_counts().idxmax() == 5
    assert {"reproduced", "not reproduced"} <= set(pooled["verdict"])
    told = CliRunner().invoke(app, ["pool", *map(str, folders), "--out", str(tmp_path / "told")])
    reproduced = (pooled["verdict"] == "reproduced").sum()
    assert told.exit_code == 0 and f"{len(pooled)} shapes: " in told.output
    assert f"{reproduced} reproduced" in told.output
    again = pd.read_csv(tmp_path / "told" / "claims_pooled.csv")
    assert again["verdict"].tolist() == pooled["verdict"].tolist()
    assert len((tmp_path / "told" / "claims_pooled.md").read_text().splitlines()) == len(pooled) + 2


def changed(folder: Path, copy: Path, change: pd.DataFrame) -> Path:
    (copy / "tables").mkdir(parents=True)
    change.to_csv(copy / "tables" / "claim_steps.csv", index=False)
    return copy


def test_peaks_at_different_places_are_not_pooled(
    reports: tuple[list[Path], pd.DataFrame], tmp_path: Path
) -> None:
    first, second = reports[0]
    steps = pd.read_csv(first / "tables" / "claim_steps.csv")
    peaks = steps["chosen"]
    assert 0 < peaks.sum() < len(steps)
    moved = steps.assign(step=steps["step"].where(~peaks, "elsewhere"))
    pooled = pool_reports([changed(first, tmp_path / "moved", moved), second], tmp_path)
    assert set(pooled.loc[pooled["verdict"] == NOT_POOLED, "claim"]) == set(steps.loc[peaks, "claim"])
    assert pooled.loc[pooled["verdict"] == NOT_POOLED, "ours"].isna().all()


def test_a_step_that_one_report_lacks_rests_on_the_cells_of_the_other(
    reports: tuple[list[Path], pd.DataFrame], tmp_path: Path
) -> None:
    first, second = reports[0]
    steps = pd.read_csv(first / "tables" / "claim_steps.csv")
    several = steps["claim"].map(steps["claim"].value_counts()).gt(1) & ~steps["chosen"]
    row = steps[several].iloc[0]
    lacking = steps.drop(index=row.name)
    pooled = pool_reports([changed(first, tmp_path / "lacking", lacking), second], tmp_path)
    found = pooled.set_index("claim").loc[row["claim"]]
    assert found["cells"] == 3 and found["verdict"] in ("reproduced", "not reproduced")
    without = steps[steps["claim"] != row["claim"]]
    pooled = pool_reports([changed(first, tmp_path / "without", without), second], tmp_path)
    assert pooled.set_index("claim").loc[row["claim"], "without"] == "not run here"


def test_what_cannot_be_pooled_is_refused(reports: tuple[list[Path], pd.DataFrame], tmp_path: Path) -> None:
    first, second = reports[0]
    with pytest.raises(UsageError, match="two or more"):
        pool_reports([first], tmp_path)
    with pytest.raises(UsageError, match="different names"):
        pool_reports([first, first], tmp_path)
    steps = pd.read_csv(first / "tables" / "claim_steps.csv")
    with pytest.raises(UsageError, match=r"cell d[34] s0 is in first and in again"):
        pool_reports([first, changed(first, tmp_path / "again", steps)], tmp_path)
    (tmp_path / "bare" / "tables").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"bare: no tables/claim_steps\.csv"):
        pool_reports([second, tmp_path / "bare"], tmp_path)
