"""What every worker has in common: it waits for a word, makes a round, tells what it took.

Nothing of the project is imported: workers run in the peers' environments too. Their reports go to what was
stdout at the start; whatever libraries print goes to stderr.
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
    """A worker's end of the line to `run.py`; its first round warms up."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        self.data: dict[str, Any] = json.loads(Path(self.spec["data"]).read_text(encoding="utf-8"))
        self._start = self._cpu = 0.0

    def wait(self) -> None:
        """Until the next round may begin; the worker ends where there is none."""
        if sys.stdin.readline().strip() != "go":
            raise SystemExit(0)
        self.begin()

    def begin(self) -> None:
        """The round's time starts now."""
        self._start, self._cpu = time.perf_counter(), time.process_time()

    def tell(self, **figures: float) -> None:
        """Report the round that ends now: `seconds` since it began, and `cpu_seconds` of all threads."""
        row = {
            "seconds": time.perf_counter() - self._start,
            "cpu_seconds": time.process_time() - self._cpu,
        } | figures
        self._out.write(json.dumps(row) + "\n")
        self._out.flush()
