"""A hub on this machine: its API, its files and plain files, and the faults that networks have."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """What the server holds, does wrong, and was asked.

    Attributes:
        files: path of the address -> content.
        repos: name -> paths of its files in the repository, which lie under ``datasets/NAME/resolve/COMMIT``.
        lies: path -> content sent in its place, so many times.
        cuts: path -> numbers of bytes after which to hang up, one a request.
        answers: path -> statuses to answer with, one a request.
        models: name -> commit -> paths of its files, which lie under ``NAME/resolve/COMMIT``.
        refs: name -> branch or pull request -> its commits, the newest first.
        requests: name -> the pull requests' titles and authors, by number from 1.
        asked: (method, path, Range, Authorization) of every request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    repos: dict[str, list[str]] = field(default_factory=dict)
    lies: dict[str, list[bytes]] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    models: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    refs: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    requests: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    ranges: bool = True
    asked: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)

    def publish(self, name: str, files: dict[str, bytes]) -> None:
        """Put a data set on the hub."""
        self.repos[name] = list(files)
        self.files |= {f"datasets/{name}/resolve/{COMMIT}/{path}": data for path, data in files.items()}

    def publish_model(self, name: str, commit: str, files: dict[str, bytes], ref: str = "main") -> None:
        """Put a commit of a model on a branch (or ``refs/pr/1``), on top of what is there."""
        refs = self.refs.setdefault(name, {})
        refs[ref] = [commit, *refs.get(ref, refs.get("main", []))]
        self.models.setdefault(name, {})[commit] = list(files)
        self.files |= {f"{name}/resolve/{commit}/{path}": data for path, data in files.items()}

    def of_model(self, path: str) -> Any:
        """The API's answer about a model; None where there is none."""
        owner, name, what, *rest = [*path.split("/"), ""]
        name, ref = f"{owner}/{name}", "/".join(part for part in rest if part)
        if what == "discussions" and name in self.models:
            return self._discussions(name)
        commits = [ref] if ref in self.models.get(name, {}) else self.refs.get(name, {}).get(ref)
        if commits is None:
            return None
        if what == "commits":
            entry = {"authors": [], "date": "2024-01-01T00:00:00.000Z", "title": "t", "message": "m"}
            return [{"id": commit} | entry for commit in commits]
        files = self.models[name][commits[0]]
        if what == "tree":
            sizes = [len(self.files[f"{name}/resolve/{commits[0]}/{file}"]) for file in files]
            pairs = zip(files, sizes, strict=True)
            return [{"type": "file", "path": file, "size": size, "oid": "o"} for file, size in pairs]
        return {"id": name, "sha": commits[0], "siblings": [{"rfilename": file} for file in files]}

    def _discussions(self, name: str) -> dict[str, Any]:
        common = {"createdAt": "2024-01-01T00:00:00.000Z", "status": "open", "isPullRequest": True}
        common |= {"repo": {"name": name, "type": "model"}}
        found = [
            common | {"title": title, "num": number, "author": {"name": author}}
            for number, (title, author) in enumerate(self.requests.get(name, []), start=1)
        ]
        return {"count": len(found), "start": 0, "discussions": found}

    def got(self, path: str) -> list[str | None]:
        """The ranges that were asked of a file."""
        return [asked for method, of, asked, _ in self.asked if method == "GET" and of.endswith(path)]

    def listing(self, name: str) -> dict[str, Any]:
        """The API's answer, with the sha256 that the hub vouches for."""
        siblings = []
        for path in self.repos[name]:
            data = self.files[f"datasets/{name}/resolve/{COMMIT}/{path}"]
            lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}
            siblings.append({"rfilename": path, "size": len(data), "blobId": "b", "lfs": lfs})
        return {"id": name, "sha": COMMIT, "siblings": siblings}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path).lstrip("/")
        self.close_connection = True
        wanted = self.headers.get("Range")
        hub.asked.append((self.command, path, wanted, self.headers.get("Authorization")))
        if hub.answers.get(path):
            self._send(hub.answers[path].pop(0), b"", body=body)
            return
        if path.startswith("api/datasets/"):
            name, _, revision = path.removeprefix("api/datasets/").partition("/revision/")
            if name in hub.repos:
                assert revision in ("main", "refs/convert/parquet")
                self._send(200, json.dumps(hub.listing(name)).encode(), body=body)
                return
        if path.startswith("api/models/"):
            told = hub.of_model(path.removeprefix("api/models/"))
            if told is not None:
                self._send(200, json.dumps(told).encode(), body=body)
                return
        if path not in hub.files:
            self._send(404, b"not here", body=body)
            return
        data = hub.lies[path].pop(0) if body and hub.lies.get(path) else hub.files[path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and hub.ranges else 0
        cut = hub.cuts[path].pop(0) if body and hub.cuts.get(path) else None
        self._send(206 if start else 200, data[start:], body=body, cut=cut)

    def _send(self, status: int, data: bytes, *, body: bool, cut: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
        if "/resolve/" in self.path:
            self.send_header("X-Repo-Commit", self.path.split("/resolve/")[1].split("/")[0])
        if status == 503:
            self.send_header("Retry-After", "0")
        self.send_header("Connection", "close")
        self.end_headers()
        if body:
            self.wfile.write(data if cut is None else data[:cut])


@contextmanager
def serve() -> Iterator[Hub]:
    """A running server, ended with the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use_as_hub(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What HF_ENDPOINT does before `huggingface_hub` is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
