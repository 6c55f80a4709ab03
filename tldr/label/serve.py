"""Run the server of a project."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import uvicorn

from tldr.errors import LabError, UsageError
from tldr.label.database import sole_server
from tldr.label.project import Project
from tldr.label.server import make_app

BEFORE_A_NETWORK = (
    "Links and answers pass unencrypted to this address. Put a server with TLS in front of it (Caddy, nginx),"
    " bind to 127.0.0.1 behind it, and let it pass on the Authorization header."
)


def is_local(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, open before any link is told.

    Args:
        port: 0 for any free one.

    Raises:
        UsageError: the address is taken or does not exist.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(1024)  # who comes before the server has started waits
    except OSError as error:
        listening.close()
        raise UsageError(
            f"{error.strerror}", where=f"{host}:{port}", remedy="use another --port or --host"
        ) from None
    return listening


def address(host: str, listening: socket.socket) -> str:
    """The page's address."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def _server(project: Project) -> uvicorn.Server:
    # An access log would hold who did what when; secrets are never in an address. Uvicorn's own log
    # configuration closes every log handler of this process, and some close their stream with themselves.
    config = uvicorn.Config(
        make_app(project), log_config=None, log_level="warning", access_log=False, server_header=False,
        lifespan="off", timeout_graceful_shutdown=5,
    )  # fmt: skip
    return uvicorn.Server(config)


def run_server(project: Project, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        UsageError: another process serves the folder.
    """
    with sole_server(project.folder):
        _server(project).run(sockets=[listening])
    project.database.close()


@contextmanager
def in_background(project: Project, listening: socket.socket) -> Iterator[None]:
    """Serve in a thread for the length of the block."""
    server = _server(project)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    for _ in range(500):
        if server.started:
            break
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)


def check_server(project: Project, listening: socket.socket, url: str) -> str:
    """Start the server, ask it for its page and one item, and stop it.

    Returns:
        What it answered, in words.

    Raises:
        LabError: it does not answer.
    """
    with sole_server(project.folder), in_background(project, listening):
        try:
            with urlopen(Request(f"{url}/"), timeout=20) as page:
                size = len(page.read())
        except OSError as error:
            raise LabError(f"the server does not answer: {error}", where=url) from None
    return f"{url} answered with its page of {size} bytes"
