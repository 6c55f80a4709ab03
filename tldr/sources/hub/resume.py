"""Files at plain URLs: a download that breaks resumes where it stopped, in the same call or in a later one.

Neither `huggingface_hub` nor `pooch` resumes a partial file across calls, so the requests for the rest of a
file are made here. Waiting and repeating after a busy server's answer is `huggingface_hub`'s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError

# documented, though the package does not mark them as exported
from huggingface_hub.utils import http_backoff, http_stream_backoff  # type: ignore[attr-defined]

from tldr.errors import LabError
from tldr.files import is_disk_full
from tldr.sources.hub.download import (
    HTTP_ERRORS,
    RETRIED,
    ByteProgress,
    RemoteFile,
    failure,
    place_checked,
    refusal,
)

ATTEMPTS = 6
"""Requests in a row that bring no byte before the download is given up."""
WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second request, doubled each time, and the most; a server's Retry-After has priority."""
TIMEOUT = 30.0
UNCHANGED = {"Accept-Encoding": "identity"}
"""Asks for the file's own bytes, not compressed ones: sizes and ranges count those."""


def download_url(file: RemoteFile, target: Path, *, shown: ByteProgress | None = None) -> Path:
    """Put a file at `target`, whole and checked; an existing file is not fetched again.

    A partial download stays at ``<target>.partial`` and is resumed, in this call or in a later one.

    Raises:
        UsageError: the server does not have the file or refuses access.
        LabError: the connection failed too often, or the content is not what was announced.
    """
    return place_checked(file, target, lambda partial: _receive_all(file, partial, shown))


def headers_of(url: str) -> Mapping[str, str]:
    """The HTTP headers of a file.

    Raises:
        UsageError, LabError: as `download_url`.
    """
    try:
        answer = http_backoff(
            "HEAD",
            url,
            headers=UNCHANGED,
            timeout=TIMEOUT,
            follow_redirects=True,
            max_retries=ATTEMPTS - 1,
            base_wait_time=WAIT,
            max_wait_time=LONGEST_WAIT,
            retry_on_status_codes=tuple(RETRIED),
        )
    except HTTP_ERRORS as error:
        raise failure(error, url) from None
    if not answer.is_success:
        raise refusal(answer.status_code, url)
    return answer.headers


def _receive_all(file: RemoteFile, partial: Path, shown: ByteProgress | None) -> None:
    failures = 0
    while True:
        before = _size(partial)
        try:
            _receive(file, partial, shown)
            return
        except HfHubHTTPError as error:  # a status that the client has already retried
            raise failure(error, file.url) from None
        except HTTP_ERRORS as error:
            if is_disk_full(error):
                raise
            reason = f"{type(error).__name__}: {error}"
        failures = 0 if _size(partial) > before else failures + 1
        if failures >= ATTEMPTS:
            raise LabError(
                f"the download failed {failures} times in a row ({reason})",
                where=file.url,
                remedy="run the same command again: it resumes where this one stopped",
            )
        time.sleep(min(WAIT * 2 ** max(failures - 1, 0), LONGEST_WAIT))


def _receive(file: RemoteFile, partial: Path, shown: ByteProgress | None) -> None:
    """Make one request and append its bytes to `partial`.

    Raises:
        OSError: the connection ended before the file did.
    """
    start = _size(partial)
    if file.size is None or start > file.size:
        start = 0  # without a size, a part cannot be told from the whole
    if start and start == file.size:
        return
    with http_stream_backoff(
        "GET",
        file.url,
        headers=UNCHANGED | ({"Range": f"bytes={start}-"} if start else {}),
        timeout=TIMEOUT,
        max_retries=ATTEMPTS - 1,
        base_wait_time=WAIT,
        max_wait_time=LONGEST_WAIT,
        retry_on_exceptions=(),
        retry_on_status_codes=tuple(RETRIED),
    ) as answer:
        if start and answer.status_code == 416:
            partial.unlink()
            raise OSError("the server's file is shorter than the part received before")
        if not answer.is_success:
            raise refusal(answer.status_code, file.url)
        start = start if answer.status_code == 206 else 0
        with partial.open("r+b" if start else "wb") as out:
            out.seek(start)
            for chunk in answer.iter_raw():  # as they come: a broken connection loses no received byte
                out.write(chunk)
                if shown:
                    shown(file.path, out.tell(), file.size)
            out.truncate()
    if file.size is not None and (size := _size(partial)) != file.size:
        if size > file.size:
            partial.unlink()
        raise OSError(f"received {size:,} of {file.size:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
