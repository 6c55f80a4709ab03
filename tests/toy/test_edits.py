"""Planted edits: the worse summary has one false fact, whichever slot it is of."""

from __future__ import annotations

import random

from tldr.records import Post
from tldr.toy import edits, gold, world
from tldr.toy.phrases import SLOTS


def test_corrected_makes_one_stated_fact_wrong_in_every_slot(posts: list[Post]) -> None:
    rng = random.Random(31)
    slots = set()
    for post in posts:
        facts = world.facts_of(post)
        better, worse = (world.pieces(text) for text in edits.corrected(rng, post))
        ((right, wrong),) = [(a, b) for a, b in zip(better, worse, strict=True) if a != b]
        slot = world.SLOT_OF[right]
        assert right == facts[slot] and world.SLOT_OF[wrong] == slot
        slots.add(slot)
    assert slots == set(SLOTS)


def test_shortened_cuts_one_false_sentence(posts: list[Post]) -> None:
    rng = random.Random(32)
    slots = set()
    for post in posts:
        facts = world.facts_of(post)
        better, worse = edits.shortened(rng, post)
        assert worse.startswith(f"{better} ")
        wrong = gold.count(facts, worse).wrong
        assert gold.count(facts, better).wrong == {} and list(wrong.values()) == [1]
        slots |= set(wrong)
    assert slots == {"con", "act"}
