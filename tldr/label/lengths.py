"""The length of a written summary: tokens of a model's tokenizer where there is one, else words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tldr.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextLength:
    """Counts a text.

    Args:
        tokenizer: a ``tokenizer.json`` or a folder that has one; None counts words.

    Raises:
        UsageError: there is no such file, or it holds no tokenizer.
    """

    def __init__(self, tokenizer: Path | None = None):
        self._tokenizer: Tokenizer | None = None
        if tokenizer is not None:
            from tokenizers import Tokenizer

            file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
            try:
                self._tokenizer = Tokenizer.from_file(str(file))
            except Exception as error:  # the library raises nothing more precise
                raise UsageError(
                    f"not a tokenizer: {error}", where=file, remedy="name a tokenizer.json, or its folder"
                ) from None

    @property
    def unit(self) -> str:
        """What is counted."""
        return "words" if self._tokenizer is None else "tokens"

    def __call__(self, text: str) -> int:
        """Tokens of the text as a response: after one space, without the end of text."""
        if self._tokenizer is None:
            return len(text.split())
        return len(self._tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids)
