"""The commands of labeling, from items to a file that a study takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tldr.cli.main import app
from tldr.inputs.posts import load_comparisons
from tldr.label.demo import make_demo
from tldr.label.items import read_items
from tldr.records import Comparison, Post, Sample, write_records
from tldr.settings import extras


def tell(*args: object) -> Result:
    return CliRunner().invoke(app, ["label", *map(str, args)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    make_demo(folder, now=1e9)
    return folder


def test_items_links_and_serve(tmp_path: Path) -> None:
    posts = [
        Post(id=f"p{n}", subreddit="s", title="t", post=f"body {n}", summary=f"ref {n}") for n in range(9)
    ]
    samples = [Sample(id=post.id, policy="sft", text=f"sample of {post.id}") for post in posts]
    write_records(tmp_path / "posts.jsonl", posts)
    write_records(tmp_path / "samples.jsonl", samples)
    files = ("--posts", tmp_path / "posts.jsonl", "--samples", tmp_path / "samples.jsonl")
    made = tell("items", tmp_path / "mine", *files, "--set", "count=5")
    assert made.exit_code == 0 and "5 new items, 5 all" in made.stdout
    assert "another name" in tell("items", tmp_path / "mine", *files, "--set", "count=5").stderr
    tell("items", tmp_path / "mine", *files, "--set", "count=4", "--set", "batch=b2")
    assert len(read_items(tmp_path / "mine" / "items.jsonl")) == 9
    added = tell("links", tmp_path / "mine", "--add", "Ann", "--add", "Ben", "--url", "https://x.org/l/")
    assert added.stdout.startswith("Ann: https://x.org/l/#") and len(added.stdout.splitlines()) == 2
    assert added.stdout not in tell("links", tmp_path / "mine", "--again", "Ann").stdout
    assert (
        tell("links", tmp_path / "mine").stdout.split() == "worker-00 Ann active worker-01 Ben active".split()
    )
    checked = tell("serve", tmp_path / "mine", "--check")
    assert checked.exit_code == 0 and "answered with its page" in checked.stdout
    assert tell("export", tmp_path / "mine", tmp_path / "out").stdout == "there are no labels yet\n"


def test_the_demo_and_its_files(demo: Path, tmp_path: Path) -> None:
    assert tell("demo", "--out", demo, "--check").exit_code == 0
    assert tell("export", demo, tmp_path / "out").exit_code == 0
    rows = load_comparisons(tmp_path / "out" / "comparisons.jsonl")
    assert {row.worker for row in rows} <= {"worker-00", "worker-01", "worker-02"} and len(rows) > 10
    for tool in ("label-studio", "potato", "argilla"):
        assert tell("export", demo, tmp_path / tool, "--format", tool).exit_code == 0
    (tmp_path / "other").mkdir()
    for name in ("items.jsonl", "label.yaml"):
        (tmp_path / "other" / name).write_bytes((demo / name).read_bytes())
    read = tell("import", tmp_path / "other", tmp_path / "potato", "--format", "potato")
    assert read.exit_code == 0 and "0 skips, 0 there already" in read.stdout


def test_a_study_takes_the_exported_comparisons(demo: Path, tmp_path: Path) -> None:
    """What `data.comparisons` reads, with the same checks."""
    from tldr.inputs.posts import comparison_or_ranking
    from tldr.records import iter_records

    tell("export", demo, tmp_path)
    for name in ("comparisons.jsonl", "rankings.jsonl"):
        assert all(row.split == "train" for row in iter_records(tmp_path / name, comparison_or_ranking))
    with (tmp_path / "comparisons.jsonl").open("rb") as lines:
        assert all(Comparison.model_validate_json(line).extra.confidence != 5 for line in lines)


def test_mistakes(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for args, told in (
        (("serve", tmp_path / "none"), "no such folder"),
        (("serve", demo, "--set", "sharde=1"), "did you mean 'shared'"),
        (("serve", demo, "--set", "tokenizer=none.json"), "not a tokenizer"),
        (("serve", demo, "--set", "instructions=none.txt"), "no such file"),
        (("serve", demo, "--host", "203.0.113.1"), "203.0.113.1:8750"),
        (("export", demo, tmp_path / "o", "--leave-out", "all"), "not dropped or held-out"),
        (("demo", "--out", tmp_path.parent), "holds other things"),
    ):
        result = tell(*args)
        assert result.exit_code == 2 and told in result.stderr, args
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    result = tell("demo")
    assert result.exit_code == 2 and "pip install 'tldr-feedback[label]'" in result.stderr


def test_labeling_imports_no_torch(demo: Path) -> None:
    code = (
        "import sys\nfrom tldr.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, "label", "serve", str(demo), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
