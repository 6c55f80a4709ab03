"""One file over HTTP: resumed where it was cut, tried again after a pause, and checked by its sha256."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError

from tldr.errors import LabError, UsageError

HTTP_ERRORS: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
"""What a cut or refused connection raises: the HTTP library's error, whichever the hub's client uses, and
OSError."""

ATTEMPTS = 6
"""Tries in a row that bring not one byte before giving up."""
WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second try, doubled each time, and at most; a server's Retry-After goes first."""
TIMEOUT = 30.0
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be better next time."""

Shown = Callable[[str, int, int | None], None]
"""Called with a file's path, the bytes that are there, and its size where it is known."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to be had by HTTP; `sha256` is None until somebody knows it, `size` where none is told."""

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None


class _TryAgain(Exception):
    """The server asks to be asked later."""

    def __init__(self, status: int, after: float | None):
        super().__init__(f"HTTP status {status}")
        self.after = after


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    file: RemoteFile, target: Path, *, headers: Mapping[str, str] | None = None, shown: Shown | None = None
) -> Path:
    """Have a file at `target`, whole and checked; what is there already is not fetched again.

    A cut download stays beside it (``.partial``) and goes on from there, in this call or another.

    Raises:
        UsageError: the server has no such file, or refuses it.
        LabError: the connection failed too often, or the content is not what was announced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    with FileLock(target.with_name(target.name + ".lock")):
        if target.exists():
            return target
        for last in (False, True):
            _receive_all(file, partial, headers or {}, shown)
            found = sha256_of(partial) if file.sha256 else None
            if found == file.sha256:
                break
            partial.unlink()  # damaged on its way, or a rest of another file: once more from the start
            if last:
                raise LabError(
                    f"the file's sha256 is {found}, not {file.sha256} as announced, twice in a row",
                    where=file.url,
                    remedy="a mirror or proxy may be at fault: try another with --from URL",
                )
        os.replace(partial, target)
    return target


def _receive_all(file: RemoteFile, partial: Path, headers: Mapping[str, str], shown: Shown | None) -> None:
    failures = 0
    while True:
        before = _size(partial)
        after: float | None = None
        try:
            _receive(file, partial, headers, shown)
            return
        except _TryAgain as error:
            reason, after = str(error), error.after
        except HTTP_ERRORS as error:
            reason = f"{type(error).__name__}: {error}"
        failures = 0 if _size(partial) > before else failures + 1
        if failures >= ATTEMPTS:
            raise LabError(
                f"the download failed {failures} times in a row ({reason})",
                where=file.url,
                remedy="run the same command again: it goes on where this one stopped",
            )
        _pause(failures, after)


def _receive(file: RemoteFile, partial: Path, headers: Mapping[str, str], shown: Shown | None) -> None:
    """One request; appends what comes to `partial`.

    Raises:
        OSError: the connection ended before the file did.
    """
    start = _size(partial)
    if file.size is None or start > file.size:
        start = 0  # without a size one cannot tell a part from the whole
    if start and start == file.size:
        return
    asked = {**headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with get_session().stream("GET", file.url, headers=asked, timeout=TIMEOUT) as answer:
        if start and answer.status_code == 416:
            partial.unlink()
            raise OSError("the file there is shorter than the part that came before")
        check_answer(answer, file.url)
        start = start if answer.status_code == 206 else 0
        with partial.open("r+b" if start else "wb") as out:
            out.seek(start)
            for chunk in answer.iter_raw():  # unchunked: a cut loses nothing that came
                out.write(chunk)
                if shown:
                    shown(file.path, out.tell(), file.size)
            out.truncate()
    if file.size is not None and (size := _size(partial)) != file.size:
        if size > file.size:
            partial.unlink()
        raise OSError(f"{size:,} of {file.size:,} bytes came")


def check_answer(answer: Any, url: str) -> None:
    """Let an answer of status 2xx pass.

    Raises:
        UsageError: there is no such file, or it is refused, with what to do.
        _TryAgain: the status says that it may be there later.
    """
    status = int(answer.status_code)
    if 200 <= status < 300:
        return
    if status in AGAIN:
        after = str(answer.headers.get("Retry-After", ""))
        raise _TryAgain(status, float(after) if after.isdecimal() else None)
    if status in (401, 403):
        remedy = (
            "it may be gated: log in with `hf auth login`, or give a copy with --from URL or --from FOLDER"
        )
    else:
        remedy = (
            "it was moved or removed: `tldr-lab data sources` lists other copies; "
            "--from takes a mirror's URL or a folder"
        )
    what = {401: "access refused", 403: "access refused", 404: "no such file"}.get(status, "refused")
    raise UsageError(f"{what} (HTTP status {status})", where=url, remedy=remedy)


def head(url: str) -> Mapping[str, str]:
    """The headers of a file.

    Raises:
        UsageError, LabError: as `download`.
    """
    for failures in range(1, ATTEMPTS + 1):
        after: float | None = None
        try:
            answer = get_session().head(
                url, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT, follow_redirects=True
            )
            check_answer(answer, url)
            return answer.headers
        except _TryAgain as error:
            reason, after = str(error), error.after
        except HTTP_ERRORS as error:
            reason = f"{type(error).__name__}: {error}"
        if failures < ATTEMPTS:
            _pause(failures, after)
    raise LabError(
        f"the server cannot be reached ({reason})",
        where=url,
        remedy="check the connection; --offline reads what was fetched before",
    )


def _pause(failures: int, after: float | None) -> None:
    time.sleep(min(WAIT * 2 ** max(failures - 1, 0) if after is None else after, LONGEST_WAIT))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
