"""Measures on record files: samples, comparisons and judgements from any source.

Nothing here imports torch; of `tldr` it imports only records, errors and shared measures, so samples
from any source can be measured. Per-sample measures are columns of one table
(`eval.common.io.load_samples`). A `eval.common.tables.MeasuredResult` is a number with its interval and
the runs it came from.

After ``import eval`` the loaders and the topics are available, such as ``eval.load_samples(...)`` and
``eval.rouge.rouge(...)``. Each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.common.io import load_posts, load_samples
    from eval.common.pairs import load_comparisons, load_judgements

__all__ = ["load_comparisons", "load_judgements", "load_posts", "load_samples"]

_HOMES = {
    "load_comparisons": "eval.common.pairs",
    "load_judgements": "eval.common.pairs",
    "load_posts": "eval.common.io",
    "load_samples": "eval.common.io",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if not name.startswith("_") and find_spec(f"eval.{name}"):
        return import_module(f"eval.{name}")
    raise AttributeError(f"module 'eval' has no attribute {name!r}")
