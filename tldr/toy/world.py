"""Facts and posts of the toy world.

A post states its five facts once each: the event, the obstacle, the question. Between them stand distractor
sentences that name other values of the same slots in marked contexts ("years ago my cousin ..."). It may say
an alias for a value (`tldr.toy.aliases`). The facts travel with the post as the extra field
``facts: {slot: value}``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tldr.errors import RecordError
from tldr.records import Info, Post
from tldr.toy import phrases
from tldr.toy.aliases import ALIASES, worded
from tldr.toy.phrases import SLOTS

VERSION = 5
"""Increased whenever the same seed gives other posts, references or labels."""

Facts = Mapping[str, str]

SLOT_OF: dict[str, str] = {value: slot for slot, values in SLOTS.items() for value in values}
"""Value word -> the slot it belongs to."""


class Meaning(NamedTuple):
    """What a word stands for."""

    slot: str
    value: str


MEANING: dict[str, Meaning] = {value: Meaning(slot, value) for value, slot in SLOT_OF.items()} | {
    alias: Meaning(SLOT_OF[value], value) for value, aliases in ALIASES.items() for alias in aliases
}
"""Value word or alias -> its slot and value."""

_PIECE = re.compile(r"[a-z0-9']+|[^\sa-z0-9']")


def pieces(text: str) -> list[str]:
    """Lower-case words and single punctuation marks of any text, in order."""
    return _PIECE.findall(text.lower())


def facts_of(post: Post | Info) -> Facts:
    """The facts a toy record carries.

    Raises:
        RecordError: the record has no complete ``facts`` field.
    """
    facts: Any = (post.model_extra or {}).get("facts")
    complete = isinstance(facts, dict) and facts.keys() == SLOTS.keys()
    if not complete or any(facts[slot] not in values for slot, values in SLOTS.items()):
        raise RecordError(
            "the record carries no toy facts",
            where=post.id,
            remedy="gold utility and simulated labels need posts made by the toy world",
        )
    return {slot: facts[slot] for slot in SLOTS}


def other_value(rng: random.Random, slot: str, value: str) -> str:
    """A value of `slot` that is not `value`."""
    choice = rng.choice(SLOTS[slot][:-1])
    return SLOTS[slot][-1] if choice == value else choice


def draw_facts(rng: random.Random) -> dict[str, str]:
    """One value for every slot."""
    return {slot: rng.choice(values) for slot, values in SLOTS.items()}


def mentioned_elsewhere(facts: Facts, text: str) -> dict[str, str]:
    """The facts, each replaced by another value of its slot that `text` names (a distractor), if any."""
    misread = dict(facts)
    for piece in pieces(text):
        meaning = MEANING.get(piece)
        if meaning is not None and meaning.value != facts[meaning.slot]:
            misread[meaning.slot] = meaning.value
    return misread


def draw_post(rng: random.Random, post_id: str) -> Post:
    """A post without summary; its facts are in the extra field ``facts``."""
    facts = draw_facts(rng)
    others = {slot: worded(rng, other_value(rng, slot, value)) for slot, value in facts.items()}
    words = {slot: worded(rng, value) for slot, value in facts.items()}
    sentences = [
        rng.choice(choices).format_map(words)
        for choices in (phrases.POST_EVENT, phrases.POST_CON, phrases.POST_ACT)
    ]
    distractors = rng.sample(phrases.POST_DISTRACTOR, 1 if rng.random() < 0.6 else 2)
    asides = [distractor.format_map(others) for distractor in distractors]
    if rng.random() < 0.2:
        asides.append(rng.choice(phrases.POST_FILLER))
    for aside in asides:
        sentences.insert(rng.randrange(len(sentences) + 1), aside)
    names, weights = zip(*phrases.SUBREDDITS, strict=True)
    record: dict[str, Any] = {
        "id": post_id,
        "subreddit": rng.choices(names, weights)[0],
        "title": rng.choice(phrases.TITLES).format_map(words),
        "post": " ".join(sentences),
        "facts": facts,
    }
    return Post(**record)
