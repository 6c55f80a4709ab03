"""The planted utility against numbers worked out by hand."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy.conftest import FACTS
from tldr.errors import RecordError
from tldr.records import Info, Post
from tldr.toy import authors, gold, phrases, world
from tldr.toy.aliases import ALIASES

ALL = "my boyfriend sold my guitar. i am stuck because of the rent. should i sue?"


def test_a_complete_summary() -> None:
    """Weights 1 + 1 + 1 + .9 + 1.2 = 5.1; 15 words x .02 = .3; nothing to blame."""
    u = gold.utility_of(FACTS, ALL)
    assert u.coverage == pytest.approx(5.1)
    assert (u.accuracy, u.coherence) == (0, 0)
    assert u.length == pytest.approx(0.3)
    assert u.overall == pytest.approx(5.4)


def test_wrong_facts_cost_their_weight_and_count_twice_at_most() -> None:
    """act wrong 3 times counts 2, at half its weight each: -1.2; rel right, 1.0; 15 words x .02 = .3."""
    text = "my boyfriend did a bad thing. should i beg? should i lie? should i wait?"
    seen = gold.count(FACTS, text)
    assert seen.covered == ("rel",) and seen.wrong == {"act": 2}
    u = gold.utility_of(FACTS, text)
    assert u.coverage == pytest.approx(1.0) and u.accuracy == pytest.approx(-1.2)
    assert seen.words == 15 and u.length == pytest.approx(0.30)


def test_a_vague_word_states_nothing_and_is_good_language() -> None:
    """Facts 1 + 1 of 5.1; "my stuff", "the mess" and "act" neither state a value nor break a trigram."""
    text = "my boyfriend sold my stuff. i am stuck because of the mess. should i act?"
    seen = gold.count(FACTS, text)
    assert seen.covered == ("rel", "verb") and not seen.wrong and not seen.illegal
    assert gold.utility_of(FACTS, text).overall == pytest.approx(2 + 15 * 0.02)
    assert not set(phrases.VAGUE.values()) & world.MEANING.keys(), "a vague word is no value and no alias"


def test_right_and_wrong_value_of_one_slot_both_count() -> None:
    seen = gold.count(FACTS, "should i sue? should i beg?")
    assert seen.covered == ("act",) and seen.wrong == {"act": 1} and seen.restated == 0


def test_restated_values_and_repeated_fourgrams() -> None:
    """ "should i sue?" twice: the value once more (.4); of the 5 four-grams of
    should i sue ? should i sue ? the last repeats the first (.3)."""
    u = gold.utility_of(FACTS, "should i sue? should i sue?")
    seen = gold.count(FACTS, "should i sue? should i sue?")
    assert (seen.restated, seen.repeated, seen.illegal) == (1, 1, 0)
    assert u.coherence == pytest.approx(-0.7)


def test_illegal_trigrams_are_counted_one_by_one() -> None:
    """ "should i the sue ?": (^ should i) legal, (should i the), (i the sue), (the sue ?) not."""
    assert gold.count(FACTS, "should i the sue?").illegal == 3
    assert gold.utility_of(FACTS, "should i the sue?").coherence == pytest.approx(-1.2)
    assert gold.count(FACTS, "i sue?").illegal == 1, "a text cannot open in the middle of a sentence"


def test_missing_eos_costs_one() -> None:
    assert gold.utility_of(FACTS, ALL, stopped=False).coherence == pytest.approx(-1.0)


def test_values_are_collapsed_in_the_table() -> None:
    """A sentence with values never drawn together is legal; only its facts are wrong."""
    seen = gold.count(FACTS, "my wife mailed my boat.")
    assert seen.illegal == 0 and sum(seen.wrong.values()) == 3


@pytest.mark.parametrize("value", ["guitar", "boat"])
def test_an_alias_says_nothing_but_stands_where_its_slot_may(value: str) -> None:
    """Neither the fact (weight 1) nor a wrong one, for the right value's aliases as for another's.

    A word of no slot at all breaks (sold my _), (my _ .) and (_ . should).
    """
    for alias in ALIASES[value]:
        text = f"my boyfriend sold my {alias}. should i sue?"
        seen = gold.count(FACTS, text)
        assert seen.covered == ("rel", "verb", "act") and seen.wrong == {}
        assert (seen.illegal, seen.restated, seen.repeated, seen.words) == (0, 0, 0, 8)
        u = gold.utility_of(FACTS, text)
        plain = gold.utility_of(FACTS, "my boyfriend sold my guitar. should i sue?")
        assert plain.overall - u.overall == plain.coverage - u.coverage == pytest.approx(1.0)
    assert gold.count(FACTS, "my boyfriend sold my zzz. should i sue?").illegal == 3


def test_an_alias_is_legal_in_the_place_of_its_own_slot_alone() -> None:
    assert gold.count(FACTS, f"should i {ALIASES['beg'][0]}?").illegal == 0
    assert gold.count(FACTS, f"should i {ALIASES['guitar'][0]}?").illegal == 2


def test_a_value_and_its_alias_are_no_restatement() -> None:
    seen = gold.count(FACTS, f"should i sue? should i {ALIASES['sue'][0]}? should i {ALIASES['sue'][0]}?")
    assert seen.covered == ("act",) and (seen.restated, seen.wrong) == (0, {})
    assert seen.repeated == 2, "the words are still a repetition"


def test_the_language_of_the_world_is_legal(posts: list[Post]) -> None:
    rng = random.Random(1)
    for post in posts:
        facts = world.facts_of(post)
        for text in (post.post, post.title, authors.reference(rng, facts, post.post)):
            assert gold.count(facts, text).illegal == 0, text


def test_shuffled_words_are_not_legal(posts: list[Post]) -> None:
    rng = random.Random(2)
    for post in posts[:50]:
        said = post.post.split()
        rng.shuffle(said)
        assert gold.count(world.facts_of(post), " ".join(said)).illegal > 5


def test_leading_space_and_case_change_nothing() -> None:
    assert (
        gold.utility_of(FACTS, " " + ALL)
        == gold.utility_of(FACTS, ALL)
        == gold.utility_of(FACTS, ALL.upper())
    )


def test_info_and_post_are_judged_alike(post: Post) -> None:
    info = Info.model_validate({"id": "p", "post": post.post, "facts": FACTS})
    assert gold.utility(info, ALL) == gold.utility(post, ALL) == gold.utility_of(FACTS, ALL)
    with pytest.raises(RecordError):
        gold.utility(Info(id="x", post="no facts here"), ALL)


def test_preference_probability() -> None:
    """sigma(1) = .7311 at a gap of TAU; symmetric; no overflow."""
    assert gold.preference_probability(gold.TAU, 0.0) == pytest.approx(0.731059, abs=1e-6)
    assert gold.preference_probability(2.0, 5.0) == pytest.approx(1 - gold.preference_probability(5.0, 2.0))
    assert gold.preference_probability(1e9, 0.0) == 1.0 and gold.preference_probability(0.0, 1e9) == 0.0


def test_the_world_leaves_the_right_room(posts: list[Post]) -> None:
    """Stating everything wins 60-80 % against the references, the commonest lazy summary 25-45 %,
    a raw TL;DR next to nothing: pretrained < SFT < reference < RL is possible."""
    rng = random.Random(3)
    references = [
        gold.utility(p, authors.reference(rng, world.facts_of(p), p.post)).overall
        for p in posts
        for _ in range(5)
    ]

    def wins(template: str) -> float:
        won = [
            gold.preference_probability(gold.utility(p, template.format_map(world.facts_of(p))).overall, u)
            for p, u in zip((p for p in posts for _ in range(5)), references, strict=True)
        ]
        return sum(won) / len(won)

    complete = "my {rel} {verb} my {obj}. the {con} makes it hard. should i {act}?"
    lazy = f"{phrases.LAZY_OPENING} my {{rel}} {{verb}} my {{obj}}. {phrases.FLUFF[0]}"
    assert 0.60 < wins(complete) < 0.80
    assert 0.25 < wins(lazy) < 0.45
    assert wins(phrases.RAW_COMMON) < 0.25 and wins("help.") < 0.1


@given(st.text(), st.booleans())
def test_any_text_has_a_finite_utility(text: str, stopped: bool) -> None:
    u = gold.utility_of(FACTS, text, stopped)
    assert all(map(math.isfinite, u))
    assert u.overall == pytest.approx(u.coverage + u.accuracy + u.coherence + u.length)
    assert 0 <= u.coverage <= 5.1001 and -10.3 <= u.accuracy <= 0 and u.coherence <= 0


@given(
    st.lists(
        st.sampled_from([*sorted(world.SLOT_OF), ".", "my", "i"]) | st.sampled_from(sorted(world.MEANING))
    )
)
def test_covered_and_wrong_are_what_a_set_says(words: list[str]) -> None:
    """Aliases among the words change neither."""
    seen = gold.count(FACTS, " ".join(words))
    said = set(words) & set(world.SLOT_OF)
    assert set(seen.covered) == {slot for slot, value in FACTS.items() if value in said}
    for slot, values in phrases.SLOTS.items():
        assert seen.wrong.get(slot, 0) == min(2, len((said & set(values)) - {FACTS[slot]}))


def test_the_table_of_trigrams_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study asks for hundreds of thousands of utilities."""
    made: list[None] = []
    read = gold._sentences
    monkeypatch.setattr(gold, "_sentences", lambda: (made.append(None), read())[1])
    gold.legal_trigrams.cache_clear()
    for _ in range(3):
        gold.utility_of(FACTS, ALL)
    assert len(made) == 1
