"""The fewest tokens that a cut text can have, without encoding every cut of it.

The number of tokens does not grow steadily with a text: "internationalization" may be one token, and
"internationalizatio" five. So a cut that is too long says nothing about other cuts by itself. These facts
hold for every BPE and unigram model, whatever its merges and scores:

- A text has at least as many tokens as the fewest pieces of the vocabulary that spell it.
- Two pieces that lie next to each other within a word are also the tokens of what they spell together.
- Where no piece of the vocabulary can lie across a place in the text, the tokens before that place do not
  depend on what follows. (Places after blanks and apostrophes are left out: pre-tokenizers look ahead there.)

`TokenBounds.hopeless_from` takes the exact number of tokens up to the last such place, found by bisection,
and counts pieces from there on. The tests compare the outcome with the rule as written, on many tokenizers.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache

from transformers import PreTrainedTokenizerBase

from tldr.queries.pieces import APOSTROPHES, Vocabulary, read_vocabulary

_CHARACTERS = 32
"""Characters a token that are looked at first: enough for all but very long tokens."""
_ANCHOR = "a"
"""A character that a normalizer leaves alone and that keeps it from adding a prefix to what comes after."""


def token_bounds(tokenizer: PreTrainedTokenizerBase) -> TokenBounds | None:
    """What the tokenizer's vocabulary says about texts; None for an unknown kind of tokenizer."""
    vocabulary = read_vocabulary(tokenizer)
    return None if vocabulary is None else _bounds_of(vocabulary)


@dataclass(frozen=True)
class _Spelling:
    """A text as the model reads it.

    Attributes:
        data: a blank, which counts nothing, and the normalized text in UTF-8.
        places: for each place of the text, that in `data`. A place inside a cluster, whose characters are
            normalized together, has the cluster's beginning.
        ends: whether a place is the end of a cluster.
        joins: whether runs of blanks may become one.
    """

    data: bytes
    places: list[int]
    ends: list[bool]
    joins: bool


@dataclass(frozen=True)
class _Tail:
    """What follows a cut: the fewest tokens that lie wholly in it, and what tokens that begin before it and
    end in it spell before it."""

    fewest: int
    reaching: frozenset[bytes]


@dataclass(frozen=True)
class _Walk:
    """Where more pieces than allowed are needed (None: nowhere), and places that a piece may lie across."""

    end: int | None
    spanned: set[int]


@dataclass(frozen=True, eq=False)
class TokenBounds:
    """Lower bounds of token counts."""

    vocabulary: Vocabulary
    _tails: dict[tuple[str, bool], _Tail] = field(default_factory=dict)

    def hopeless_from(self, head: str, text: str, tail: str, most: int, count: Callable[[str], int]) -> int:
        """A length from which on ``head + text[:length] + tail`` surely has more than `most` tokens.

        Args:
            count: encodes a text and counts its tokens; called about a dozen times.

        Returns:
            ``len(text)`` if nothing can be said.
        """
        known = _CHARACTERS * max(most, 1)
        while True:
            part = head + text[:known]
            whole = known >= len(text)
            if (
                any(token in part for token in self.vocabulary.added)
                or (spelling := self._spell(part)) is None
            ):
                return len(text)
            after = self._after(tail, spelling.joins)
            found = self._search(spelling, part, len(head), most - after.fewest, after.reaching, count)
            if found <= len(part) - (
                0 if whole else _CHARACTERS
            ):  # what follows may change the last characters
                return min(max(found - len(head), 0), len(text))
            if whole:
                return len(text)
            known *= 4

    def _search(
        self,
        spelling: _Spelling,
        part: str,
        least: int,
        room: int,
        reaching: frozenset[bytes],
        count: Callable[[str], int],
    ) -> int:
        """The first place of `part` with surely more than `room` tokens before it; beyond its end if none."""
        places = spelling.places
        walk = self._walk(spelling.data, 0, room, reaching)
        until = len(places) if walk.end is None else bisect_left(places, walk.end)
        splits = self._splits(spelling, part, range(least + 1, min(until, len(part))), walk.spanned)

        @cache
        def tokens(place: int) -> int:
            return count(part[:place])

        first = bisect_left(splits, room, key=tokens)
        if first < len(splits):  # whatever comes after it has a token of its own
            until = min(until, bisect_left(places, places[splits[first]] + 1))
        if first > 0:
            base = splits[first - 1]
            walk = self._walk(spelling.data, places[base], room - tokens(base), reaching)
            if walk.end is not None:
                until = min(until, bisect_left(places, walk.end))
        return until

    def _walk(self, data: bytes, start: int, room: int, reaching: frozenset[bytes]) -> _Walk:
        """Spell `data` from `start` on, in every way and as far as `room` pieces can reach."""
        begin = {start: 0, start + 1: 0} if start == 0 else {start: 0}  # a blank may or may not be put first
        fewest = {place: {b"": 0} for place in begin}  # pieces that end at a place, by the last of them
        covering = dict(begin)  # pieces that end at a place or beyond
        spanned: set[int] = set()
        for i in range(start, len(data)):
            if covering.get(i, 0) > room:
                return _Walk(i, spanned)
            if (here := fewest.pop(i, None)) is None:
                continue
            least = min(here.values())
            longest = j = i
            while j < len(data) and (piece := data[i : j + 1]) in self.vocabulary.prefixes:
                j += 1
                covering[j] = min(covering.get(j, least + 1), least + 1)
                if piece in self.vocabulary.pieces and (
                    before := [
                        count
                        for last, count in here.items()
                        if not last or self.vocabulary.may_follow(last, piece)
                    ]
                ):
                    fewest.setdefault(j, {})[piece] = min(before) + 1
                    longest = j
                if piece in reaching:
                    longest = j
            spanned.update(range(i + 1, longest))
            j = i + _width(data[i])
            if not self._known(data[i:j]):
                # A character without a token counts nothing: a run of them may be one unknown token.
                ends = fewest.setdefault(j, {})
                ends[b""] = min(ends.get(b"", least), least)
                for place in range(i + 1, j + 1):
                    covering[place] = min(covering.get(place, least), least)
        return _Walk(len(data) if covering.get(len(data), 0) > room else None, spanned)

    def _splits(self, spelling: _Spelling, part: str, among: range, spanned: set[int]) -> list[int]:
        """Places of `part` before which the tokens do not depend on what follows."""
        if self.vocabulary.looks_ahead:
            return []
        places, halves = spelling.places, self._before_halves(spelling, among)
        return [
            place
            for place in among
            if spelling.ends[place]
            and places[place] not in spanned
            and places[place] not in halves
            and not part[place - 1].isspace()
            and spelling.data[places[place] - 1] != ord(" ")
            and not APOSTROPHES & set(part[max(0, place - 3) : place])
            and self._known(spelling.data[places[place - 1] : places[place]])
        ]

    def _before_halves(self, spelling: _Spelling, among: range) -> set[int]:
        """Places that a piece may lie across if a cut leaves half of a cluster: a letter without its mark."""
        found: set[int] = set()
        for end in {spelling.places[place] for place in among if not spelling.ends[place]}:
            if spelling.data[end : end + 1] != b" ":
                starts = range(max(0, end - self.vocabulary.longest), end)
                start = next((i for i in starts if spelling.data[i:end] in self.vocabulary.prefixes), end)
                found.update(range(start + 1, end + 1))
        return found

    def _known(self, character: bytes) -> bool:
        """Whether a character can be spelled, whole or by its bytes: it is no part of an unknown token."""
        return character in self.vocabulary.pieces or all(
            bytes([value]) in self.vocabulary.pieces for value in character
        )

    def _after(self, tail: str, joins: bool) -> _Tail:
        if (tail, joins) not in self._tails:
            whole = (self._normal(tail) or "").encode()
            forms = {whole, whole.lstrip(b" ")} if joins else {whole}  # blanks before it may swallow its own
            fewest, reaching = [], set[bytes]()
            for data in forms:
                fewest.append(self._fewest(data))
                for k in range(1, len(data) + 1):
                    across = {p[:-k] for p in self.vocabulary.pieces if len(p) > k and p.endswith(data[:k])}
                    reaching |= across
                    if across:
                        fewest.append(self._fewest(data[k:]))
            self._tails[tail, joins] = _Tail(min(fewest), frozenset(reaching))
        return self._tails[tail, joins]

    def _fewest(self, data: bytes) -> int:
        """The fewest pieces that spell `data`."""
        room = 0
        while self._walk(b"\0" + data, 1, room, frozenset()).end is not None:
            room += 1
        return room

    def _normal(self, text: str) -> str | None:
        """What the normalizer makes of a text inside another one; None if it mixes the two."""
        before, both = self.vocabulary.normalize(_ANCHOR), self.vocabulary.normalize(_ANCHOR + text)
        return both[len(before) :] if both.startswith(before) else None

    def _spell(self, text: str) -> _Spelling | None:
        """The text as the model reads it; None if its clusters cannot be told apart."""
        whole = self._normal(text)
        single = {character: self._normal(character) for character in set(text)}
        for joins in (False, True):
            clusters = _clusters(text, single) if joins else list(text)
            normal = {cluster: self._normal(cluster) for cluster in set(clusters)} if joins else single
            parts = [normal[cluster] for cluster in clusters]
            if whole is None or None in parts or "".join(map(str, parts)) != whole:
                continue
            places, ends = [1], [True]
            for cluster, part in zip(clusters, parts, strict=True):
                inside = len(cluster) - 1
                places += [places[-1]] * inside + [places[-1] + len(str(part).encode())]
                ends += [False] * inside + [True]
            return _Spelling(b" " + whole.encode(), places, ends, joins)
        return None


def _clusters(text: str, normal: dict[str, str | None]) -> list[str]:
    """Runs of characters that a normalizer may put together: blanks, a letter and its marks.

    Args:
        normal: what it makes of single characters.
    """
    clusters: list[str] = []
    blank = False
    for character in text:
        was, blank = blank, normal[character] in ("", " ")
        mark = (
            unicodedata.combining(character) or normal[character] is None or "\u1160" <= character <= "\u11ff"
        )
        if clusters and (mark or (was and blank)):
            clusters[-1] += character
            blank = blank or (was and bool(mark))
        else:
            clusters.append(character)
    return clusters


def _width(first: int) -> int:
    """Bytes of the character that begins with this byte (1 within a character)."""
    return 4 if first >= 0xF0 else 3 if first >= 0xE0 else 2 if first >= 0xC0 else 1


@lru_cache(maxsize=8)
def _bounds_of(vocabulary: Vocabulary) -> TokenBounds:
    return TokenBounds(vocabulary)
