"""Large sets of texts encoded once and kept, beside a study's runs, as memory-mapped Arrow files.

`encode_queries` and `encode_responses` are those of `tldr.queries.formats`; inside `keep_tokens` they look
first whether the same texts were encoded before, in the same format and windows, with a tokenizer of
the same content and this code. A file that is damaged or half written is made anew, and where none can
be written the tokens are returned all the same. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import pyarrow as pa
import tokenizers
from transformers import PreTrainedTokenizerBase

from tldr.queries import formats
from tldr.queries.formats import QueryFormat, Source

log = logging.getLogger(__name__)

LEAST = 1000
"""Texts from which a set is kept: below, encoding takes less than half a second."""
_SOURCE = hashlib.sha256(Path(formats.__file__).read_bytes()).hexdigest()
DIGEST = 32
"""Bytes of a sha256."""
_folder: ContextVar[Path | None] = ContextVar("_folder", default=None)


@contextmanager
def keep_tokens(folder: Path | None) -> Iterator[None]:
    """Keep what is encoded inside in `folder` (None: do not)."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def encode_queries(
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Source],
    max_tokens: int,
    fmt: QueryFormat | None = None,
) -> list[list[int]]:
    """`formats.encode_queries`, kept."""
    names = ("subreddit", "title", "post", "article")
    return _kept(
        tokenizer,
        ("queries", str(max_tokens), repr(fmt)),
        (getattr(record, name, None) for record in records for name in names),
        len(records),
        lambda: formats.encode_queries(tokenizer, records, max_tokens, fmt),
    )


def encode_responses(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int, lead: str = " "
) -> list[list[int]]:
    """`formats.encode_responses`, kept."""
    return _kept(
        tokenizer,
        ("responses", str(max_tokens), lead),
        texts,
        len(texts),
        lambda: formats.encode_responses(tokenizer, texts, max_tokens, lead),
    )


def _kept(
    tokenizer: PreTrainedTokenizerBase,
    how: tuple[str, ...],
    texts: Iterable[str | None],
    count: int,
    encode: Callable[[], list[list[int]]],
) -> list[list[int]]:
    folder, backend = _folder.get(), getattr(tokenizer, "backend_tokenizer", None)
    if folder is None or backend is None or count < LEAST:
        return encode()
    content = (_SOURCE, tokenizers.__version__, backend.to_str(), repr(formats.start_tokens(tokenizer)))
    path = folder / f"{_digest([*content, str(tokenizer.eos_token_id), *how], texts)}.arrow"
    if (rows := _read(path)) is not None:
        return rows
    rows = encode()
    try:
        _write(path, rows)
    except OSError as error:
        log.warning("%s: the tokens could not be kept: %s", path, error)
    return rows


def _digest(content: Iterable[str], texts: Iterable[str | None]) -> str:
    """sha256 of texts, each with its length before it, so that no two lists spell the same bytes."""
    found = hashlib.sha256()
    for part in (content, texts):
        for text in part:
            data = b"" if text is None else text.encode(errors="surrogatepass")
            found.update(b"%d " % (-1 if text is None else len(data)))
            found.update(data)
    return found.hexdigest()


def _write(path: Path, rows: list[list[int]]) -> None:
    """An Arrow stream of one column, ``ids``, as `datasets.Dataset.from_file` reads it; then its sha256."""
    column = pa.array(rows, pa.large_list(pa.int32()))
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([column], names=["ids"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = memoryview(sink.getvalue())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")  # two processes may write at once
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.write(hashlib.sha256(data).digest())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> list[list[int]] | None:
    """The rows of a whole and undamaged file, else None."""
    if not path.is_file():
        return None
    try:
        with pa.memory_map(str(path)) as file:
            data = memoryview(file.read_buffer())
            # bytes, for pyarrow lends its memory as signed numbers, which equal no digest
            if hashlib.sha256(data[:-DIGEST]).digest() == bytes(data[-DIGEST:]):
                rows: list[list[int]] = pa.ipc.open_stream(data).read_all().column("ids").to_pylist()
                return rows
    except (OSError, ValueError):
        pass
    log.warning("%s: damaged, made anew", path)
    return None
