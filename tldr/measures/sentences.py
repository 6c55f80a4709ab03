"""Sentences by a plain rule, for baselines and probes."""

from __future__ import annotations

import re

_END = re.compile(r"(?<=[.!?])\s+|\n+")


def sentences(text: str) -> list[str]:
    """Sentences end at . ! ? before white space, and at line ends."""
    return [part.strip() for part in _END.split(text) if part.strip()]
