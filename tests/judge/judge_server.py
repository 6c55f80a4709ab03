"""A chat-completions endpoint on a thread, which answers as a test tells it to, and counts."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tldr.judge.pairs import SummaryPair
from tldr.records import Post

USAGE = {"prompt_tokens": 100, "completion_tokens": 10}


def completion(text: str | None, **fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "choices": [choice], "usage": USAGE} | fields
    ).encode()


class Reply:
    """What the server does with a request; `cut` sends half of the body and drops the line."""

    def __init__(self, body: bytes, status: int = 200, *, cut: bool = False, **headers: str):
        self.body, self.status, self.cut, self.headers = body, status, cut, headers


def says(verdict: str) -> Reply:
    return Reply(completion(f"One says more than the other.\nPreferred: {verdict}"))


Behaviour = Callable[[str, int], Reply]
"""From a prompt and how often it was asked (1 at first) to a reply; it may sleep."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behaviour: Behaviour):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = behaviour
        self.asked: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.open = self.most_open = 0
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        (message,) = request["messages"]
        server = self.server
        with server.guard:
            server.requests.append(request)
            server.keys.append(self.headers["Authorization"])
            server.asked[message["content"]] += 1
            count = server.asked[message["content"]]
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        try:
            reply = server.behaviour(message["content"], count)
        finally:
            with server.guard:
                server.open -= 1
        self.send_response(reply.status)
        for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if reply.cut:
            self.wfile.write(reply.body[: len(reply.body) // 2])
            self.wfile.flush()
            # A reset instead of an orderly end, as a crashed proxy leaves it.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(reply.body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Server]:
    with Server(behaviour) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def make_pairs(count: int, policy: str = "sft") -> list[SummaryPair]:
    return [
        SummaryPair(
            Post(id=f"p{n}", subreddit="r", title=f"Title {n}", post=f"The dog of number {n} left."),
            (policy, "reference"),
            (f"dog {n} left", f"the dog {n} is gone for good"),
            ("run-1",),
        )
        for n in range(count)
    ]


def coin(prompt: str) -> int:
    """0 or 1, the same for the same prompt."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 2
