"""What a tokenizer's vocabulary spells, and how the tokenizer prepares a text: what bounds token counts."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

_BYTE = re.compile("<0x([0-9A-F]{2})>")
"""A token for a byte of a character that has no token."""
APOSTROPHES = frozenset("'\u2019")
"""GPT-2's pattern sets "'s" apart: what is before an apostrophe may depend on what comes after."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What is known of a BPE or unigram tokenizer.

    Attributes:
        normalize: what it does to a text first.
        pieces: what its tokens spell, in UTF-8.
        prefixes: of the pieces, and they themselves.
        longest: bytes of the longest piece.
        added: added tokens that would change how the text after them begins.
        looks_ahead: whether the split into words may depend on what follows, beyond blanks.
        may_follow: whether the model can ever put one piece right after another.
    """

    normalize: Callable[[str], str]
    pieces: frozenset[bytes]
    prefixes: frozenset[bytes]
    longest: int
    added: list[str]
    looks_ahead: bool
    may_follow: Callable[[bytes, bytes], bool]


def read_vocabulary(tokenizer: PreTrainedTokenizerBase) -> Vocabulary | None:
    """The tokenizer's vocabulary; None for a kind of tokenizer that is not known here."""
    return _vocabulary(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _vocabulary(tokenizer: PreTrainedTokenizerBase, _size: int) -> Vocabulary | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    spec = json.loads(backend.to_str())
    model, steps = spec["model"], _steps(spec["pre_tokenizer"])
    affixes = (model.get("continuing_subword_prefix"), model.get("end_of_word_suffix"))
    if model.get("type") not in ("BPE", "Unigram") or any(affixes) or '"Removed"' in json.dumps(steps):
        return None
    kinds = [step["type"] for step in steps]
    by_bytes = kinds[-1:] == ["ByteLevel"] and set(kinds) <= {"ByteLevel", "Digits", "Split", "Punctuation"}
    if not by_bytes and kinds not in ([], ["Metaspace"]):
        return None
    if by_bytes and len(kinds) > 1 and steps[-1]["add_prefix_space"]:
        return None
    words = model["vocab"] if isinstance(model["vocab"], dict) else [word for word, _ in model["vocab"]]
    added = [token["content"] for token in spec["added_tokens"]]
    spell = _bytes_of_level if by_bytes else _bytes_of_words
    spelt = {data: word for word in words if (data := spell(word))}
    pieces = frozenset(spelt) | {word.encode() for word in added if word}
    neighbours = _Neighbours(
        backend.model,
        {data: word for data, word in spelt.items() if not _BYTE.fullmatch(word)},
        by_bytes,
        frozenset(kinds),
        ranked=model["type"] == "BPE",
        whole_words=pieces if model.get("ignore_merges") else frozenset(),
    )
    return Vocabulary(
        normalize=_normalizer(backend.normalizer, by_bytes),
        pieces=pieces,
        prefixes=frozenset(piece[:end] for piece in pieces for end in range(1, len(piece) + 1)),
        longest=max(map(len, pieces)),
        added=[] if by_bytes else added,
        looks_ahead=re.search(r"\(\?(=|<)", json.dumps(steps)) is not None
        or any(token["lstrip"] or token["rstrip"] for token in spec["added_tokens"]),
        may_follow=cache(neighbours),
    )


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """Whether one piece may lie right after another: not if the model spells the two together in another way.

    Attributes:
        words: tokens of the vocabulary, by what they spell.
        by_bytes: whether the vocabulary is a byte-level one.
        kinds: of pre-tokenizers.
        ranked: whether the model is a BPE.
        whole_words: what is one token as a whole word, whatever its merges.
    """

    model: Any
    words: dict[bytes, str]
    by_bytes: bool
    kinds: frozenset[str]
    ranked: bool
    whole_words: frozenset[bytes]

    def __call__(self, left: bytes, right: bytes) -> bool:
        if left + right in self.whole_words or not self._in_one_word(left, right):
            return True
        pair = [self.words.get(left), self.words.get(right)]
        if None in pair:  # an added token, or a character without a token
            return True
        found = [token.value for token in self.model.tokenize("".join(map(str, pair)))]
        # Of a unigram model's spellings with equal scores, the text around them decides which is taken.
        return found == pair if self.ranked else len(found) == 2

    def _in_one_word(self, left: bytes, right: bytes) -> bool:
        """Whether no pre-tokenizer sets the two apart, whatever lies around them."""
        if self.by_bytes and 0x80 <= right[0] < 0xC0:  # within a character
            return True
        try:
            before, after = left.decode(), right.decode()
        except UnicodeDecodeError:
            return False
        if not self.by_bytes:
            return not after.startswith(" ")  # which Metaspace may set apart
        if APOSTROPHES & set(before + after) or before.lower() in _CONTRACTED:
            return False
        a, b = before[-1], after[0]
        kinds = [unicodedata.category(character) for character in (a, b)]
        if self.kinds <= {"ByteLevel", "Digits"}:  # GPT-2's pattern
            groups = {kind[0] if kind[0] in "LNZC" else "P" for kind in kinds}
            return groups in ({"L"}, {"P"}) or (groups == {"N"} and "Digits" not in self.kinds)
        names = [unicodedata.name(character, "").split(" ")[0] for character in (a, b)]
        return kinds[0] == kinds[1] and kinds[0] in ("Lo", "Ll") and names[0] == names[1]


def _normalizer(steps: Any, by_bytes: bool) -> Callable[[str], str]:
    """What is done to a text before it is cut into pieces; a word's mark is a blank here."""
    normalize: Callable[[str], str] = str if steps is None else steps.normalize_str
    return normalize if by_bytes else lambda text: normalize(text).replace("\u2581", " ")


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    found: list[dict[str, Any]] = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return found


_LEVEL = {
    # ByteLevel spells printable bytes as themselves and the others, in order, from U+0100 on
    ord(character): chr(value)
    for value, character in zip(
        sorted(range(256), key=lambda value: not (33 <= value <= 126 or 161 <= value <= 172 or value >= 174)),
        sorted(pre_tokenizers.ByteLevel.alphabet()),
        strict=True,
    )
}
_CONTRACTED = ("s", "t", "re", "ve", "m", "ll", "d")
"""After an apostrophe these are words of their own."""


def _bytes_of_level(word: str) -> bytes:
    """What a token of a byte-level vocabulary spells; b"" for a special token of other characters."""
    try:
        return word.translate(_LEVEL).encode("latin-1")
    except UnicodeEncodeError:
        return b""


def _bytes_of_words(word: str) -> bytes:
    if found := _BYTE.fullmatch(word):
        return bytes.fromhex(found[1])
    return word.replace("\u2581", " ").encode()
