"""A study on the real rows, with a tiny network: from OpenAI's posts and comparisons to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tldr.inputs.posts import load_comparisons, load_posts
from tldr.models.ladder import build_policy, save_policy
from tldr.queries.tokenizer import train_bpe
from tldr.records import Post, Ranking, write_records
from tldr.settings.models import ModelSpec

ROOT = Path(__file__).parents[1]
MODEL = ModelSpec(arch="opt", d_model=16, layers=1, heads=2, context=320)


def marked(labels: list[Ranking], split: str) -> set[str]:
    return {row.info.id or "" for row in labels if row.split == split}


def write_study(shared: Path, folder: Path, *, training: bool) -> Path:
    """Posts and batch13 as a study; with `training`, a third of its posts train, all in no file of posts."""
    posts = load_posts(shared / "tldr_posts.jsonl")
    labels = load_comparisons(shared / "comparisons" / "batch13.json")
    evaluated = marked(labels, "valid1") | marked(labels, "valid2")
    outside = sorted(evaluated - {post.id for post in posts})
    train = set(outside[: len(evaluated) // 3]) if training else set()
    rows = [row.model_copy(update={"split": "train"}) if row.info.id in train else row for row in labels]
    unmarked = [post for post in posts if post.id not in evaluated]
    validation = [post for post in posts if post.id in evaluated] + unmarked[700:]
    sets = {"sft": unmarked[:200], "validation": validation, "test": unmarked[600:700]}
    files = {name: str(write_records(folder / f"{name}.jsonl", found)) for name, found in sets.items()}
    data = {
        "kind": "files",
        "sft": files["sft"],
        "valid1": files["validation"],
        "valid2": files["validation"],
    }
    data |= {"test": files["test"], "report_unmarked": True}
    data["comparisons"] = str(write_records(folder / "comparisons.jsonl", rows))
    model = _model(sets["sft"], folder / "model")
    batch: dict[str, Any] = {"batch": 16}
    study = {
        "name": "real",
        "data": data,
        "tokenizer": {"path": model},
        "lengths": {"query": 256, "response": 32, "rm_response": 48},
        "ladder": {"t": {"path": model}},
        "sft": batch | {"batch": 32},
        "reward": batch | {"shift_posts": 32},
        "ppo": batch | {"episodes": 32, "epochs": 1},
        "best_of_n": None,
        "evaluation": {"posts": 8},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder / "study.yaml"


def _model(posts: list[Post], folder: Path) -> str:
    tokenizer = train_bpe((f"{post.post} {post.summary}" for post in posts), 1_000)
    assert isinstance(tokenizer.eos_token_id, int) and isinstance(tokenizer.pad_token_id, int)
    ids = {"eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id}
    policy = build_policy(MODEL, vocab_size=len(tokenizer), seed=0, **ids)
    return str(save_policy(policy, tokenizer, folder, card="A tiny random model.\n"))


def tldr_lab(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "tldr", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_study_on_the_real_rows_runs_to_its_end(shared: Path, tmp_path: Path) -> None:
    study = write_study(shared, tmp_path, training=True)
    done = tldr_lab("study", "run", study, "--runs", tmp_path / "runs", "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    root = tmp_path / "runs" / "real"
    (data,), (labels,) = (list(root.glob(f"{stage}-*")) for stage in ("data", "labels"))
    counts = json.loads((data / "manifest.json").read_text())["validation"]
    assert (counts["valid1"], counts["valid2"], counts["both"]) == (57, 180, 0)
    assert counts["posts"] == 57 + 180 + counts["unmarked"] and counts["labels_set_aside"] == 0
    log = (data / "log.txt").read_text()
    assert "mark 57 valid1 and 0 both" in log and "the paper selected on 1913 of 6447" in log
    train = {row.info.id for row in load_comparisons(labels / "train.jsonl")}
    sets = {name: {post.id for post in load_posts(data / f"{name}.jsonl")} for name in ("valid1", "valid2")}
    assert len(train) == 238 and not train & (sets["valid1"] | sets["valid2"])
    sampled = [json.loads(path.read_text())["tags"].get("dataset") for path in root.glob("sample-*/run.json")]
    assert sorted(map(str, sampled)) == ["None"] * 3 + ["test"] * 3 + ["validation_unmarked"] * 3


def test_the_real_rows_unchanged_are_refused_in_words(shared: Path, tmp_path: Path) -> None:
    study = write_study(shared, tmp_path, training=False)
    refused = tldr_lab("study", "run", study, "--runs", tmp_path / "runs", "--jobs", "1", "--only", "labels")
    assert refused.returncode == 1
    assert "the comparisons hold none of split train" in refused.stdout + refused.stderr
