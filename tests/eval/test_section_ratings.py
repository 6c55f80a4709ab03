from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from pydantic import ValidationError

from eval.common.paper import PAPER_FOLDER
from eval.common.runs import load_runs
from eval.common.study import StudyResults
from eval.ratings.measure import AXES, length_bins, rating_results, rating_rows
from eval.ratings.section import (
    NO_RATINGS,
    article_length_table,
    article_rating_table,
    rating_section,
    rating_table,
)
from tldr.errors import UsageError
from tldr.records import Rating, write_json, write_records


def rating(post: str, policy: str, overall: int | None, *, text: str = "a b", **more: Any) -> Rating:
    article = more.pop("article", False)
    info = {"id": post, "article" if article else "post": "words of " + post}
    axes = {"overall": overall, "accuracy": 7, "coverage": overall, "coherence": 6} | more
    return Rating.model_validate(
        {
            "info": info,
            "summary": {"text": text, "policy": policy, "axes": axes},
            "worker": "w",
            "batch": "b",
            "split": "valid2",
        }
    )


def news(policy: str, count: int, mean: int, slope: float) -> list[Rating]:
    """Articles' ratings on an exact line: `slope` points for 100 more characters."""
    lengths = [mean + 100 * step for step in range(-1, 2)] * (count // 3)
    return [
        rating(f"a{n}", policy, round(4 + slope * (length - mean) / 100), text="x" * length, article=True)
        for n, length in enumerate(lengths)
    ]


def write_study(folder: Path, ratings: dict[int, list[Rating]]) -> StudyResults:
    """A study of one ppo size, and one ratings run a seed."""
    rows = [{"run": "ppo-m", "stage": "ppo", "folder": "ppo-m", "size": "m", "seed": 0, "params": 170_000}]
    for seed, records in ratings.items():
        write_records(folder / f"ratings-{seed}" / "ratings.jsonl", records)
        write_json(folder / f"ratings-{seed}" / "DONE", {})
        rows.append({"run": f"ratings-{seed}", "stage": "ratings", "folder": f"ratings-{seed}", "seed": seed})
    write_json(folder / "study.json", {"runs": rows})
    return StudyResults(load_runs(folder), PAPER_FOLDER, draws=200)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    draw = random.Random(0)
    posts = [
        [rating(f"p{n}", policy, draw.choice(scale)) for n in range(20) for policy, scale in POLICIES.items()]
        for _ in range(2)
    ]
    articles = news("ppo-m", 30, 200, 1.0) + news("ref", 30, 300, 0.0) + news("t5", 6, 300, 1.0)
    return write_study(tmp_path_factory.mktemp("rated"), {0: posts[0] + articles, 1: posts[1]})


POLICIES = {"ppo-m": [5, 6, 7], "reference": [4, 5, 7], "lead-2": [2, 3]}


def test_rows_read_openai_names_missing_axes_and_articles() -> None:
    rows = rating_rows([rating("p", "ref", None), rating("q", "lead-3", 3, text=" four ", article=True)])
    assert rows["policy"].tolist() == ["reference", "lead-3"]
    assert rows["article"].tolist() == [False, True] and rows["characters"].tolist() == [3, 4]
    assert np.isnan(rows.loc[0, "overall"]) and rows.loc[0, "coherence"] == 6
    assert rating_rows([]).empty


def test_means_and_shares_by_hand() -> None:
    rows = rating_rows(
        [rating("p", "x", 7), rating("p", "x", 4), rating("q", "x", 7), rating("q", "x", None)]
    )
    results = {one.measure: one for one in rating_results(rows.assign(run="r", cell="0"), draws=50)}
    assert results["overall"].value == 6 and results["overall"].n == 3 and results["overall"].posts == 2
    assert results["share_overall_7"].value == pytest.approx(2 / 3)
    assert results["accuracy"].n == 4 and results["accuracy"].unit == "mean of 1-7"
    with pytest.raises(UsageError, match=r"outside 1\.\.7"):
        rating_results(rating_rows([rating("p", "x", 7)]).assign(run="r", cell="0", overall=8))
    with pytest.raises(ValidationError):
        rating("p", "x", 8)


def test_trap_two_ratings_of_one_summary_are_not_two_posts() -> None:
    """Every rating given twice is no more evidence: the interval must not shrink."""
    once = [rating(f"p{n}", "x", 1 + n % 7) for n in range(30)]
    widths = []
    for records in (once, once * 2):
        results = rating_results(rating_rows(records).assign(run="r", cell="0"), draws=4000)
        overall = next(one for one in results if one.measure == "overall")
        widths.append(overall.high - overall.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_table_averages_cells_and_names_the_policies(study: StudyResults) -> None:
    table = rating_table(study).set_index(["policy", "measure"])
    assert set(table.index.get_level_values(0)) == set(POLICIES), "news is in a table of its own"
    row = table.loc[("ppo-m", "overall")]
    assert (row["method"], row["size"], row["params"]) == ("ppo", "m", 170_000)
    assert (
        row["n"] == 40 and row["posts"] == 20 and row["runs"] == "ratings-0 ratings-1" and row["cells"] == 2
    )
    assert row["low"] < row["value"] < row["high"]
    assert table.loc[("lead-2", "share_overall_7"), "value"] == 0
    assert table.loc[("reference", "overall"), "method"] == "reference"
    assert rating_table(study) is rating_table(study), "made once"


def test_news_by_length_as_in_table_14(study: StudyResults) -> None:
    table = article_length_table(study).set_index("policy")
    assert set(table.index) == {"ppo-m", "reference"}, "six ratings allow no slope"
    assert table.loc["ppo-m", "per_100"] == pytest.approx(1.0) and table.loc["ppo-m", "rating"] == 4
    assert table.loc["reference", "per_100"] == pytest.approx(0.0, abs=1e-9)
    assert (table["runs"] == "ratings-0").all(), "the other run rated no news"
    assert set(article_rating_table(study)["policy"]) == {"ppo-m", "reference", "t5"}


def test_length_bins_hold_every_rating_once() -> None:
    rows = rating_rows([*news("x", 60, 200, 1.0), rating("p", "x", None, article=True)])
    bins = length_bins(rows, bins=3)
    assert bins["n"].sum() == 60 and bins["characters"].is_monotonic_increasing
    assert bins["value"].tolist() == [3, 4, 5]


def test_section_draws_ours_above_the_papers(study: StudyResults) -> None:
    section = rating_section(study)
    names = [picture.name for picture in section.pictures]
    assert names == [
        "ratings", "ratings_articles", "ratings_articles_by_size", "ratings_articles_by_length",
    ]  # fmt: skip
    assert section.missing == []
    panels = section.pictures[0].figure.axes
    assert len(panels) == 8 and panels[-1].get_xlabel() == "Mean rating (1-7)"
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["lead-2", "reference", "ppo-m"]
    best = [label.get_text() for label in panels[4].get_yticklabels()][-1]
    assert best == "Human feedback 6.7B"
    hollow = panels[4].containers[0].lines[0]
    assert to_hex(hollow.get_markerfacecolor()) == "#ffffff"
    assert "Human feedback 6.7B 45%" in section.tables[0].caption
    assert "1.3B" not in section.tables[0].caption, "the paper's other shares are no shares of 7"


def test_papers_points_alone_where_nobody_rated(tmp_path: Path) -> None:
    section = rating_section(write_study(tmp_path, {}))
    assert section.missing == [f"{what}: {NO_RATINGS}" for what in ("Posts", "News")] and not section.tables
    assert len(section.pictures) == 4 and len(section.pictures[0].figure.axes) == 4
    assert all("only the paper's points are shown" in picture.caption for picture in section.pictures)
    bare = StudyResults(load_runs(tmp_path), tmp_path, draws=20)
    assert rating_section(bare).pictures == [], "nothing of ours and nothing published"
    assert rating_table(bare).empty and list(rating_table(bare).columns)[:2] == ["measure", "value"]


def test_a_file_of_axis_evaluations_beside_a_study_is_read(tmp_path: Path) -> None:
    write_records(tmp_path / "ratings.jsonl", [rating(f"p{n}", "sup4", 3 + n % 2) for n in range(6)])
    table = rating_table(StudyResults(load_runs(tmp_path), PAPER_FOLDER, draws=20))
    assert set(table["runs"]) == {"ratings.jsonl"} and set(table["measure"]) == {*AXES, "share_overall_7"}
    overall = table[table["measure"] == "overall"].iloc[0]
    assert overall["value"] == 3.5 and overall["policy"] == overall["method"] == "sup4"
    assert pd.isna(overall["params"])
