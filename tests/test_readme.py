"""Every command of the README runs, in its order, with the sizes turned down."""

from __future__ import annotations

import glob
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

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
    if words[1] in ("study", "report"):
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


def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ran = [command for command in commands() if command not in MADE_BY_MAKE]
    assert len(ran) >= 8
    for command in ran:
        done = subprocess.run(
            smaller(command, tmp_path), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "runs" / "toy" / "report" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_make_reproduce_on_a_fresh_copy(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(copy)], check=True)
    subprocess.run(["make", "reproduce"], cwd=copy, check=True, timeout=1800)
    assert (copy / "results" / "toy" / "report.html").exists()
