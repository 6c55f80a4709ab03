"""Models of the hub are pinned: a name is resolved once, and a run loads that commit, also offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.sources.hub_server import Hub, serve, use_as_hub
from tldr import pinned
from tldr.errors import LabError, UsageError
from tldr.pinned import BOT, CONVERTED, fetch, is_hub_name, local_folder, pin
from tldr.study.hashes import PINS, FileHashes

NAME = "org/model"
FIRST, SECOND, CONVERSION = ("a" * 40, "b" * 40, "c" * 40)
FILES = {"config.json": b"{}", "model.safetensors": b"one", "pytorch_model.bin": b"pickle"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pinned, "_unreachable", set())
    with serve() as server:
        use_as_hub(monkeypatch, server.url)
        server.publish_model(NAME, FIRST, FILES)
        yield server


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("org/model", True), ("org/model@main", True), (f"org/model@{FIRST}", True),
        ("models/a/b", False), ("./org/model", False), ("/org/model", False), ("gpt2", False), ("", False),
    ],
)  # fmt: skip
def test_what_is_a_name_of_the_hub(text: str, named: bool) -> None:
    assert is_hub_name(text) == named


def test_a_folder_is_no_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert not is_hub_name(NAME) and local_folder(NAME) == Path(NAME)


def test_trap_a_study_stays_at_the_commit_that_it_found_first(hub: Hub, tmp_path: Path) -> None:
    study = tmp_path / "hashes.json"
    files = FileHashes(study)
    assert files.pinned(NAME) == files.place(NAME) == f"{NAME}@{FIRST}"
    files.save()
    hub.publish_model(NAME, SECOND, FILES | {"model.safetensors": b"two"})
    assert FileHashes(study).place(NAME) == f"{NAME}@{FIRST}"
    assert FileHashes().place(NAME) == f"{NAME}@{SECOND}", "a new study takes the newest"
    assert (fetch(f"{NAME}@{FIRST}") / "model.safetensors").read_bytes() == b"one"
    study.with_name(PINS).unlink()
    assert FileHashes(study).place(NAME) == f"{NAME}@{SECOND}"


def test_only_what_is_loaded_is_fetched(hub: Hub) -> None:
    folder = fetch(NAME, weights=False)
    assert {path.name for path in folder.iterdir()} == {"config.json"}
    assert {path.name for path in fetch(NAME).iterdir()} == {"config.json", "model.safetensors"}
    assert not hub.got("pytorch_model.bin")


def test_offline_the_commit_is_the_one_in_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    assert pin(NAME) == NAME
    with pytest.raises(UsageError, match="offline, and this model was never fetched"):
        fetch(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = local_folder(f"{NAME}@main")
    asked = len(hub.asked)
    offline(monkeypatch)
    assert pin(NAME) == f"{NAME}@{FIRST}" and fetch(NAME) == folder
    assert len(hub.asked) == asked
    (folder.parent / SECOND).mkdir()
    assert pin(NAME) == NAME, "two commits, and nothing tells which is main's"
    (folder.parents[1] / "refs").mkdir(exist_ok=True)
    (folder.parents[1] / "refs" / "main").write_text(SECOND)
    assert pin(NAME) == f"{NAME}@{SECOND}"


def test_weights_in_pickle_are_pinned_to_the_bots_conversion(hub: Hub) -> None:
    """... of the commit that main has: another's pull request, or one on an older commit, is not taken."""
    plain = {name: data for name, data in FILES.items() if name != "model.safetensors"}
    hub.publish_model(NAME, SECOND, plain)
    assert pin(NAME) == f"{NAME}@{SECOND}"
    hub.requests[NAME] = [(CONVERTED, "somebody")]
    hub.publish_model(NAME, "d" * 40, FILES, ref="refs/pr/1")
    assert pin(NAME) == f"{NAME}@{SECOND}"
    hub.requests[NAME].append((CONVERTED, BOT))
    hub.publish_model(NAME, CONVERSION, FILES, ref="refs/pr/2")
    assert pin(NAME) == f"{NAME}@{CONVERSION}"
    assert (fetch(pin(NAME)) / "model.safetensors").read_bytes() == b"one"
    hub.publish_model(NAME, "e" * 40, plain)
    assert pin(NAME) == f"{NAME}@{'e' * 40}"


def test_a_model_that_is_not_there_is_named(hub: Hub) -> None:
    with pytest.raises(UsageError, match="the hub has no such model") as error:
        FileHashes().place("org/none")
    assert error.value.where == "org/none@main"


def test_a_hub_that_does_not_answer_is_asked_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    use_as_hub(monkeypatch, "http://127.0.0.1:9")
    assert pin(NAME) == NAME and pin("org/other") == "org/other"
    assert pinned._unreachable == {"http://127.0.0.1:9"}
    with pytest.raises(LabError, match="cannot be fetched"):
        fetch(NAME)


def test_a_damaged_list_of_commits_is_refused(tmp_path: Path) -> None:
    for text in ("{", f'{{"{NAME}": "{NAME}@main"}}'):
        (tmp_path / PINS).write_text(text)
        with pytest.raises(UsageError, match=r"not valid|no commit for"):
            FileHashes(tmp_path / "hashes.json")
