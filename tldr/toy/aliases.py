"""Words that only the corpus explains: a value's aliases, rarer by Zipf's law.

A post may say "my foze" for the guitar. Comments, references and labelers use the plain word. A model that
saw an alias often enough in pretraining knows its meaning, and a larger model learns more of them from the
same corpus. An alias in a summary says nothing to a labeler.
"""

from __future__ import annotations

import random
from itertools import product
from types import MappingProxyType

from tldr.toy.phrases import SLOTS

ALIASED = ("obj", "act")
"""Slots whose values have aliases."""
PER_VALUE = 45
"""Aliases of a value."""
SHARE = 0.6
"""Share of the mentions in posts that are an alias."""
EXPONENT = 0.85
"""A value's r-th alias is drawn with probability proportional to 1 / r ** EXPONENT."""

_ONSETS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_ENGLISH = frozenset({"gone", "life", "move", "sure", "tifu"})
"""Words of templates and names of subreddits that look like an invented word."""
_RUDE = frozenset(
    "dago dike dope fagu fage fagi fago faga fuka fuku fuke gego gipo gode kaka kike loli moro nazi niga nigo"
    " nude nudi nuke paki pedo peni pipi puta puto rape rapo sado sodo tita tite titi tito titu vagi".split()
)
"""Words that nobody should meet in a generated text."""


def _coined() -> list[str]:
    """Invented words of two open syllables, in a fixed shuffled order."""
    syllables = ["".join(pair) for pair in product(_ONSETS, _VOWELS)]
    words = ["".join(pair) for pair in product(syllables, repeat=2)]
    known = {value for values in SLOTS.values() for value in values}
    words = [word for word in words if word not in known]
    random.Random("aliases").shuffle(words)
    unwanted = _ENGLISH | _RUDE
    return [word for word in words if word not in unwanted]


def _aliases() -> dict[str, tuple[str, ...]]:
    coined = iter(_coined())
    return {value: tuple(next(coined) for _ in range(PER_VALUE)) for slot in ALIASED for value in SLOTS[slot]}


ALIASES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(_aliases())
"""Value -> its aliases, the most common one first."""

_WEIGHTS = [1 / rank**EXPONENT for rank in range(1, PER_VALUE + 1)]


def worded(rng: random.Random, value: str) -> str:
    """The word by which a post mentions a value: the value, or one of its aliases."""
    if value not in ALIASES or rng.random() >= SHARE:
        return value
    return rng.choices(ALIASES[value], _WEIGHTS)[0]
