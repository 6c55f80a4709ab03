"""The pretraining corpus of a data folder."""

from __future__ import annotations

from pathlib import Path

from tldr.errors import UsageError
from tldr.strict_json import numbered_lines, parse_object

CORPUS = "corpus.jsonl"
CORPUS_HELD_OUT = "corpus_held_out.jsonl"
"""Documents that nothing trains on."""


def read_corpus(folder: Path, name: str = CORPUS) -> list[dict[str, str | int]]:
    """Documents of a file: ``text``, and ``query_chars``, the characters of its post part.

    Raises:
        UsageError: there is no corpus, or a line is not such a document.
    """
    path = folder / name
    if not path.is_file():
        raise UsageError(
            "no pretraining corpus", where=path, remedy="give data.corpus, or start the ladder from paths"
        )
    documents = []
    with path.open("rb") as lines:
        for number, line in numbered_lines(lines):
            try:
                document = parse_object(line)
                if not isinstance(document.get("text"), str) or not document["text"]:
                    raise ValueError("text is empty, missing or no string")
            except ValueError as error:
                raise UsageError(f"not a corpus document: {error}", where=f"{path}:{number}") from None
            documents.append(document)
    return documents
