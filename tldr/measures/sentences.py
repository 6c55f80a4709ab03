"""Sentences by a plain rule."""

from __future__ import annotations

import re

_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'])\s+|\n+")


def sentences(text: str) -> list[str]:
    """Sentences of a text: they end at . ! ? (or a quote after it) before white space, and at line ends."""
    return [part.strip() for part in _END.split(text) if part.strip()]
