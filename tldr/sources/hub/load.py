"""The interface to every source: a known name, or a folder in one of the published layouts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from tldr.errors import LabError, UsageError
from tldr.files import files_below
from tldr.records import OnError, ReadReport, Record, make_records
from tldr.sources.hub import layout
from tldr.sources.hub.catalog import CATALOG, KnownSource, known_source
from tldr.sources.hub.convert import RowLayout, RowOrigin, layout_of
from tldr.sources.hub.download import ByteProgress, RemoteFile, download_from_hub, sha256_of
from tldr.sources.hub.listing import Listing, cache_folder, get_listing, keep_listing, with_hash
from tldr.sources.hub.resume import download_url

log = logging.getLogger(__name__)


@dataclass
class OpenedSource:
    """An open source: its splits and their files, which are fetched when they are read.

    Attributes:
        known: its entry in the catalog; None for another folder.
        splits: split -> paths of its files below `folder`.
        folder: where the files are, or will be once fetched.
        listing: None for a local folder.
        left_aside: files of the folder without rows of a known form, and their columns.
    """

    name: str
    known: KnownSource | None
    folder: Path
    splits: dict[str, list[str]]
    listing: Listing | None = None
    offline: bool = False
    shown: ByteProgress | None = None
    left_aside: list[str] = field(default_factory=list)
    _sound: set[str] = field(default_factory=set)
    """Paths whose content was found to be the announced one."""

    @property
    def revision(self) -> str | None:
        """The hub's commit or its equivalent for plain URLs; None for a local folder."""
        return self.listing.revision if self.listing else None

    def select(self, wanted: str | None) -> list[str]:
        """The splits that ``a``, ``a+b`` or a folder's name stands for; all splits for None.

        Raises:
            UsageError: there is no such split.
        """
        if wanted is None:
            return list(self.splits)
        found: list[str] = []
        for name in wanted.split("+"):
            meant = [split for split in self.splits if split == name or split.startswith(f"{name}/")]
            if not meant:
                raise UsageError(
                    f"'{self.name}' has no split '{name}'", remedy=f"its splits: {', '.join(self.splits)}"
                )
            found += meant
        return list(dict.fromkeys(found))

    def local(self, path: str) -> Path:
        """The path of a file on this disk, fetched if necessary, whose content is the announced one.

        Raises:
            UsageError: as of `download_from_hub`; or offline and the file was not fetched before.
            LabError: as of `download_from_hub`; or the file on this disk is another one or damaged.
        """
        file, remote = self._found(path), self.remote(path)
        if remote is not None and remote.sha256 is not None and path not in self._sound:
            if (sha256 := sha256_of(file)) != remote.sha256:
                raise LabError(
                    f"the file on this disk has sha256 {sha256}, not {remote.sha256} as announced",
                    where=file,
                    remedy="it is damaged: remove it and run the command again",
                )
            self._sound.add(path)
        return file

    def _found(self, path: str) -> Path:
        if self.listing is None or self.known is None:
            return self.folder / path
        target = self.folder / path
        if target.exists():
            return target
        remote = next(file for file in self.listing.files if file.path == path)
        if not self.known.base:
            # reuse what another tool has fetched into the hub's own cache
            cached = try_to_load_from_cache(
                self.name, path, revision=self.listing.revision, repo_type="dataset"
            )
            if isinstance(cached, str):
                return Path(cached)
        if self.offline:
            raise UsageError(
                f"offline, and this file of '{self.name}' was not fetched before",
                where=target,
                remedy=f"run `tldr-lab data fetch {self.name}` with a network, or give a copy by --from",
            )
        log.info("fetching %s", remote.url)
        if self.known.base:
            download_url(remote, target, shown=self.shown)
        else:
            download_from_hub(
                remote,
                target,
                repository=self.name,
                revision=self.listing.revision,
                endpoint=self.listing.origin,
                shown=self.shown,
            )
        if remote.sha256 is None:
            self.listing = with_hash(self.listing, path, sha256_of(target))
            keep_listing(self.known, self.listing)
        return target

    def remote(self, path: str) -> RemoteFile | None:
        """The listing's entry of a file."""
        files = self.listing.files if self.listing else ()
        return next((file for file in files if file.path == path), None)

    def records(
        self, split: str, *, on_error: OnError = "stop", report: ReadReport | None = None
    ) -> Iterator[Record]:
        """The records of a split, in bounded memory.

        Args:
            on_error, report: as of `tldr.records.iter_records`.

        Raises:
            UsageError: a file's rows are of no known form.
            RecordError: a bad row, named ``file:line``.
        """
        report = report if report is not None else ReadReport(self.folder)
        layout.check_shards(self.splits[split], self.folder)
        for path in self.splits[split]:
            file = self.local(path)
            form = _form(file)
            if form is None:
                raise _no_form(self.name, [f"{path}: {_shown_columns(file)}"])
            yield from make_records(
                layout.iter_rows(file),
                _maker(form, RowOrigin(self.name, split)),
                form.name,
                on_error=on_error,
                report=report,
            )


def _maker(form: RowLayout, origin: RowOrigin) -> Callable[[layout.RawData], Record]:
    return lambda row: form.record(layout.parse_fields(row), origin)


def open_source(
    name: str,
    origin: str | None = None,
    *,
    offline: bool = False,
    refresh: bool = False,
    shown: ByteProgress | None = None,
) -> OpenedSource:
    """Open a known source or a local folder.

    Args:
        name: of the catalog, or a folder's path; a folder of a known name counts as that source.
        origin: for a known source, a folder that holds its files or the address of a mirror.
        offline: never touch the network; HF_HUB_OFFLINE=1 does the same.
        refresh: ask for the newest revision even if one was fetched before.
        shown: called with the progress of downloads.

    Raises:
        UsageError: the name is not known, the folder holds nothing of a known form, or the source
            cannot be fetched.
    """
    folder = origin if origin is not None and "://" not in origin else name if Path(name).is_dir() else None
    if folder is not None:
        return _open_folder(name, Path(folder))
    known = known_source(name)
    offline = offline or constants.is_offline_mode()
    listing = get_listing(known, origin, offline=offline, refresh=refresh)
    splits: dict[str, list[str]] = {}
    for split, files in layout.by_split(file.path for file in listing.files).items():
        splits.setdefault(known.split(split), []).extend(files)
    return OpenedSource(name, known, cache_folder(known, listing.revision), splits, listing, offline, shown)


def _open_folder(name: str, folder: Path) -> OpenedSource:
    if not folder.is_dir():
        raise UsageError("no such folder", where=folder, remedy="check the path")
    known = CATALOG.get(name)
    paths = [str(path.relative_to(folder)) for path in files_below(folder)]
    paths = [path for path in paths if layout.is_data(path)]
    if known is not None and any(map(known.keeps, paths)):
        paths = list(filter(known.keeps, paths))
    fitting = [path for path in paths if _form(folder / path) is not None]
    aside = [f"{path}: {_shown_columns(folder / path)}" for path in sorted(set(paths) - set(fitting))]
    if not fitting:
        raise _no_form(str(folder), aside)
    splits: dict[str, list[str]] = {}
    for split, files in layout.by_split(fitting).items():
        splits.setdefault(known.split(split) if known else split, []).extend(files)
    return OpenedSource(name, known, folder, splits, left_aside=aside)


def _form(path: Path) -> RowLayout | None:
    return layout_of(layout.columns(path))


def _shown_columns(path: Path) -> str:
    names = layout.columns(path)
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "no rows of JSON"


def _no_form(where: str, found: Sequence[str]) -> UsageError:
    told = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
    return UsageError(
        f"nothing here is laid out as a known source; found {told or 'no .parquet, .json(l) or .zip file'}",
        where=where,
        remedy="rows need the columns of a post, comparison, rating, article or raw row: see "
        "tldr/sources/hub/convert.py, LAYOUTS",
    )
