from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.sources.hub_server import COMMIT, Hub, serve
from tldr.errors import LabError, UsageError
from tldr.sources.hub import download as downloading
from tldr.sources.hub.download import RemoteFile, download
from tldr.sources.hub.load import open_source

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(downloading, "WAIT", 0.0)
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
    assert download(remote(hub), target, shown=lambda *args: told.append(args)) == target
    assert target.read_bytes() == DATA
    assert told[-1] == ("f.bin", len(DATA), len(DATA))
    download(remote(hub), target)
    assert hub.got("f.bin") == [None]
    assert not target.with_name("f.bin.partial").exists()


def test_a_cut_download_goes_on_where_it_was_cut(hub: Hub, tmp_path: Path) -> None:
    hub.cuts["f.bin"] = [1000, 500]
    download(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert hub.got("f.bin") == [None, "bytes=1000-", "bytes=1500-"]


def test_a_killed_download_goes_on_in_the_next_call(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "f.bin.partial").write_bytes(DATA[:777])
    download(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert hub.got("f.bin") == ["bytes=777-"]


def test_giving_up_keeps_what_came(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "ATTEMPTS", 3)
    hub.cuts["f.bin"] = [1000, 0, 0, 0]
    with pytest.raises(LabError, match="failed 3 times in a row") as error:
        download(remote(hub), tmp_path / "f.bin")
    assert f"{hub.url}/f.bin" in str(error.value)
    assert (tmp_path / "f.bin.partial").read_bytes() == DATA[:1000]
    assert not (tmp_path / "f.bin").exists()
    assert hub.got("f.bin") == [None, "bytes=1000-", "bytes=1000-", "bytes=1000-"]


def test_a_server_that_knows_no_ranges_sends_all_again(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    hub.cuts["f.bin"] = [1000]
    download(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA


def test_a_part_longer_than_the_file_there_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "f.bin.partial").write_bytes(DATA[:777])
    hub.answers["f.bin"] = [416]
    download(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert hub.got("f.bin") == ["bytes=777-", None]


@pytest.mark.parametrize("rest", [b"x" * 500, b"x" * (len(DATA) + 5), b"x" * len(DATA)])
def test_the_rest_of_another_file_is_thrown_away(hub: Hub, tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "f.bin.partial").write_bytes(rest)
    download(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA


def test_damaged_content_is_fetched_again_and_then_refused(hub: Hub, tmp_path: Path) -> None:
    wrong = b"?" + DATA[1:]
    hub.lies["f.bin"] = [wrong]
    download(remote(hub), tmp_path / "once.bin")
    assert (tmp_path / "once.bin").read_bytes() == DATA
    hub.lies["f.bin"] = [wrong, wrong]
    with pytest.raises(LabError, match=f"{hashlib.sha256(wrong).hexdigest()}, not {SHA}"):
        download(remote(hub), tmp_path / "twice.bin")
    assert sorted(path.name for path in tmp_path.glob("twice*")) == ["twice.bin.lock"]


@pytest.mark.parametrize(
    ("status", "what"),
    [(404, "no such file"), (403, "access refused"), (410, "refused"), (401, "hf auth login")],
)
def test_a_file_that_is_not_there_is_named_at_once(hub: Hub, tmp_path: Path, status: int, what: str) -> None:
    hub.answers["f.bin"] = [status]
    with pytest.raises(UsageError, match=what) as error:
        download(remote(hub), tmp_path / "f.bin")
    assert f"{hub.url}/f.bin" in str(error.value)
    assert "--from" in str(error.value)
    assert len(hub.got("f.bin")) == 1


def test_a_busy_server_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.answers["f.bin"] = [503, 429, 500]
    download(remote(hub), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA


def test_no_server_at_all_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "WAIT", 0.0)
    monkeypatch.setattr(downloading, "ATTEMPTS", 2)
    with pytest.raises(LabError, match="failed 2 times in a row"):
        download(RemoteFile("f", "http://127.0.0.1:9/f", 1), tmp_path / "f")


def test_the_token_is_for_the_hub_and_for_no_mirror(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.publish("trl-lib/tldr", {"data/train-00000-of-00001.parquet": b"no parquet"})
    for origin, expected in ((hub.url, {None}), (None, {"Bearer hf_secret"})):
        monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / str(origin is None)))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid" if origin else hub.url)
        hub.asked.clear()
        source = open_source("trl-lib/tldr", origin)
        source.local(source.splits["train"][0])
        assert [path for _, path, _, _ in hub.asked] == [
            "api/datasets/trl-lib/tldr/revision/main",
            f"datasets/trl-lib/tldr/resolve/{COMMIT}/data/train-00000-of-00001.parquet",
        ]
        assert {token for *_, token in hub.asked} == expected
