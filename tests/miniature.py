"""The miniature release as tests use it, and commands on it in their own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from tldr.cli.main import app

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
DIVIDE, WORDS = 500, 40
"""Of the rows, and mean words of a post; tests have little time."""
PRESETS = [
    *(f"opt-{size}" for size in ("125m", "350m", "1.3b", "2.7b", "6.7b", "13b")),
    *(f"pythia-{size}" for size in ("1b", "2.8b", "6.9b")),
    "scaling",
    "rm-scaling",
]
"""Those on the paper's data."""


def write_miniature(folder: Path) -> Path:
    """Write the miniature with its models and all presets, divided; its folder."""
    studies = [part for name in PRESETS for part in ("--study", str(CONFIGS / f"{name}.yaml"))]
    size = ["--divide", str(DIVIDE), "--words", str(WORDS)]
    done = CliRunner().invoke(app, ["data", "fake-release", str(folder), *size, *studies])
    assert done.exit_code == 0, done.output
    return folder


def tldr_lab(
    miniature: Path, *arguments: str | Path, network: bool = False
) -> subprocess.CompletedProcess[str]:
    """A command in its own process, in which the miniature is all that the hub's cache holds."""
    environment = os.environ | {
        "HF_HOME": str(miniature / "home"),
        "HF_HUB_OFFLINE": "0" if network else "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    for name in ("HF_HUB_CACHE", "HF_ASSETS_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "tldr", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
