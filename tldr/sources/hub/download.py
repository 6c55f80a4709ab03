"""Files of the hub, by the hub's own client; a file appears under its name once it is whole and checked.

`huggingface_hub` finds the file, follows redirects, resumes a connection that breaks, tries again and, where
the repository has it, uses Xet. It checks sizes only, so the sha256 is compared here. It resumes within one
call and not across calls: a partial file of an interrupted process is discarded.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

# documented, though the package does not mark it as exported
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from tldr.errors import LabError, UsageError
from tldr.files import PARTIAL, is_disk_full
from tldr.locks import locked

log = logging.getLogger(__name__)

LIBRARY = "tldr-feedback"
HTTP_ERRORS: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
"""What a failed request raises: the error of the HTTP library that the hub's client uses, and OSError."""
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that a later request may not meet."""

ByteProgress = Callable[[str, int, int | None], None]
"""Called with a file's path, the bytes received so far, and its size where it is known."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server; `sha256` and `size` are None where they are not known."""

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place_checked(file: RemoteFile, target: Path, receive: Callable[[Path], None]) -> Path:
    """Receive a file and move it to `target` once its sha256 is right; an existing `target` is returned.

    Args:
        receive: writes the whole file to the path it is given, ``<target>.partial``.

    Raises:
        LabError: the content is not what was announced, twice in a row.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    lock = target.with_name(target.name + ".lock")
    with locked(lock, "fetching this file", where=target, waiting=log.warning):
        if target.exists():
            return target
        for last in (False, True):
            receive(partial)
            found = sha256_of(partial) if file.sha256 else None
            if found == file.sha256:
                break
            partial.unlink()  # damaged on the way, or resumed from another file: start over once
            if last:
                raise LabError(
                    f"the file's sha256 is {found}, not {file.sha256} as announced, twice in a row",
                    where=file.url,
                    remedy="a mirror or proxy may be at fault: try another with --from URL",
                )
        os.replace(partial, target)
    return target


def download_from_hub(
    file: RemoteFile,
    target: Path,
    *,
    repository: str,
    revision: str,
    endpoint: str,
    shown: ByteProgress | None,
) -> Path:
    """Put a data set's file at `target`, whole and checked; an existing file is not fetched again.

    Args:
        repository, revision: of the data set; the revision is a commit.
        endpoint: the hub or a mirror. The user's token is sent to the hub only.

    Raises:
        UsageError: the server does not have the file or refuses access.
        LabError: the download failed, or the content is not what was announced.
    """
    staging = target.with_name(target.name + ".staging")

    def receive(partial: Path) -> None:
        try:
            received = hf_hub_download(
                repository,
                file.path,
                repo_type="dataset",
                revision=revision,
                endpoint=endpoint,
                token=None if endpoint == constants.ENDPOINT else False,
                local_dir=staging,
                library_name=LIBRARY,
                tqdm_class=_bar(file, shown),
            )
            os.replace(received, partial)
        except HTTP_ERRORS as error:
            if is_disk_full(error):
                raise
            raise failure(error, file.url) from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    return place_checked(file, target, receive)


def _bar(file: RemoteFile, shown: ByteProgress | None) -> type[tqdm]:
    """A progress bar for the hub's client that draws nothing and reports to `shown`."""

    class Reported(tqdm):
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if shown:
                shown(file.path, int(self.n), file.size)

        def update_transfer(self, n: float) -> None:
            """Ignore Xet's second count, that of bytes on the wire before they are unpacked."""

    return Reported


def status_of(error: BaseException) -> int:
    """The HTTP status that caused an error of the hub's client; 0 if no server answered."""
    response = getattr(error, "response", None)
    if response is None and error.__cause__ is not None:
        return status_of(error.__cause__)
    return int(getattr(response, "status_code", 0))


def failure(error: Exception, url: str) -> LabError:
    """The error to raise for a failed request: a `UsageError` where trying again cannot help."""
    status = status_of(error)
    if 400 <= status < 500 and status not in RETRIED:
        return refusal(status, url)
    reason = f"HTTP status {status}" if status else _first_line(error.__cause__ or error)
    return LabError(
        f"the download failed ({reason})",
        where=url,
        remedy="wait some minutes, or log in with `hf auth login` for a higher limit"
        if status == 429
        else "check the connection and run the same command again: files that are complete are kept",
    )


def refusal(status: int, url: str) -> UsageError:
    """The error for a status that stays the same however often one asks."""
    if status in (401, 403):
        what = "access refused"
        remedy = (
            "it may be gated: log in with `hf auth login`, or give a copy with --from URL or --from FOLDER"
        )
    else:
        what = "no such file" if status == 404 else "refused"
        remedy = (
            "it was moved or removed: `tldr-lab data sources` lists other copies; "
            "--from takes a mirror's URL or a folder"
        )
    return UsageError(f"{what} (HTTP status {status})", where=url, remedy=remedy)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
