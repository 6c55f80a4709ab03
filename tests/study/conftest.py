"""A tiny study of two sizes, and a runner of fake stages for it."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.study import fake_stages
from tldr.records import write_json
from tldr.stages.shared.declaration import Stage
from tldr.study import folder, prepare, runner
from tldr.study.display import Display
from tldr.study.folder import execute
from tldr.study.graph import expand
from tldr.study.hashes import FileHashes
from tldr.study.load import load_study
from tldr.study.prepare import write_run
from tldr.study.runner import Runner
from tldr.study.runs import Run, needed_for
from tldr.study.settings import Study
from tldr.study.status import Status, study_status

TINY = """
name: tiny
data: {kind: toy, corpus: 10}
lengths: {query: 32, response: 16, rm_response: 24}
ladder:
  s: {d_model: 16, layers: 1, heads: 2, context: 64}
  m: {d_model: 32, layers: 2, heads: 2, context: 64}
pretrain: {steps: {s: 3, m: 2}}
ppo: {batch: 8, episodes: 16, optimizer: {lr: {s: 1e-3, m: 5e-4}}}
"""
FAKE = (sys.executable, str(Path(__file__).with_name("fake_stages.py")))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def same_code(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Code that only the test changes: module of a stage -> its version."""
    versions: dict[str, str] = {}
    for module in (folder, prepare):
        monkeypatch.setattr(module, "code_of", lambda name, **_: {name: versions.get(name, "as it was")})
    return versions


@dataclass
class Lab:
    """A study folder in which fake stages are run."""

    config: Path
    root: Path

    def load(self, *overrides: str) -> tuple[Study, list[Run]]:
        study = load_study(self.config, overrides)
        return study, expand(study, self.files)

    @property
    def files(self) -> FileHashes:
        return FileHashes(self.root / "hashes.json")

    def behave(self, **titles: str) -> None:
        write_json(self.root / "behaviour.json", titles)

    def runner(self, *overrides: str, only: str = "labels", jobs: int = 2) -> Runner:
        study, runs = self.load(*overrides)
        wanted = needed_for(runs, only)
        self.screen = io.StringIO()
        display = Display(Console(file=self.screen, width=200), len(wanted))
        return Runner(study, wanted, self.root, self.files, display, jobs, FAKE)

    def run(self, *overrides: str, only: str = "labels", jobs: int = 2) -> int:
        return self.runner(*overrides, only=only, jobs=jobs).run()

    def make(self, *overrides: str, only: str) -> None:
        """What `run` does, in this process and so in no time."""
        study, runs = self.load(*overrides)
        for run in needed_for(runs, only):
            if not (self.root / run.name / "DONE").exists():
                execute(write_run(run, study, self.root))

    def events(self) -> list[str]:
        path = self.root / "events.txt"
        return path.read_text().splitlines() if path.exists() else []

    def folder(self, title: str) -> Path:
        (found,) = self.root.glob(f"{title}-" + "[0-9a-f]" * 10)
        return found

    def rows(self, *overrides: str) -> list[Status]:
        _, runs = self.load(*overrides)
        return study_status(runs, self.root, self.files)

    def states(self, *overrides: str) -> dict[str, Status]:
        """States by title, where no title has two."""
        rows = self.rows(*overrides)
        states = {row.run.rpartition("-")[0]: row for row in rows}
        assert len(states) == len(rows)
        return states

    def stale(self, *overrides: str) -> dict[str, str]:
        """Titles of the stale runs, and why they are."""
        return {row.run.rpartition("-")[0]: row.why for row in self.rows(*overrides) if row.state == "stale"}


@pytest.fixture
def lab(tmp_path: Path, config: Path, same_code: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A study folder; stages are fake, in this process and in those it starts."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(runner, "POLL", 0.02)
    monkeypatch.setattr(Stage, "load", lambda self, settings: fake_stages.run)
    monkeypatch.setattr(fake_stages, "STEPS", 1)
    checkpoint: Any = types.ModuleType("tldr.train.checkpoint")
    checkpoint.write_done = fake_stages.write_done
    monkeypatch.setitem(sys.modules, "tldr.train.checkpoint", checkpoint)
    # runs by people put another in its place; afterwards it is what it was
    monkeypatch.setitem(sys.modules, "tldr.stages.labels.asking", fake_stages.asking(""))
    made = Lab(config, tmp_path / "runs" / "tiny")
    made.behave()
    return made


@pytest.fixture
def refusal() -> Callable[[Callable[[], object]], str]:
    """The text of the UsageError that a call raises."""
    from tldr.errors import UsageError

    def text(call: Callable[[], object]) -> str:
        with pytest.raises(UsageError) as error:
            call()
        return str(error.value)

    return text
