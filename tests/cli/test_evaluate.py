"""``tldr-lab evaluate`` and ``tldr-lab agreement`` on files from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from tldr.cli.main import app
from tldr.records import Comparison, Post, write_records

POST = {"id": "p{n}", "subreddit": "r", "title": "t", "post": "one two three", "summary": "one two"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    rows = [Post.model_validate(POST | {"id": f"p{n}"}) for n in range(6)]
    return write_records(tmp_path / "posts.jsonl", rows)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Rows of id and text, with one judge's verdict on some, and a broken line."""
    verdicts = ["ours", "reference", None, "ours", "ours", "reference"]
    rows = [{"id": f"p{n}", "text": "two " * (n + 1), "judge_preferred": v} for n, v in enumerate(verdicts)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    return file


def test_foreign_texts(posts: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--posts", posts, "--policy", "[red]theirs", "--out", out, "--by", "length", "--draws", 50)
    done = run("evaluate", texts, *options, "--on-error", "skip", "--stemmer")
    assert done.exit_code == 0, done.output
    assert "[red]theirs" in done.stdout, "names are shown as they are, not as markup"
    assert "Porter stemmer" in done.stdout and "rouge1_f_stemmed" in done.stdout
    assert "texts.jsonl: 1 invalid lines skipped, 6 read" in done.stderr and "texts.jsonl:7" in done.stderr
    assert "not measured: judge: 1 of 6 samples have no score" in done.stderr
    table = pd.read_csv(out / "preference_judge.csv").set_index("measure")
    assert table.loc["preference", ["value", "n", "runs"]].tolist() == [0.6, 5, "texts"]
    written = {path.name for path in out.iterdir()}
    assert {"rouge.csv", "rouge.md", "rouge.tex", "elo_judge.csv", "preference_judge_by_length.md"} <= written


def test_errors_say_what_to_do(texts: Path, posts: Path, tmp_path: Path) -> None:
    assert "give samples, --comparisons, --judgements or --ratings" in run("evaluate").stderr
    nameless = run("evaluate", texts, "--posts", posts)
    assert (
        nameless.exit_code == 1
        and "policy: Field required" in nameless.stderr
        and "--policy" in nameless.stderr
    )
    absent = run("agreement", tmp_path / "none.json")
    assert absent.exit_code == 2 and "no such file" in absent.stderr


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    rows = []
    for number in range(12):
        sides = [
            {"text": " one two" + " x" * (number % 3), "policy": "sft"},
            {"text": " one", "policy": "sft"},
        ]
        if number >= 10:
            sides[1]["policy"] = "ref"
        for worker in range(4):
            row = {
                "info": {"id": f"p{number}", "post": "one two three"},
                "summaries": sides,
                "split": "valid2",
            }
            row |= {"choice": int((number + worker) % 4 == 0), "worker": f"w{worker}", "batch": "b"}
            rows.append(Comparison.model_validate(row))
    return write_records(tmp_path / "batch.json", rows)


def test_agreement(labels: Path, posts: Path, tmp_path: Path) -> None:
    done = run(
        "agreement", labels, "--posts", posts, "--out", tmp_path / "out", "--same-policy", "--ensemble", 2
    )
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "out" / "agreement.csv").set_index(["first", "second"])
    # three of four workers choose the first, which is longer: 3 of 6 pairs of labels agree
    assert table.loc[("labeler", "another labeler"), ["value", "n", "posts", "runs"]].tolist() == [
        0.5,
        60,
        10,
        "batch",
    ]
    assert table.loc[("labeler", "length (words)"), ["value", "n"]].tolist() == [0.75, 40]
    assert ("labeler", "labeler ensemble") in table.index and ("labeler", "ROUGE") in table.index
    assert "75.0% ± 0.0% (40)" in done.stdout
    whole = run("agreement", labels)
    assert whole.exit_code == 0 and "75.0% ± 0.0% (48)" in whole.stdout


def test_comparisons_alone(labels: Path) -> None:
    done = run("evaluate", "--comparisons", labels, "--comparisons", labels)
    assert done.exit_code == 0, done.output
    assert "comparisons_elo" in done.stdout
