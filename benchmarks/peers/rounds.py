"""The protocol of all workers: wait for a command, make a round, report its measurements.

This module imports nothing of the project, because workers also run in the peers' environments. Reports go
to the original stdout; the output of libraries goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

EOS, PAD = 0, 1


class Rounds:
    """A worker's connection to `run.py`; its first round is a warm-up."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        self.data: dict[str, Any] = json.loads(Path(self.spec["data"]).read_text(encoding="utf-8"))
        self._start = self._cpu = 0.0

    def wait(self) -> None:
        """Wait until the next round may begin; exit if there is none."""
        if sys.stdin.readline().strip() != "go":
            raise SystemExit(0)
        self.begin()

    def begin(self) -> None:
        """Start the round's clocks."""
        self._start, self._cpu = time.perf_counter(), time.process_time()

    def tell(self, **figures: float) -> None:
        """End the round and report it: `seconds` since its start, and `cpu_seconds` of all threads."""
        row = {
            "seconds": time.perf_counter() - self._start,
            "cpu_seconds": time.process_time() - self._cpu,
        } | figures
        self._out.write(json.dumps(row) + "\n")
        self._out.flush()
