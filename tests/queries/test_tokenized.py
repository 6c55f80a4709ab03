"""Kept tokens are the tokens: by content, whatever becomes of the file."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from tests.texts import TEXTS
from tldr.errors import RecordError
from tldr.queries import encode, tokenized
from tldr.queries.encode import encode_queries, encode_responses
from tldr.queries.formats import TLDR, TLDR_ZERO_SHOT, QueryFormat, Summarizable
from tldr.queries.tokenized import keep_tokens
from tldr.queries.tokenizer import train_bpe
from tldr.records import Info, Post

POSTS = [Post(id=f"{n}", subreddit="dogs", title=f"the {n}", post=f"the sofa\n{n} dogs") for n in range(40)]
TEXT = [f"dog {n}" for n in range(40)]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tokenized, "LEAST", 10)
    with keep_tokens(tmp_path / ".tokens"):
        yield tmp_path / ".tokens"


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding anew fails: what is read must have been kept."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("encoded anew")

    monkeypatch.setattr(encode, "encode_texts", fail)


def anew_queries(
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Summarizable],
    limit: int,
    fmt: QueryFormat | None = None,
) -> list[list[int]]:
    """The queries' tokens, encoded and not kept."""
    with keep_tokens(None):
        return encode_queries(tokenizer, records, limit, fmt)


def anew_responses(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int) -> list[list[int]]:
    """The responses' tokens, encoded and not kept."""
    with keep_tokens(None):
        return encode_responses(tokenizer, texts, limit)


def test_kept_tokens_are_read_again(
    kept: Path, bpe: PreTrainedTokenizerBase, request: pytest.FixtureRequest
) -> None:
    queries, responses = anew_queries(bpe, POSTS, 60), anew_responses(bpe, TEXT, 9)
    assert (encode_queries(bpe, POSTS, 60), encode_responses(bpe, TEXT, 9)) == (queries, responses)
    assert len(list(kept.glob("*.arrow"))) == 2 and len(list(kept.iterdir())) == 2
    request.getfixturevalue("never")
    assert (encode_queries(bpe, POSTS, 60), encode_responses(bpe, TEXT, 9)) == (queries, responses)
    # the same texts under other ids, and a tokenizer of the same content, are the same
    again = train_bpe(TEXTS, 320)
    others = [Info(id=None, subreddit=p.subreddit, title=p.title, post=p.post) for p in POSTS]
    assert encode_queries(again, others, 60) == queries


def test_trap_kept_tokens_of_another_content_are_not_taken(kept: Path, bpe: PreTrainedTokenizerBase) -> None:
    encode_queries(bpe, POSTS, 60)
    other = [*POSTS[:-1], POSTS[-1].model_copy(update={"title": "another"})]
    swapped = [p.model_copy(update={"title": p.post, "post": p.title}) for p in POSTS]
    for records, limit, fmt in (
        (other, 60, None), (swapped, 60, None), (POSTS, 30, None), (POSTS, 60, TLDR_ZERO_SHOT),
        (POSTS[:-1], 60, TLDR),
    ):  # fmt: skip
        before = len(list(kept.iterdir()))
        assert encode_queries(bpe, records, limit, fmt) == anew_queries(bpe, records, limit, fmt)
        assert len(list(kept.iterdir())) == before + 1
    for texts, limit in ((TEXT, 9), (TEXT, 3), ([*TEXT[1:], "dog"], 9)):
        assert encode_responses(bpe, texts, limit) == anew_responses(bpe, texts, limit)
    assert len(list(kept.iterdir())) == 9
    for tokenizer in (train_bpe(TEXTS, 300), train_bpe(TEXTS, 320)):
        tokenizer.add_tokens(["sofa"])
        assert encode_queries(tokenizer, POSTS, 60) == anew_queries(tokenizer, POSTS, 60)
    assert len(list(kept.iterdir())) == 11
    assert tokenized._digest(["a"], ["b", "c"]) != tokenized._digest(["a"], ["bc"])
    assert tokenized._digest([], [None]) != tokenized._digest([], [""])


def test_a_damaged_file_is_made_anew(kept: Path, bpe: PreTrainedTokenizerBase) -> None:
    queries = encode_queries(bpe, POSTS, 60)
    (path,) = kept.iterdir()
    whole, rng = path.read_bytes(), random.Random(1)
    damages = [b"", whole[: len(whole) // 2], b"ARROW" * 50, whole[:-1]]
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        damages.append(bytes(flipped))
    for damaged in damages:
        path.write_bytes(damaged)
        assert encode_queries(bpe, POSTS, 60) == queries
        assert path.read_bytes() == whole


def test_without_a_folder_or_texts_enough_nothing_is_kept(
    kept: Path, bpe: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_responses(bpe, TEXT[:9], 9)
    with keep_tokens(None):
        encode_responses(bpe, TEXT, 9)
    assert not kept.exists()
    monkeypatch.setattr(tokenized, "_write", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    assert encode_responses(bpe, TEXT, 9) == anew_responses(bpe, TEXT, 9)


def test_a_post_that_cannot_be_encoded_leaves_nothing(kept: Path, bpe: PreTrainedTokenizerBase) -> None:
    with pytest.raises(RecordError, match="does not fit"):
        encode_queries(bpe, POSTS, 5)
    assert not kept.exists()


def test_the_file_is_a_datasets_file(kept: Path, bpe: PreTrainedTokenizerBase) -> None:
    datasets = pytest.importorskip("datasets")
    queries = encode_queries(bpe, POSTS, 60)
    (path,) = kept.iterdir()
    assert datasets.Dataset.from_file(str(path))["ids"][:] == queries


PROGRAM = """
import sys
from pathlib import Path
from tldr.queries import tokenized
from tldr.queries.encode import encode_responses
from tldr.queries.tokenizer import load_tokenizer
tokenized.LEAST = 10
tokenizer = load_tokenizer(sys.argv[2])
texts = [f"dog {n}" for n in range(2000)]
for limit in range(4, 24):
    anew = encode_responses(tokenizer, texts, limit)
    with tokenized.keep_tokens(Path(sys.argv[1])):
        assert encode_responses(tokenizer, texts, limit) == anew
"""


@pytest.mark.slow
def test_two_processes_may_keep_the_same_set(bpe: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    bpe.save_pretrained(tmp_path / "bpe")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tokens"), str(tmp_path / "bpe")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    both = [subprocess.Popen(command, env=env) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert {path.suffix for path in (tmp_path / "tokens").iterdir()} == {".arrow"}
    assert len(list((tmp_path / "tokens").iterdir())) == 20
