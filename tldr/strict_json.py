"""Read and write JSON strictly: what is read can be written, and what is written can be read.

Python's parser accepts NaN and Infinity, keeps only the last of equal keys, turns 1e999 into infinity,
and accepts unpaired surrogates, which UTF-8 cannot encode. Here each of these is an error, in reading and in
writing.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

BOM = codecs.BOM_UTF8
"""The byte order mark with which some programs begin a file of UTF-8."""


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
_WITH_NAN = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=float
)
NESTING = 100
"""Most levels of objects and lists in a line; deeper nesting could be read but not written again."""


_MANY_DIGITS = re.compile(r"\d{19}")
"""What a number beyond 64 bits has."""


def check_tree(value: Any, level: int = 0) -> None:
    """Refuse what cannot be written as JSON and read again.

    Raises:
        ValueError: a string that UTF-8 cannot encode, a number that is not finite or has more than 64 bits, a
            value of another type than JSON's, or deep nesting.
    """
    if level > NESTING:
        raise ValueError(f"broken JSON: nested too deeply (more than {NESTING} levels)")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("an unpaired surrogate, which is not valid text") from None
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_tree(key)
            try:
                check_tree(inner, level + 1)
            except ValueError as error:
                raise ValueError(f"{key}: {error}" if level == 0 else str(error)) from None
    elif isinstance(value, list | tuple):
        for inner in value:
            check_tree(inner, level + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"not a finite number: {value}")
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError("a number beyond 64 bits")
    elif value is not None:
        raise ValueError(f"JSON has no {type(value).__name__}")


def numbered_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, numbered from 1; the first without a byte order mark."""
    for number, line in enumerate(lines, start=1):
        yield number, line.removeprefix(BOM) if number == 1 else line


def parse_json(raw: bytes, *, nan: bool = False) -> Any:
    """The JSON value in a text.

    Args:
        nan: take NaN and Infinity, to find them.

    Raises:
        ValueError: invalid UTF-8, invalid JSON (NaN, Infinity, a repeated key, deep nesting), an unpaired
            surrogate, or a number beyond 64 bits; the message is one line.
    """
    try:
        data = (_WITH_NAN if nan else _DECODER).decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"broken JSON: {error.msg} at {line}column {error.colno}") from None
    except RecursionError:
        raise ValueError("broken JSON: nested too deeply") from None
    # rfind is twice as fast as `in`, which would take as long as the parsing
    surrogates = raw.rfind(b"\\ud") >= 0 or raw.rfind(b"\\uD") >= 0
    if surrogates or raw.count(b"{") + raw.count(b"[") > NESTING:
        check_tree(data)
    return data


def parse_object(raw: bytes, *, nan: bool = False) -> dict[str, Any]:
    """The JSON object in a text; `nan` as of `parse_json`.

    Raises:
        ValueError: as `parse_json`; or a value that is not an object.
    """
    data = parse_json(raw, nan=nan)
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, found {type(data).__name__}")
    return data


def dump_json(data: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """A value as JSON that `parse_json` reads; without `indent` it is one line.

    Raises:
        ValueError: as `check_tree`.
    """
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent, sort_keys=sort_keys)
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        check_tree(data)
        raise ValueError(str(error)) from None
    if _MANY_DIGITS.search(text) or text.count("{") + text.count("[") > NESTING:
        parse_json(text.encode())  # only where there may be something to find, as it takes as long again
    return text
