"""What an edit of the code makes stale, on a copy of the package: what a run runs on, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOW = """
import json, sys
from pathlib import Path
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes, code_of
from tldr.study.load import load_study
from tldr.study.registry import STAGES
from tldr.toy.settings import ToyData

found = {}
for path in sys.argv[1:]:
    study = load_study(Path(path))
    toy = isinstance(study.data, ToyData)
    for run in expand(study, FileHashes()):
        code = code_of(STAGES[run.stage].module, toy=toy)
        found[f"{study.name} {run.title}"] = [run.name, json.dumps(code)]
print(json.dumps(found))
"""
REAL = """
name: real
data:
  {kind: files, sft: sft.jsonl, valid1: valid1.jsonl, valid2: valid2.jsonl, comparisons: comparisons.jsonl}
tokenizer: {path: org/tokenizer}
ladder: {s: {path: org/policy}}
"""
Before = tuple[Path, dict[str, list[str]]]
HEAD = "from __future__ import annotations\n"
EDITED = HEAD + "\nEDITED = 1\n"
NO_NETWORK = {"data", "ratings"}
"""Stages whose runs load no network."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    """A copy of the code with a toy study and one on real data beside it, and what their runs are made by."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("tldr", "eval"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "configs" / "toy.yaml", folder / "toy.yaml")
    (folder / "real.yaml").write_text(REAL)
    for name in ("sft", "valid1", "valid2", "comparisons"):
        (folder / f"{name}.jsonl").write_text(f"{name}\n")
    return folder, runs(folder)


def runs(folder: Path) -> dict[str, list[str]]:
    """Study and title -> the run's name and code, by the code in the folder."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW, "toy.yaml", "real.yaml"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def stale(before: Before, *edits: tuple[str, str, str]) -> set[str]:
    """The runs that edits (file, old text, new text) give another name or other code."""
    folder, found = before
    kept = {file: (folder / file).read_text() for file, _, _ in edits}
    try:
        for file, old, new in edits:
            assert old in kept[file], f"{file} has no {old!r}"
            (folder / file).write_text(kept[file].replace(old, new, 1))
        after = runs(folder)
    finally:
        for file, text in kept.items():
            (folder / file).write_text(text)
    assert after.keys() == found.keys()
    return {title for title in found if found[title] != after[title]}


def stage_of(title: str) -> str:
    return title.split()[1].split("-")[0]


def test_a_new_ppo_setting_leaves_all_before_the_first_policy_done(before: Before) -> None:
    """The toy study's second round of labels has seen the first round's policies, so it is made anew."""
    setting = "    save_value: bool = True\n"
    found = stale(before, ("tldr/stages/ppo/settings.py", setting, setting + "    another: bool = False\n"))
    assert {"toy ppo-s-s0", "real ppo-s-s0"} <= found
    assert not {stage_of(title) for title in found} & {"data", "pretrain", "sft"}
    again = {title for title in found if stage_of(title) in ("labels", "reward")}
    assert "toy labels-s0" in again and all(title.startswith("toy ") for title in again)
    assert not {title for title in again if title.endswith("-r1")}


def test_ppo_code_makes_ppo_stale_and_its_policies_samples_wait(before: Before) -> None:
    found = stale(before, ("tldr/stages/ppo/algorithm.py", "steps[0][name]", "steps[-1][name]"))
    assert {stage_of(title) for title in found} == {"ppo"}


def test_settings_texts_transport_plans_errors_commands_declarations_figures_and_comments_do_not_count(
    before: Before,
) -> None:
    """All at once: none of these edits makes any run stale."""
    drawn = (path for path in (before[0] / "eval").rglob("*.py") if "figure" in path.as_posix())
    figure = next(path for path in drawn if HEAD in path.read_text()).relative_to(before[0]).as_posix()
    edits = [
        ("tldr/stages/ppo/settings.py", "do not split into", "cannot be split into"),
        ("tldr/stages/sft/__init__.py", "Fine-tune a policy", "Train a policy"),
        ("tldr/models/packed.py", HEAD, HEAD + "\n# a thought\n"),
    ]
    for file in (
        "tldr/sources/hub/download.py",
        "tldr/plan/memory.py",
        "tldr/errors.py",
        "tldr/cli/study.py",
    ):
        edits.append((file, HEAD, EDITED))
    assert stale(before, *edits, (figure, HEAD, EDITED)) == set()


def test_toy_phrases_make_the_toy_study_stale_and_studies_on_real_data_not(before: Before) -> None:
    found = stale(before, ("tldr/toy/phrases.py", HEAD, EDITED))
    assert "toy data" in found and "toy labels-s0" in found
    assert not {title for title in found if title.startswith("real")}


def test_the_packed_forward_makes_every_run_with_a_network_stale_and_data_not(before: Before) -> None:
    found = stale(before, ("tldr/models/packed.py", HEAD, EDITED))
    assert found >= {title for title in before[1] if stage_of(title) not in NO_NETWORK}
    assert not {title for title in found if stage_of(title) == "data"}
