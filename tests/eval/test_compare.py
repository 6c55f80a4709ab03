"""Studies side by side."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from eval.report.compare import compare
from tests.eval.conftest import make_study
from tldr.errors import UsageError


def test_each_study_has_its_column_and_each_policy_its_row(study_folder: Path, tmp_path: Path) -> None:
    other = make_study(tmp_path / "other", posts=12, seeds=1)
    shown = compare({"first": study_folder, "second": other}, tmp_path / "out", draws=50)
    assert list(shown.columns[-2:]) == ["first", "second"]
    names = ["measure", "scorer", "method", "size", "best_of", "temperature"]
    assert not shown.duplicated(names).any()
    long = pd.read_csv(tmp_path / "out" / "compare.csv", keep_default_na=False)
    row = shown[
        (shown.measure == "expected_preference")
        & (shown.scorer == "gold")
        & (shown.method == "ppo")
        & (shown.temperature == "0")
    ].iloc[0]
    for study in ("first", "second"):
        value = long[
            (long.study == study)
            & (long.measure == row.measure)
            & (long.scorer == "gold")
            & (long.method == "ppo")
            & (long["size"] == row["size"])
            & (long.temperature.astype(str).isin(["0", "0.0"]))
        ]["value"].astype(float)
        assert len(value) == 1 and row[study].startswith(f"{value.iloc[0]:.3f} [")
    assert {"valid2_accuracy", "preference", "expected_preference"} == set(shown.measure)
    assert (tmp_path / "out" / "compare.md").exists()


def test_a_policy_that_one_study_lacks_has_an_empty_cell(study_folder: Path, tmp_path: Path) -> None:
    other = make_study(tmp_path / "other", posts=12, seeds=1)
    for place in (other / "runs").glob("best_of_n-*"):
        (place / "DONE").unlink()
    shown = compare({"first": study_folder, "second": other}, tmp_path / "out", draws=50)
    best = shown[shown.method == "best_of_n"]
    assert len(best) and (best["second"] == "").all() and (best["first"] != "").all()


def test_one_study_or_an_unscored_one_is_refused(study_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs at least two studies"):
        compare({"first": study_folder}, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="nothing was scored"):
        compare({"first": study_folder, "second": tmp_path / "empty"}, tmp_path)
