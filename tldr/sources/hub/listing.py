"""What a published source consists of: its revision, its files, their sizes and sha256.

The listing is kept in the cache beside the files (``HF_ASSETS_CACHE``). A study reads the revision that was
fetched last, and offline mode knows which files are missing. A file whose server announces no sha256 is
checked against the sha256 of its first download.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import HfApi, cached_assets_path, constants

from tldr.errors import LabError, UsageError
from tldr.records import write_json
from tldr.sources.hub.catalog import KnownSource
from tldr.sources.hub.download import HTTP_ERRORS, LIBRARY, RETRIED, RemoteFile, status_of
from tldr.sources.hub.resume import headers_of


@dataclass(frozen=True)
class Listing:
    """A source's files at one revision: the hub's commit, or a hash of the size and ETag that servers
    announce for plain files."""

    revision: str
    origin: str
    files: tuple[RemoteFile, ...]


def cache_folder(known: KnownSource, revision: str = "", assets: Path | None = None) -> Path:
    """The cache folder of a source's files of one revision, or of its listing.

    Args:
        assets: the cache; None: ``HF_ASSETS_CACHE``.
    """
    return cached_assets_path(
        LIBRARY,
        namespace=known.name,
        subfolder=revision or "listing",
        assets_dir=assets or constants.HF_ASSETS_CACHE,
    )


def get_listing(known: KnownSource, origin: str | None, *, offline: bool, refresh: bool) -> Listing:
    """The kept listing, or a new one.

    Args:
        origin: the address of a mirror; None for the hub, or for the files' own address.
        refresh: ask the server even if a listing is kept.

    Raises:
        UsageError: no such repository, revision or file; or offline and none is kept.
        LabError: the server cannot be reached.
    """
    kept = _read(known)
    if offline or (kept is not None and not refresh):
        if kept is None:
            raise UsageError(
                f"offline, and '{known.name}' was never fetched on this machine",
                where=cache_folder(known),
                remedy=f"run `tldr-lab data fetch {known.name}` with a network, or give a copy by --from",
            )
        return kept
    fresh = _list_urls(known, origin or known.base) if known.base else _list_hub(known, origin)
    if kept is not None:
        fresh = _with_hashes(fresh, kept)
    keep_listing(known, fresh)
    return fresh


def keep_listing(known: KnownSource, listing: Listing, assets: Path | None = None) -> None:
    """Keep a listing in the cache (as of `cache_folder`)."""
    write_json(cache_folder(known, assets=assets) / "listing.json", asdict(listing))


def with_hash(listing: Listing, path: str, sha256: str) -> Listing:
    """The listing with a file's sha256 added."""
    files = tuple(replace(file, sha256=sha256) if file.path == path else file for file in listing.files)
    return replace(listing, files=files)


def _read(known: KnownSource) -> Listing | None:
    try:
        data: dict[str, Any] = json.loads((cache_folder(known) / "listing.json").read_text(encoding="utf-8"))
        files = tuple(RemoteFile(**file) for file in data.pop("files"))
        return Listing(**data, files=files)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _with_hashes(fresh: Listing, kept: Listing) -> Listing:
    """The listing with the sha256 of earlier downloads, if the revision is the same."""
    if fresh.revision != kept.revision:
        return fresh
    known = {file.path: file.sha256 for file in kept.files}
    files = tuple(replace(file, sha256=file.sha256 or known.get(file.path)) for file in fresh.files)
    return replace(fresh, files=files)


def _list_hub(known: KnownSource, endpoint: str | None) -> Listing:
    """One request to the hub's API; `endpoint` None is HF_ENDPOINT, or the hub."""
    endpoint = endpoint or constants.ENDPOINT
    where = f"{endpoint}/datasets/{known.name}"
    try:
        # the user's token (None: the library finds it) is sent to the hub and never to a mirror
        api = HfApi(endpoint=endpoint, token=None if endpoint == constants.ENDPOINT else False)
        info = api.dataset_info(known.name, revision=known.revision, files_metadata=True)
    except HTTP_ERRORS as error:
        status = status_of(error)
        if 400 <= status < 500 and status not in RETRIED:
            raise UsageError(
                f"no such data set, or no revision '{known.revision}' (HTTP status {status})",
                where=where,
                remedy="`tldr-lab data sources` lists other copies; --from takes a mirror's URL or a folder",
            ) from None
        raise LabError(
            f"the hub cannot be reached ({type(error).__name__}: {str(error).splitlines()[0]})",
            where=where,
            remedy="check the connection and HF_ENDPOINT; --offline reads what was fetched before",
        ) from None
    assert info.sha is not None
    files = [
        RemoteFile(
            path=file.rfilename,
            url=f"{where}/resolve/{info.sha}/{quote(file.rfilename)}",
            size=file.size,
            sha256=file.lfs.sha256 if file.lfs else None,
        )
        for file in info.siblings or []
        if known.keeps(file.rfilename)
    ]
    if not files:
        raise UsageError(
            f"the data set holds no file of the form {known.keep}",
            where=f"{where} at {info.sha}",
            remedy="its layout has changed: download it by hand and pass it with --from FOLDER",
        )
    return Listing(info.sha, endpoint, tuple(files))


def _list_urls(known: KnownSource, base: str) -> Listing:
    """One HEAD request per file. A missing file only affects callers who request it.

    Raises:
        UsageError: all files are missing.
    """
    files, marks = [], []
    gone: list[UsageError] = []
    for path in known.files:
        url = f"{base.rstrip('/')}/{path}"
        try:
            headers = headers_of(url)
        except UsageError as error:
            gone.append(error)
            headers = {}
        length = headers.get("Content-Length")
        files.append(RemoteFile(path, url, int(length) if length else None))
        marks.append([path, length, headers.get("ETag") or headers.get("Last-Modified")])
    if len(gone) == len(files):
        raise gone[0]
    revision = hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:40]
    return Listing(revision, base, tuple(files))
