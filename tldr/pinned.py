"""Models of the hub, pinned to a commit: ``facebook/opt-125m@1a2b...``.

A study resolves a name once, keeps the commit (`tldr.study.hashes`), and every run loads that commit, also
offline. Weights must be safetensors. Where a repository holds none, the hub's bot offers a converted copy as
a pull request on its main branch; that commit is then the pinned one.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from tldr.errors import LabError, UsageError

log = logging.getLogger(__name__)

MAIN = "main"
CONVERTED, BOT = "Adding `safetensors` variant of this model", "SFconvertbot"
"""Title and author of the pull request that holds converted weights."""
WEIGHTS, TOKENIZER = "*.safetensors", ("*.json", "*.txt", "*.model")
SECONDS = 10.0
"""For the hub to answer."""
HUB_ERRORS: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, ValueError)

_unreachable: set[str] = set()
"""Endpoints that did not answer in this process."""


def is_hub_name(text: str) -> bool:
    """Whether a text is ``owner/name`` or ``owner/name@revision``, not a path."""
    named = re.fullmatch(r"[\w][\w.-]*/[\w.-]+(@[\w./-]+)?", text)
    return named is not None and not Path(text).exists()


def split_name(text: str) -> tuple[str, str]:
    """Name and revision, by default `MAIN`."""
    name, _, revision = text.partition("@")
    return name, revision or MAIN


def is_pinned(text: str) -> bool:
    """Whether the name has a commit."""
    return is_hub_name(text) and is_commit(split_name(text)[1])


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which never moves."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def pin(text: str) -> str:
    """``owner/name@commit`` of a hub name; the text itself where nothing can tell the commit.

    Offline, or where the hub does not answer, it is the commit in the hub's cache.

    Raises:
        UsageError: the hub has no such model or revision.
    """
    name, revision = split_name(text)
    if is_commit(revision):
        return text
    commit = None if _offline() else _asked(name, revision)
    commit = commit or _cached(name, revision)
    return text if commit is None else f"{name}@{commit}"


def fetch(text: str, *, weights: bool = True) -> Path:
    """The folder with a model's files (config, tokenizer, and its weights), downloaded if necessary.

    Raises:
        UsageError: offline and not fetched before, or no such model.
        LabError: the download failed.
    """
    pinned = pin(text)
    name, revision = split_name(pinned)
    patterns = [*TOKENIZER, *([WEIGHTS] if weights else [])]
    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=patterns, local_files_only=_offline()
        )
    except HUB_ERRORS as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if _offline():
            raise UsageError(
                f"offline, and this model was never fetched: {reason}",
                where=pinned,
                remedy="unset HF_HUB_OFFLINE, or give a local folder",
            ) from error
        raise LabError(
            f"cannot be fetched: {reason}",
            where=pinned,
            remedy="check the name and the connection, or give a local folder",
        ) from error
    return Path(folder)


def local_folder(text: str) -> Path:
    """An input from outside a study: a path as it is, and a hub name's files, fetched."""
    return fetch(text) if is_hub_name(text) else Path(text)


def _offline() -> bool:
    return bool(constants.is_offline_mode())


def _cached(name: str, revision: str) -> str | None:
    """The commit that the hub's cache has for a branch, or the only commit of the model that it holds."""
    place = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    try:
        found = [(place / "refs" / revision).read_text(encoding="utf-8").strip()]
    except OSError:
        found = [path.name for path in place.glob("snapshots/*")] if revision == MAIN else []
    return found[0] if len(found) == 1 and is_commit(found[0]) else None


def _asked(name: str, revision: str) -> str | None:
    """The commit of a revision, or of its converted copy; None if the hub does not answer."""
    if constants.ENDPOINT in _unreachable:
        return None
    api = HfApi()
    try:
        info = api.model_info(name, revision=revision, timeout=SECONDS)
        files = [file.rfilename for file in info.siblings or []]
        if revision == MAIN and not any(file.endswith(".safetensors") for file in files):
            return _converted(api, name, info.sha) or info.sha
    except HUB_ERRORS as error:
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if status in (401, 403, 404):
            raise UsageError(
                f"the hub has no such model, or refuses it (HTTP status {status})",
                where=f"{name}@{revision}",
                remedy="check the name, or the path of a local folder; for a gated model `hf auth login`",
            ) from None
        _unreachable.add(constants.ENDPOINT)
        log.warning("%s does not answer: models stay at the commit in the cache", constants.ENDPOINT)
        return None
    return info.sha


def _converted(api: HfApi, name: str, main: str | None) -> str | None:
    """The bot's open pull request with safetensors on this commit of main: its own commit."""
    for found in api.get_repo_discussions(name, discussion_type="pull_request", discussion_status="open"):
        if found.title == CONVERTED and found.author == BOT and found.git_reference:
            commits = api.list_repo_commits(name, revision=found.git_reference)
            if len(commits) > 1 and commits[1].commit_id == main:
                return commits[0].commit_id
    return None
