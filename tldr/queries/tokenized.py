"""A disk cache of token ids: large sets of texts are encoded once and kept beside a study's runs.

`tldr.queries.encode` asks here before it encodes. Inside `keep_tokens`, a set is read from a memory-mapped
Arrow file if the same texts were encoded before, in the same format and windows, by a tokenizer of the same
content and the same code. A damaged or incomplete file is written again. If none can be written, the tokens
are returned all the same. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import pyarrow as pa
import tokenizers
from transformers import PreTrainedTokenizerBase

from tldr.files import replacing

log = logging.getLogger(__name__)

LEAST = 1000
"""The smallest number of texts that is kept: fewer are encoded in less than half a second."""
_CODE = hashlib.sha256(
    b"".join(
        Path(__file__).with_name(name).read_bytes()
        for name in ("formats.py", "encode.py", "bounds.py", "pieces.py")
    )
).hexdigest()
"""The code that the tokens depend on."""
DIGEST = 32
"""Bytes of a sha256."""
_folder: ContextVar[Path | None] = ContextVar("_folder", default=None)


@contextmanager
def keep_tokens(folder: Path | None) -> Iterator[None]:
    """Keep the tokens of what is encoded inside in `folder`; None keeps none."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def kept_or_encoded(
    tokenizer: PreTrainedTokenizerBase,
    how: tuple[str, ...],
    texts: Sequence[str | None],
    count: int,
    encode: Callable[[], list[list[int]]],
) -> list[list[int]]:
    """The rows kept for these texts, else what `encode` returns, which is then kept.

    Args:
        how: whatever the tokens depend on beside the texts and the tokenizer.
        texts: everything that is encoded; several may belong to one row.
        count: rows.
    """
    folder, backend = _folder.get(), getattr(tokenizer, "backend_tokenizer", None)
    if folder is None or backend is None or count < LEAST:
        return encode()
    content = (_CODE, tokenizers.__version__, backend.to_str(), *how)
    path = folder / f"{_digest(content, texts)}.arrow"
    if (rows := _read(path)) is not None:
        return rows
    rows = encode()
    try:
        _write(path, rows)
    except OSError as error:
        log.warning("%s: cannot keep the tokens: %s", path, error)
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
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(data)
        file.write(hashlib.sha256(data).digest())


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
    log.warning("%s: damaged, encoding again", path)
    return None
