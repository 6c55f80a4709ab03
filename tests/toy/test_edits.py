"""Planted edits: the worse summary has one fault, and every fault is met."""

from __future__ import annotations

import random
from collections import Counter

from tldr.records import Post
from tldr.toy import edits, gold, world
from tldr.toy.gold import SummaryContent
from tldr.toy.phrases import SLOTS


def fault_of(worse: SummaryContent) -> str:
    """The one fault of a summary that states all facts otherwise."""
    faults = {
        "wrong": bool(worse.wrong),
        "out of order": worse.disorder > 0,
        "again": worse.restated > 0,
        "missing": not worse.wrong and len(worse.covered) < len(SLOTS),
    }
    (name,) = [name for name, has in faults.items() if has]
    return name


def test_an_improved_summary_lacked_one_thing(posts: list[Post]) -> None:
    rng = random.Random(31)
    met: Counter[str] = Counter()
    slots = set()
    for post in posts * 2:
        facts = world.facts_of(post)
        better, worse = (gold.count(facts, text) for text in edits.improved(rng, post))
        assert better.covered == tuple(SLOTS)
        assert not (better.wrong or better.disorder or better.restated or better.illegal or worse.illegal)
        met[fault_of(worse)] += 1
        slots |= set(worse.wrong)
    assert set(met) == {"wrong", "out of order", "again", "missing"}
    assert min(met.values()) > len(posts) * 2 / 4 * 0.8
    assert slots == set(SLOTS), "a fact of each kind is wrong in turn"


def test_shortened_cuts_a_sentence_that_is_false_or_said_before(posts: list[Post]) -> None:
    rng = random.Random(32)
    met: Counter[str] = Counter()
    for post in posts:
        facts = world.facts_of(post)
        better, worse = edits.shortened(rng, post)
        assert len(world.pieces(worse)) > len(world.pieces(better)) + 3
        seen = gold.count(facts, worse)
        assert seen.covered == tuple(SLOTS)
        met["false" if seen.wrong else "again"] += 1
        assert bool(seen.wrong) != bool(seen.restated)
    assert min(met["false"], met["again"]) > len(posts) / 2 * 0.8


def test_a_better_summary_is_better_in_truth(posts: list[Post]) -> None:
    rng = random.Random(33)
    for make in edits.EDITS.values():
        for post in posts:
            better, worse = (gold.utility(post, text).overall for text in make(rng, post))
            assert better > worse + 0.2
