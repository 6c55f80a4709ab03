"""``tldr-lab data cnndm`` and ``tldr-lab data summeval`` on small files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tldr.cli.main import app
from tldr.queries.tokenizer import train_bpe
from tldr.records import Article, Rating, read_records


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *(str(one) for one in arguments)])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A hub row of 30 tokens' highlights, one of 50, and a broken one."""
    made = [
        {"id": f"a{count}", "article": "(CNN)It rains .", "highlights": "NEW: " + "!" * count}
        for count in (30, 50)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made) + '{"id": "x"}\n', encoding="utf-8")
    return file


def test_articles_are_cleaned_and_bad_rows_counted(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "articles.jsonl"
    stopped = run("cnndm", rows, "--out", out, "--no-ftfy")
    assert stopped.exit_code != 0 and "rows.jsonl:3" in stopped.stderr and not out.exists()
    done = run("cnndm", rows, "--out", out, "--no-ftfy", "--on-error", "skip")
    assert done.exit_code == 0 and "2 articles, 2 kept, 1 bad set aside" in done.stderr, done.output
    assert "rows.jsonl:3" in done.stderr
    first, second = read_records(out, Article)
    assert (first.id, first.article, first.summary) == ("a30", "It rains .", "!" * 30) and second.id == "a50"


def test_subsets_need_a_tokenizer_and_have_their_own_references(rows: Path, tmp_path: Path) -> None:
    train_bpe(["It rains."], 300).save_pretrained(tmp_path / "bpe")
    rest = ("--tokenizer", tmp_path / "bpe", "--no-ftfy", "--on-error", "skip")
    kept = {}
    for name in ("filtered24to48", "filtered48to64"):
        assert run("cnndm", rows, "--out", tmp_path / name, "--subset", name, *rest).exit_code == 0
        kept[name] = [one.summary for one in read_records(tmp_path / name, Article)]
    assert kept == {"filtered24to48": ["!" * 30], "filtered48to64": ["- " + "!" * 50]}


def test_summeval_becomes_ratings_that_evaluate_reads(tmp_path: Path) -> None:
    scores = dict.fromkeys(("coherence", "consistency", "fluency", "relevance"), 3.0)
    row = {"id": "a", "article": "It rains.", "systems": {"M0": {"summary": "Rain.", "scores": scores}}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    done = run("summeval", tmp_path / "rows.jsonl", "--out", tmp_path / "ratings.jsonl")
    assert done.exit_code == 0, done.output
    (rating,) = read_records(tmp_path / "ratings.jsonl", Rating)
    assert rating.summary.policy == "lead-3" and rating.summary.axes.overall == 4
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"systems": {}}) + "\n", encoding="utf-8")
    refused = run("summeval", tmp_path / "rows.jsonl", "--out", tmp_path / "none.jsonl")
    assert refused.exit_code != 0 and "rows.jsonl:1" in refused.stderr
