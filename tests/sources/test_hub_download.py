from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.sources.hub_server import COMMIT, Hub, serve, use_as_hub
from tldr.errors import LabError, UsageError
from tldr.sources.hub import resume
from tldr.sources.hub.download import RemoteFile
from tldr.sources.hub.load import OpenedSource, open_source
from tldr.sources.hub.resume import download_url

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with serve() as hub:
        hub.files["f.bin"] = DATA
        yield hub


def remote(
    hub: Hub, path: str = "f.bin", size: int | None = len(DATA), sha256: str | None = SHA
) -> RemoteFile:
    return RemoteFile(path, f"{hub.url}/{path}", size, sha256)


def test_a_file_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    target = tmp_path / "a" / "f.bin"
    assert download_url(remote(hub), target, shown=lambda *args: told.append(args)) == target
    assert target.read_bytes() == DATA
    assert told[-1] == ("f.bin", len(DATA), len(DATA))
    download_url(remote(hub), target)
    assert hub.got("f.bin") == [None]
    assert not target.with_name("f.bin.partial").exists()


def test_a_cut_download_goes_on_where_it_was_cut(hub: Hub, tmp_path: Path) -> None:
    hub.cuts["f.bin"] = [1000, 500]
    download_url(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert hub.got("f.bin") == [None, "bytes=1000-", "bytes=1500-"]


def test_a_killed_download_goes_on_in_the_next_call(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "f.bin.partial").write_bytes(DATA[:777])
    download_url(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert hub.got("f.bin") == ["bytes=777-"]


def test_giving_up_keeps_what_came(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "ATTEMPTS", 3)
    hub.cuts["f.bin"] = [1000, 0, 0, 0]
    with pytest.raises(LabError, match="failed 3 times in a row") as error:
        download_url(remote(hub), tmp_path / "f.bin")
    assert f"{hub.url}/f.bin" in str(error.value)
    assert (tmp_path / "f.bin.partial").read_bytes() == DATA[:1000]
    assert not (tmp_path / "f.bin").exists()
    assert hub.got("f.bin") == [None, "bytes=1000-", "bytes=1000-", "bytes=1000-"]


def test_a_server_that_knows_no_ranges_sends_all_again(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    hub.cuts["f.bin"] = [1000]
    download_url(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA


def test_a_part_longer_than_the_file_there_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "f.bin.partial").write_bytes(DATA[:777])
    hub.answers["f.bin"] = [416]
    download_url(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert hub.got("f.bin") == ["bytes=777-", None]


@pytest.mark.parametrize("rest", [b"x" * 500, b"x" * (len(DATA) + 5), b"x" * len(DATA)])
def test_the_rest_of_another_file_is_thrown_away(hub: Hub, tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "f.bin.partial").write_bytes(rest)
    download_url(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA


def test_damaged_content_is_fetched_again_and_then_refused(hub: Hub, tmp_path: Path) -> None:
    wrong = b"?" + DATA[1:]
    hub.lies["f.bin"] = [wrong]
    download_url(remote(hub), tmp_path / "once.bin")
    assert (tmp_path / "once.bin").read_bytes() == DATA
    hub.lies["f.bin"] = [wrong, wrong]
    with pytest.raises(LabError, match=f"{hashlib.sha256(wrong).hexdigest()}, not {SHA}"):
        download_url(remote(hub), tmp_path / "twice.bin")
    assert sorted(path.name for path in tmp_path.glob("twice*")) == ["twice.bin.lock"]


@pytest.mark.parametrize(
    ("status", "what"),
    [(404, "no such file"), (403, "access refused"), (410, "refused"), (401, "hf auth login")],
)
def test_a_file_that_is_not_there_is_named_at_once(hub: Hub, tmp_path: Path, status: int, what: str) -> None:
    hub.answers["f.bin"] = [status]
    with pytest.raises(UsageError, match=what) as error:
        download_url(remote(hub), tmp_path / "f.bin")
    assert f"{hub.url}/f.bin" in str(error.value)
    assert "--from" in str(error.value)
    assert len(hub.got("f.bin")) == 1


def test_a_busy_server_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.answers["f.bin"] = [503, 429, 500]
    download_url(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA


def test_no_server_at_all_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(resume, "ATTEMPTS", 2)
    with pytest.raises(LabError, match="failed 2 times in a row"):
        download_url(RemoteFile("f", "http://127.0.0.1:9/f", 1), tmp_path / "f")


def test_the_token_is_for_the_hub_and_for_no_mirror(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.publish("trl-lib/tldr", {"data/train-00000-of-00001.parquet": b"no parquet"})
    for origin, expected in ((hub.url, {None}), (None, {"Bearer hf_secret"})):
        monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / str(origin is None)))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        use_as_hub(monkeypatch, "https://hub.invalid" if origin else hub.url)
        hub.asked.clear()
        source = open_source("trl-lib/tldr", origin)
        source.local(source.splits["train"][0])
        file = f"datasets/trl-lib/tldr/resolve/{COMMIT}/data/train-00000-of-00001.parquet"
        assert [(method, path) for method, path, _, _ in hub.asked] == [
            ("GET", "api/datasets/trl-lib/tldr/revision/main"),
            ("HEAD", file),
            ("GET", file),
        ]
        assert {token for *_, token in hub.asked} == expected


NAME, SHARD = "trl-lib/tldr", "data/train-00000-of-00001.parquet"
SHARD_URL = f"datasets/{NAME}/resolve/{COMMIT}/{SHARD}"


@pytest.fixture
def source(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenedSource:
    """A data set of one file on the hub, opened and not fetched."""
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.publish(NAME, {SHARD: DATA})
    return open_source(NAME, hub.url)


def test_a_hub_file_is_fetched_once_and_progress_reaches_its_size(hub: Hub, source: OpenedSource) -> None:
    told: list[tuple[str, int, int | None]] = []
    source.shown = lambda *args: told.append(args)
    path = source.local(SHARD)
    assert path.read_bytes() == DATA
    assert told[-1] == (SHARD, len(DATA), len(DATA))
    assert source.local(SHARD) == path
    assert hub.got(SHARD) == [None]
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


@pytest.mark.parametrize(
    ("status", "what"),
    [(404, "no such file"), (403, "access refused"), (410, "refused"), (401, "hf auth login")],
)
def test_a_hub_file_that_is_refused_is_named_at_once(
    hub: Hub, source: OpenedSource, status: int, what: str
) -> None:
    hub.answers[SHARD_URL] = [status]
    with pytest.raises(UsageError, match=what) as error:
        source.local(SHARD)
    assert f"{hub.url}/{SHARD_URL}" in str(error.value)
    assert "--from" in str(error.value)
    assert [method for method, path, *_ in hub.asked if path == SHARD_URL] == ["HEAD"]


def test_a_busy_hub_is_asked_again_and_given_up_with_a_remedy(hub: Hub, source: OpenedSource) -> None:
    hub.answers[SHARD_URL] = [503, 429, 500]
    assert source.local(SHARD).read_bytes() == DATA
    source.local(SHARD).unlink()
    for status, remedy in ((503, "run the same command again"), (429, "wait some minutes")):
        hub.answers[SHARD_URL] = [status] * 20
        with pytest.raises(LabError, match=f"HTTP status {status}(?s:.*){remedy}") as error:
            source.local(SHARD)
        assert not isinstance(error.value, UsageError)


def test_a_damaged_hub_file_is_fetched_again_and_then_refused(hub: Hub, source: OpenedSource) -> None:
    wrong = b"?" + DATA[1:]
    hub.lies[SHARD_URL] = [wrong]
    path = source.local(SHARD)
    assert path.read_bytes() == DATA
    path.unlink()
    hub.lies[SHARD_URL] = [wrong, wrong]
    with pytest.raises(LabError, match=f"{hashlib.sha256(wrong).hexdigest()}, not {SHA}"):
        source.local(SHARD)
    assert [file.name for file in path.parent.iterdir()] == [f"{path.name}.lock"]


def test_a_hub_file_that_never_comes_whole_is_never_there(hub: Hub, source: OpenedSource) -> None:
    hub.cuts[SHARD_URL] = [0] * 20
    with pytest.raises(LabError, match="the download failed"):
        source.local(SHARD)
    assert not [file for file in source.folder.rglob("*") if file.is_file() and file.suffix != ".lock"]
