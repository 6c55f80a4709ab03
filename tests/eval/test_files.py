from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import eval as package
from eval.common.io import load_posts, load_samples
from eval.common.pairs import comparison_pairs
from eval.common.study import Section, Table
from eval.report.files import file_sections
from tldr.errors import UsageError
from tldr.records import Comparison, Judgement, Post, Sample, write_records

COUNT = 40


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies from elsewhere, without tags, and the posts."""
    folder, draw = tmp_path_factory.mktemp("elsewhere"), np.random.default_rng(1)
    posts = [
        Post(
            id=f"p{n}",
            subreddit="ab"[n % 2],
            title="a title",
            post=f"one two {n}. three four",
            summary="one two four",
        )
        for n in range(COUNT)
    ]
    write_records(folder / "posts.jsonl", posts)
    for name, level in (("good", 0.7), ("bad", -0.3)):
        rows = [
            Sample(
                id=post.id,
                policy=name,
                text="one two " + "five " * int(draw.integers(1, 6)),
                scores={"rm": float(level + draw.normal()), "rm_reference": 0.0},
            )
            for post in posts
        ]
        write_records(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def made(files: Path) -> list[Section]:
    samples = load_samples([files / "good.jsonl", files / "bad.jsonl"])
    return file_sections(samples, load_posts(files / "posts.jsonl"), by="subreddit", draws=200)


def tables(made: list[Section]) -> list[Table]:
    return [table for section in made for table in section.tables]


def missing(made: list[Section]) -> list[str]:
    return [line for section in made for line in section.missing]


def sheet(made: list[Section], name: str) -> pd.DataFrame:
    return next(one.frame for one in tables(made) if one.name == name)


def test_policies_without_tags_stay_apart(made: list[Section]) -> None:
    preference = sheet(made, "preference_rm").query("measure == 'preference'").set_index("policy")
    assert preference.loc["good", "value"] > preference.loc["bad", "value"]
    assert preference["runs"].to_dict() == {"good": "good", "bad": "bad"}
    controlled = sheet(made, "length_controlled_rm")
    assert set(controlled["method"]) == {"good", "bad"}


def test_everything_is_measured_with_an_interval_and_its_runs(made: list[Section]) -> None:
    names = [one.name for one in tables(made)]
    assert names == [
        "rouge", "texts", "distinct", "preference_rm", "preference_rm_by_subreddit", "length_controlled_rm",
        "elo_rm", "paired_rm",
    ]  # fmt: skip
    assert missing(made) == []
    for one in tables(made):
        assert {"low", "high", "runs"} <= set(one.frame) and (one.frame["runs"] != "").all(), one.name


def test_numbers_are_those_of_the_measures(made: list[Section], files: Path) -> None:
    elo = sheet(made, "elo_rm").set_index("policy")["elo"]
    assert elo["good T=1"] > elo["reference"] == 1000 > elo["bad T=1"]
    test = sheet(made, "paired_rm").iloc[0]
    assert (test["first"], test["second"], test["posts"]) == ("bad T=1", "good T=1", COUNT) and test[
        "high"
    ] < 0
    rouge = sheet(made, "rouge").set_index(["policy", "measure"])["value"]
    assert ("lead-2", "rouge_mean") in rouge.index and ("reference", "rouge_mean") not in rouge.index
    assert rouge["title", "rouge1_f"] == 0
    by = sheet(made, "preference_rm_by_subreddit").query("measure == 'preference'")
    assert by["n"].tolist() == [COUNT / 2] * 4 and by["group"].tolist() == ["a", "a", "b", "b"]


def test_what_cannot_be_measured_is_said_and_costs_nothing_else(files: Path) -> None:
    samples = load_samples(files / "good.jsonl")
    samples.loc[0, "score.rm"] = np.nan
    bare = file_sections(samples, by="subreddit", draws=100)
    assert [one.name for one in tables(bare)] == ["texts", "distinct", "preference_rm", "elo_rm"]
    assert sheet(bare, "preference_rm")["n"].max() == COUNT - 1
    assert missing(bare) == [
        "rouge, copying, length ratio: no posts were given",
        "rm: 1 of 40 samples have no score",
        "preference_rm_by_subreddit: no posts were given, so no subreddits",
        "paired_rm: no two policies were sampled on the same posts",
    ]


def test_samples_of_other_posts_are_refused(files: Path) -> None:
    posts = load_posts(files / "posts.jsonl").head(3)
    with pytest.raises(UsageError, match="37 of 40 posts are missing"):
        file_sections(load_samples(files / "good.jsonl"), posts, draws=10)


def comparison(number: int, winner: int) -> Comparison:
    sides = [
        {"text": "a " * (3 + number % 4), "policy": "x"},
        {"text": "a " * (3 + number % 3), "policy": "ref"},
    ]
    row = {"info": {"id": f"p{number}", "post": "t"}, "summaries": sides, "choice": winner, "worker": "w"}
    return Comparison.model_validate(row | {"batch": "b7", "split": "valid2"})


def test_people_and_judges() -> None:
    people = comparison_pairs([comparison(number, int(number % 4 == 0)) for number in range(20)])
    verdicts = [
        Judgement(
            id=f"p{n}", policies=["x", "reference"], order=order, judge="../j", verdict=verdict, runs=["r"]
        )
        for n in range(8)
        for order, verdict in (([0, 1], "A"), ([1, 0], "invalid" if n == 0 else "AB"[n % 2]))
    ]
    made = file_sections(comparisons=people, judgements=verdicts)
    assert missing(made) == []
    row = sheet(made, "comparisons").iloc[0]
    assert (row["first"], row["second"], row["value"], row["runs"]) == ("x", "reference", 0.75, "b7")
    assert sheet(made, "comparisons_elo")["runs"].tolist() == ["b7", "b7"]
    assert set(sheet(made, "comparisons_length_controlled")["policy"]) == {"x"}
    judge = sheet(made, "judge_.._j_overall").iloc[0]
    # p0 once for x and once invalid; the three even ones twice for x or not at all
    assert (judge["n"], judge["invalid"], judge["runs"]) == (15, 1, "r")
    assert judge["value"] == pytest.approx((1 + 4 * 2 + 3 * 1) / 15)
    assert "preference" in set(sheet(made, "judges")["measure"])


def test_modules_and_loaders_are_at_hand_without_torch(files: Path) -> None:
    code = (
        "import eval, sys; assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
        f"samples = eval.load_samples({str(files / 'good.jsonl')!r})\n"
        "eval.rouge.rouge(['a'], ['a']); eval.load_posts, eval.load_comparisons, eval.load_judgements\n"
        "from eval.report.files import file_sections; file_sections(samples, draws=10)\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    root = Path(package.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
