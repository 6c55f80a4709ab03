"""Every reader of text takes a byte order mark at a file's start, as Windows programs write it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from eval.best_of_n.pool import load_pool
from eval.claims.schema import CLAIMS_FILE, load_claims
from eval.common.io import load_posts, load_samples
from eval.common.paper import PAPER_FOLDER, load_paper
from eval.common.runs import StudyRun, load_runs, training_metrics
from tests.study.conftest import TINY
from tldr.errors import RecordError, UsageError
from tldr.inputs.posts import load_comparisons
from tldr.sources.cnndm import article_of_story
from tldr.stages.shared.corpus import read_corpus
from tldr.strict_yaml import read_yaml
from tldr.study.load import load_study

BOM = b"\xef\xbb\xbf"
POST = {"id": "a", "subreddit": "s", "title": "t", "post": "p"}
SAMPLE = {"id": "a", "policy": "p", "text": "x", "scores": {"rm": 0.5}}
LABEL = {
    "info": POST,
    "summaries": [{"text": "x", "policy": "p"}, {"text": "y", "policy": "q"}],
    "choice": 1,
    "worker": "w",
    "batch": "b",
    "split": "train",
}


def lines(path: Path, *rows: object, marked: int = 0) -> Path:
    """JSON lines, the one at `marked` behind a byte order mark."""
    texts = [json.dumps(row).encode() for row in rows]
    texts[marked] = BOM + texts[marked]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert len(load_posts(lines(path, POST, POST | {"id": "b"}))) == 2
    assert len(load_comparisons(lines(path, LABEL, LABEL))) == 2
    assert len(load_samples(lines(path, SAMPLE, SAMPLE))) == 2
    assert len(load_pool(lines(path, SAMPLE, SAMPLE))) == 2
    lines(tmp_path / "corpus.jsonl", {"text": "a", "query_chars": 1})
    assert len(read_corpus(tmp_path)) == 1


def test_elsewhere_it_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for read in (load_posts, load_samples, load_pool):
        with pytest.raises(RecordError, match=r"rows.jsonl:2: .*(?i:expect(ed|ing) value)"):
            read(lines(path, POST | SAMPLE, POST | SAMPLE | {"id": "b"}, marked=1))
    lines(tmp_path / "corpus.jsonl", {"text": "a"}, {"text": "b"}, marked=1)
    with pytest.raises(UsageError, match=r"corpus.jsonl:2: "):
        read_corpus(tmp_path)


def test_json_documents_and_logs_of_a_study(tmp_path: Path) -> None:
    row = {"run": "data", "stage": "data", "folder": "data"}
    (tmp_path / "study.json").write_bytes(BOM + json.dumps({"runs": [row]}).encode())
    assert [run.run for run in load_runs(tmp_path).runs] == ["data"]
    lines(tmp_path / "metrics.jsonl", {"update": 1, "episodes": 8})
    found = training_metrics([StudyRun("ppo", "ppo", tmp_path)])
    assert found is not None and len(found) == 1


@pytest.mark.parametrize(
    "text", ['{"runs": [], "runs": []}', '{"runs": NaN}', "[" * 100_000, '{"runs": "\\ud800"}']
)
def test_a_listing_that_is_no_strict_json_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(RecordError, match=r"study\.json: "):
        load_runs(tmp_path)


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(BOM + TINY.encode())
    plain = tmp_path / "plain.yaml"
    plain.write_text(TINY)
    assert read_yaml(path) == read_yaml(plain) and load_study(path) == load_study(plain)
    path.write_bytes(BOM + b"sedes: [0]\n" + TINY.encode())
    with pytest.raises(UsageError, match=r"study.yaml:1: sedes: unknown key"):
        load_study(path)


def test_published_numbers_and_claims(tmp_path: Path) -> None:
    shutil.copytree(PAPER_FOLDER, tmp_path / "paper")
    for path in (tmp_path / "paper").iterdir():
        path.write_bytes(BOM + path.read_bytes())
    assert load_paper("fig1", folder=tmp_path / "paper").equals(load_paper("fig1"))
    (tmp_path / "paper" / CLAIMS_FILE).write_bytes(BOM + b"numbers: []\nshapes: []\n")
    assert load_claims(tmp_path / "paper").shapes == []


def test_a_story(tmp_path: Path) -> None:
    path = tmp_path / "a.story"
    path.write_bytes(BOM + b"(CNN) -- It rained.\n\n@highlight\n\nIt rained")
    assert article_of_story(path, ftfy=False).article == "It rained."
    path.write_bytes(BOM + b"It rained.\n\n@highlight\n\nIt rained")
    assert article_of_story(path, ftfy=False).article == "It rained."
