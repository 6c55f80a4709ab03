"""Parse one line of JSON strictly: whatever is accepted can be written again without a change of meaning.

Python's parser accepts NaN and Infinity, keeps only the last of equal keys, turns 1e999 into infinity,
and accepts unpaired surrogates, which UTF-8 cannot encode. Here each of these is an error.
"""

from __future__ import annotations

import json
import math
from typing import Any


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's pairs as a dict; a repeated key is an error."""
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"broken JSON: the key '{max(keys, key=keys.count)}' occurs twice")
    return data


def _integer(text: str) -> int:
    value = int(text) if len(text) < 21 else 1 << 64
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"a number beyond 64 bits: {text[:24]}")
    return value


def _finite(text: str) -> float:
    """A finite float; also called with NaN and Infinity, which are not JSON."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"not a finite number: {text[:24]}")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=_finite
)
NESTING = 100
"""Most levels of objects and lists in a line; deeper nesting could be read but not written again."""


def _check_tree(value: Any, level: int = 0) -> None:
    """Refuse strings that UTF-8 cannot encode, and values that are nested too deeply."""
    if level > NESTING:
        raise ValueError(f"broken JSON: nested too deeply (more than {NESTING} levels)")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("an unpaired surrogate, which is not valid text") from None
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_tree(key)
            try:
                _check_tree(inner, level + 1)
            except ValueError as error:
                raise ValueError(f"{key}: {error}" if level == 0 else str(error)) from None
    elif isinstance(value, list):
        for inner in value:
            _check_tree(inner, level + 1)


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in one line.

    Raises:
        ValueError: invalid UTF-8, invalid JSON (NaN, Infinity, a repeated key, deep nesting), an unpaired
            surrogate, a number beyond 64 bits, or a value that is not an object; the message is one line.
    """
    try:
        data = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("broken JSON: nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, found {type(data).__name__}")
    # rfind is twice as fast as `in`, which would take as long as the parsing
    surrogates = raw.rfind(b"\\ud") >= 0 or raw.rfind(b"\\uD") >= 0
    if surrogates or raw.count(b"{") + raw.count(b"[") > NESTING:
        _check_tree(data)
    return data
