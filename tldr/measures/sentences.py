"""Sentences by a plain rule."""

from __future__ import annotations

import re

_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'])\s+|\n+")


def lead(text: str, count: int = 2) -> str:
    """The first `count` sentences: the paper's lead-2 baseline (lead-3 on news)."""
    return " ".join(sentences(text)[:count])


def sentences(text: str) -> list[str]:
    """Sentences of a text: they end at . ! ? (or a quote after it) before white space, and at line ends."""
    return [part.strip() for part in _END.split(text) if part.strip()]
