"""Aliases: invented words for values, said by posts alone and by Zipf's law."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import pytest

from tests.toy.conftest import FACTS, in_another_process, template_words
from tldr.records import Post
from tldr.toy import aliases, authors, corpus, edits, phrases, world, writers
from tldr.toy.aliases import ALIASED, ALIASES, EXPONENT, PER_VALUE, SHARE, worded
from tldr.toy.phrases import SLOTS

WORDS = set(chain.from_iterable(ALIASES.values()))
QUOTING = ("title", "lead_2")
"""Writers that copy words of the post."""


def said_of(words: Iterable[str]) -> set[str]:
    """The aliases among some words."""
    return WORDS & set(words)


def assert_share(hits: int, n: int) -> None:
    """Aliases are the set share of n independent mentions, within 5 standard deviations."""
    assert abs(hits - n * SHARE) < 5 * math.sqrt(n * SHARE * (1 - SHARE)), (hits, n)


def assert_zipf(ranks: Counter[int]) -> None:
    """Rank r has the share of r ** -EXPONENT of the draws, within 5 standard deviations at each rank."""
    n = sum(ranks.values())
    whole = sum(rank**-EXPONENT for rank in range(1, PER_VALUE + 1))
    for rank in range(1, PER_VALUE + 1):
        share = rank**-EXPONENT / whole
        assert abs(ranks[rank] - n * share) < 5 * math.sqrt(n * share * (1 - share)), (rank, ranks[rank], n)
    assert max(ranks) <= PER_VALUE


@pytest.fixture(scope="module")
def many() -> list[Post]:
    rng = random.Random(21)
    return [world.draw_post(rng, f"p{i}") for i in range(3000)]


def test_the_values_of_the_aliased_slots_have_aliases_and_no_others() -> None:
    assert set(ALIASES) == set(chain.from_iterable(SLOTS[slot] for slot in ALIASED))
    assert all(len(words) == PER_VALUE for words in ALIASES.values())


def test_every_alias_is_one_lower_case_word_of_one_value() -> None:
    assert len(WORDS) == len(ALIASES) * PER_VALUE, "two values share an alias"
    for value, words in ALIASES.items():
        for word in words:
            assert word.isalpha() and word.islower() and word.isascii()
            assert world.pieces(f"the {word}.") == ["the", word, "."]
            assert world.MEANING[word] == (world.SLOT_OF[value], value)


def test_no_alias_is_a_word_that_the_world_says_plainly() -> None:
    """Nor is any word that a larger PER_VALUE would make one."""
    plain = template_words() | set(world.SLOT_OF) | {name.lower() for name, _ in phrases.SUBREDDITS}
    assert {"my", "life", "gone", "guitar", "tifu"} <= plain
    assert not plain & WORDS
    assert not plain & set(aliases._coined())


def test_no_alias_is_a_rude_word() -> None:
    """Two open syllables also make words that are no inventions."""
    assert not {"rape", "nazi", "dike", "nude"} & set(aliases._coined())


def test_a_plain_value_means_itself() -> None:
    assert all(world.MEANING[value] == (slot, value) for value, slot in world.SLOT_OF.items())
    assert set(world.MEANING) == set(world.SLOT_OF) | WORDS


def test_another_process_has_the_same_aliases() -> None:
    """The corpus is written by one process, and gold utility is asked by others."""
    for seed in ("1", "2"):
        found = in_another_process("tldr.toy.aliases", "ALIASES", seed)
        assert found == {value: list(words) for value, words in ALIASES.items()}


def test_worded_says_aliases_of_the_value_at_the_share_and_by_zipfs_law() -> None:
    rng, n = random.Random(22), 20_000
    said = Counter(worded(rng, "guitar") for _ in range(n))
    assert set(said) <= {"guitar", *ALIASES["guitar"]}
    assert_share(n - said["guitar"], n)
    assert_zipf(Counter({rank: said[word] for rank, word in enumerate(ALIASES["guitar"], start=1)}))
    assert {worded(rng, "boyfriend") for _ in range(200)} == {"boyfriend"}, "its slot has no aliases"


def mentions(posts: list[Post], *, of_facts: bool) -> Iterator[tuple[str, str]]:
    """(value, its word in the post) of each value mentioned in an aliased slot: facts, or distractors."""
    for post in posts:
        facts = world.facts_of(post)
        for piece in sorted(set(world.pieces(post.post))):
            meaning = world.MEANING.get(piece)
            if meaning and meaning.slot in ALIASED and (facts[meaning.slot] == meaning.value) == of_facts:
                yield meaning.value, piece


@pytest.mark.parametrize("of_facts", [True, False])
def test_posts_say_aliases_at_the_share_and_by_zipfs_law(many: list[Post], of_facts: bool) -> None:
    """For their facts as in distractors; in every aliased slot."""
    found = list(mentions(many, of_facts=of_facts))
    if of_facts:
        assert len(found) == len(ALIASED) * len(many)
    for slot in ALIASED:
        words = [word for value, word in found if value in SLOTS[slot]]
        assert len(words) > 500
        assert_share(sum(word in WORDS for word in words), len(words))
    assert_zipf(Counter(ALIASES[value].index(word) + 1 for value, word in found if word in WORDS))


def test_a_title_says_the_words_of_its_post(many: list[Post]) -> None:
    """So a title teaches no alias, and hides none."""
    named = 0
    for post in many:
        words = [piece for piece in world.pieces(post.title) if piece in world.MEANING]
        assert set(words) <= set(world.pieces(post.post)), post.title
        named += bool(said_of(words))
    assert named > 0


def test_documents_say_aliases_before_the_comments_and_plain_words_in_them(posts: list[Post]) -> None:
    rng = random.Random(23)
    taught = 0
    for post in posts:
        text, query_chars = corpus.document(rng, post)
        rest = world.pieces(text[query_chars:])
        if "\n\nCOMMENT: " not in text:
            continue  # a raw TL;DR may repeat a sentence of the post
        assert not said_of(rest)
        hidden = {world.MEANING[word].value for word in said_of(world.pieces(post.post))}
        taught += bool(hidden & set(rest) & set(world.facts_of(post).values()))
    assert taught > 0, "no comment restates what an alias stood for"


WRITTEN: dict[str, Callable[[random.Random, Post], Iterable[str]]] = {
    "reference": lambda rng, post: [authors.reference(rng, world.facts_of(post), post.post)],
    **{name: lambda rng, post, name=name: writers.write(rng, post, name)[1:] for name in writers.WRITERS},  # type: ignore[misc]
    **edits.EDITS,
}
"""Everyone who writes summaries of a post."""


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_only_writers_who_quote_the_post_say_aliases(name: str, posts: list[Post]) -> None:
    rng = random.Random(24)
    said = said_of(
        chain.from_iterable(world.pieces(text) for post in posts for text in WRITTEN[name](rng, post))
    )
    assert bool(said) == (name in QUOTING)


def test_authors_are_vague_about_some_aliases_and_about_nothing_else(posts: list[Post]) -> None:
    """By `VAGUE_SHARE`, within five standard errors."""
    rng, vague, hidden = random.Random(26), 0, 0
    for post in posts * 5:
        facts, plain = world.facts_of(post), set(world.pieces(post.post))
        stated = authors.as_known(rng, facts, post.post, 0.0)
        for slot, value in facts.items():
            if slot in phrases.VAGUE and value not in plain:
                hidden += 1
                vague += stated[slot] == phrases.VAGUE[slot]
                assert stated[slot] in (value, phrases.VAGUE[slot])
            else:
                assert stated[slot] == value
    share = authors.VAGUE_SHARE
    assert abs(vague - share * hidden) < 5 * math.sqrt(hidden * share * (1 - share)), (vague, hidden)


def test_authors_who_misread_say_plain_words(posts: list[Post]) -> None:
    """At a rate of errors at which every post's distractors are taken for facts."""
    rng = random.Random(25)
    for post in posts:
        wrong = authors.with_errors(rng, world.facts_of(post), 1.0, post.post)
        assert all(world.SLOT_OF[value] == slot for slot, value in wrong.items())


def test_mentioned_elsewhere_gives_plain_values() -> None:
    """The aliases of the facts are no other values; those of a distractor are, and by their plain word."""
    guitar, ring = ALIASES["guitar"][-1], ALIASES["ring"][-1]
    text = f"my boyfriend sold my {guitar}. years ago my boss lost my {ring}. should i {ALIASES['sue'][0]}?"
    assert world.mentioned_elsewhere(FACTS, text) == {**FACTS, "rel": "boss", "verb": "lost", "obj": "ring"}
    assert world.mentioned_elsewhere(FACTS, f"my boyfriend sold my {guitar}.") == FACTS


def test_some_distractors_are_aliased_and_misread_plainly(posts: list[Post]) -> None:
    aliased = 0
    for post in posts:
        facts = world.facts_of(post)
        misread = world.mentioned_elsewhere(facts, post.post)
        for slot in ALIASED:
            assert misread[slot] in SLOTS[slot]
            aliased += misread[slot] != facts[slot] and misread[slot] not in world.pieces(post.post)
    assert aliased > 0
