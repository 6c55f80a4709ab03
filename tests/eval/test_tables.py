from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from eval.common.tables import (
    COLUMNS,
    MeasuredResult,
    human_count,
    result_table,
    to_markdown,
    wide,
    write_table,
)
from tldr.errors import UsageError


def result(**changes: object) -> MeasuredResult:
    base = {
        "measure": "preference", "value": 0.5, "low": 0.4, "high": 0.6, "se": 0.05, "n": 10, "posts": 10,
        "unit": "share", "runs": ("r1", "r2"), "method": "sft", "params": 1.3e9,
    }  # fmt: skip
    return MeasuredResult(**(base | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": ()}, "without the runs"),
        ({"runs": ("r", "")}, "without the runs"),
        ({"unit": ""}, "without a unit"),
        ({"n": 0}, "from 0 observations"),
        ({"value": math.nan}, "value nan"),
        ({"low": 0.7}, "misses"),
    ],
)
def test_no_number_without_provenance(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        result(**changes)


def test_an_empty_table_keeps_its_columns() -> None:
    assert list(result_table([]).columns) == COLUMNS
    assert wide(result_table([])).empty


def test_wide_has_a_column_a_measure() -> None:
    table = result_table(
        [
            result(),
            result(measure="ties", value=0.0, low=0.0, high=0.0),
            result(method="title", params=None, low=math.nan, high=math.nan, se=math.nan),
        ]
    )
    shown = wide(table)
    assert list(shown.columns) == ["method", "params", "preference", "ties", "n", "posts", "runs"]
    assert shown.iloc[0].tolist() == [
        "sft",
        "1.3B",
        "0.500 [0.400, 0.600]",
        "0.000 [0.000, 0.000]",
        10,
        10,
        "r1 r2",
    ]
    assert shown.iloc[1].tolist()[1:4] == ["", "0.500", ""]


def test_files_hold_the_numbers_and_their_runs(tmp_path: Path) -> None:
    table = result_table([result(value=1 / 3, low=0.1), result(measure="a|b_c", scorer="50 %")])
    csv, markdown, latex = write_table(table, wide(table), tmp_path / "new", "t")
    read = pd.read_csv(csv)
    assert read.loc[0, "value"] == 1 / 3 and read.loc[0, "runs"] == "r1 r2"
    assert "a\\|b_c" in markdown.read_text() and "0.333 [0.100, 0.600]" in markdown.read_text()
    text = latex.read_text()
    assert "a|b\\_c" in text and "50 \\%" in text and text.startswith("\\begin{tabular}")


def test_markdown_rows_stay_rows() -> None:
    text = to_markdown(pd.DataFrame({"x|y": ["two\nlines", "back\\slash"]}))
    assert text == "| x\\|y |\n| --- |\n| two lines |\n| back\\\\slash |\n"


def test_human_counts() -> None:
    assert [human_count(n) for n in (1.3e9, 12.9e9, 35_000, 830_123, 999_999, 7, None, math.nan)] == [
        "1.3B", "12.9B", "35k", "830k", "1M", "7", "", "",
    ]  # fmt: skip
