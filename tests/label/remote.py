"""A server in a process of its own, and people who label over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.label.kit import ANSWERS
from tldr.label.answers import TaskKind

ROOT = Path(__file__).parents[2]


class Server:
    """``tldr-lab label serve`` on a folder or a study."""

    def __init__(self, place: Path, *settings: str, options: Sequence[str] = ()):
        sets = [part for setting in settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "tldr", "label", "serve", str(place), "--port", "0", *sets, *options]
        env = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.owner = ""
        for line in self.process.stdout:
            if "/owner#" in line:
                self.owner = line.split()[-1]
            if line.startswith("serving"):
                break
        self.url = line.split(" at ")[1].split(";")[0]
        self.port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL: no handler runs."""
        self.process.send_signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """SIGTERM."""
        self.process.terminate()
        self._wait()

    def _wait(self) -> None:
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Caller:
    """One labeler over a connection that stays open."""

    def __init__(self, port: int, secret: str):
        self.secret = secret
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def __call__(self, name: str, **body: Any) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        self.connection.request("POST", f"/api/{name}", json.dumps(body), headers)
        reply = self.connection.getresponse()
        return reply.status, json.loads(reply.read())

    def answer(self, ticket: str, kind: TaskKind, id: str) -> tuple[int, dict[str, Any]]:
        return self("answer", ticket=ticket, answer_id=id, answer=ANSWERS[kind], seconds=1.0, idle=0.0)
