"""The planted utility against numbers worked out by hand."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy.conftest import FACTS, in_another_process
from tldr.errors import RecordError
from tldr.records import Info, Post
from tldr.toy import authors, gold, phrases, world
from tldr.toy.aliases import ALIASES

ALL = "my boyfriend sold my guitar. i am stuck because of the rent. should i sue?"


WORTH = {slot: gold.WORTH[value] for slot, value in FACTS.items()}


def test_a_slots_values_matter_differently_and_its_weight_on_average() -> None:
    """Of 14 values five, five and four have the factors .3, 1 and 1.7, whose mean is 13.3 / 14 = .95."""
    for slot, values in phrases.SLOTS.items():
        unit = gold.WEIGHTS[slot] / 0.95
        worth = Counter(round(gold.WORTH[value] / unit, 6) for value in values)
        assert worth == {0.3: 5, 1.0: 5, 1.7: 4}
        assert sum(gold.WORTH[value] for value in values) / 14 == pytest.approx(gold.WEIGHTS[slot])


def test_another_process_knows_the_same_worth() -> None:
    """Labels are made by one process, and scores by others."""
    assert in_another_process("tldr.toy.gold", "WORTH", "1") == dict(gold.WORTH)


def test_a_complete_summary() -> None:
    """The worth of all five facts; nothing to blame."""
    u = gold.utility_of(FACTS, ALL)
    assert u.coverage == pytest.approx(sum(WORTH.values()))
    assert (u.accuracy, u.coherence) == (0, 0)
    assert u.overall == u.coverage


def test_wrong_facts_cost_their_weight_and_count_twice_at_most() -> None:
    """act (weight 1.2) is wrong 3 times and counts 2, at a quarter of it each: -.6; rel is right."""
    text = "my boyfriend did a bad thing. should i beg? should i lie? should i wait?"
    seen = gold.count(FACTS, text)
    assert seen.covered == ("rel",) and seen.wrong == {"act": 2} and seen.words == 15
    u = gold.utility_of(FACTS, text)
    assert u.coverage == WORTH["rel"] and u.accuracy == pytest.approx(-0.6)


def test_a_vague_word_states_nothing_and_is_good_language() -> None:
    """Two facts; "my stuff" and "act" neither state a value nor break a trigram."""
    text = "my boyfriend sold my stuff. should i act?"
    seen = gold.count(FACTS, text)
    assert seen.covered == ("rel", "verb") and not seen.wrong and not seen.illegal
    assert gold.utility_of(FACTS, text).overall == pytest.approx(WORTH["rel"] + WORTH["verb"])
    assert not set(phrases.VAGUE.values()) & world.MEANING.keys(), "a vague word is no value and no alias"


def test_a_fact_after_one_of_a_later_sentence_is_out_of_order() -> None:
    """The order is event, obstacle, question: each step back costs .7, wherever the values come from."""
    event, con, act = "my boyfriend sold my guitar.", "the rent makes it hard.", "should i sue?"
    cases = {(event, con, act): 0, (event, act, con): 1, (act, con, event): 2, (con, act): 0, (act, event): 1}
    for parts, steps in cases.items():
        text = " ".join(parts)
        assert gold.count(FACTS, text).disorder == steps
        assert gold.utility_of(FACTS, text).coherence == pytest.approx(-0.7 * steps)
    assert gold.count(FACTS, "should i beg? my wife mailed my boat.").disorder == 1
    assert gold.count(FACTS, "my guitar was sold by my boyfriend.").disorder == 0, "an event has one place"


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


def test_a_phrase_that_says_nothing_costs_each_time_and_is_good_language() -> None:
    """Every phrase, in every place, .4 each; the same one twice is a repetition besides."""
    for phrase in phrases.FLUFF:
        for text in (f"should i sue? {phrase}", f"{phrase} should i sue?"):
            seen = gold.count(FACTS, text)
            assert (seen.padding, seen.illegal, seen.repeated) == (1, 0, 0), text
            assert gold.utility_of(FACTS, text).coherence == pytest.approx(-0.4)
    assert gold.count(FACTS, " ".join(phrases.FLUFF)).padding == len(phrases.FLUFF)
    assert gold.count(FACTS, ALL).padding == 0
    twice = gold.count(FACTS, f"{phrases.FLUFF[0]} {phrases.FLUFF[0]}")
    assert twice.padding == 2 and twice.repeated > 0


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
    """Neither the fact nor a wrong one, for the right value's aliases as for another's.

    A word of no slot at all breaks (sold my _), (my _ .) and (_ . should).
    """
    for alias in ALIASES[value]:
        text = f"my boyfriend sold my {alias}. should i sue?"
        seen = gold.count(FACTS, text)
        assert seen.covered == ("rel", "verb", "act") and seen.wrong == {}
        assert (seen.illegal, seen.restated, seen.repeated, seen.words) == (0, 0, 0, 8)
        u = gold.utility_of(FACTS, text)
        plain = gold.utility_of(FACTS, "my boyfriend sold my guitar. should i sue?")
        assert plain.overall - u.overall == plain.coverage - u.coverage == pytest.approx(WORTH["obj"])
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
    """pretrained < SFT < reference < RL is possible for a policy that knows half of the aliases, and one that
    knows more of them is preferred more."""
    rng = random.Random(3)
    drawn = [post for post in posts for _ in range(3)]

    def wins(template: str, known: float) -> float:
        won = []
        for post in drawn:
            facts = world.facts_of(post)
            said = set(world.pieces(post.post))
            stated = {
                slot: value if value in said or rng.random() < known else world.other_value(rng, slot, value)
                for slot, value in facts.items()
            }
            mine = gold.utility_of(facts, template.format_map(stated)).overall
            theirs = gold.utility_of(facts, authors.reference(rng, facts, post.post)).overall
            won.append(gold.preference_probability(mine, theirs))
        return sum(won) / len(won)

    brief = "my {rel} {verb} my {obj}. should i {act}?"
    complete = "my {rel} {verb} my {obj}. the {con} makes it hard. should i {act}?"
    assert 0.33 < wins(brief, 0.5) < wins(brief, 0.7) - 0.05 < 0.46
    assert 0.52 < wins(complete, 0.5) < wins(complete, 0.7) - 0.05 < 0.72
    assert wins("my {rel} is the worst.", 1.0) < 0.15 and wins("help.", 1.0) < 0.1


@given(st.text(), st.booleans())
def test_any_text_has_a_finite_utility(text: str, stopped: bool) -> None:
    u = gold.utility_of(FACTS, text, stopped)
    assert all(map(math.isfinite, u))
    assert u.overall == pytest.approx(u.coverage + u.accuracy + u.coherence)
    assert 0 <= u.coverage <= sum(WORTH.values()) + 1e-9 and -2.36 <= u.accuracy <= 0 and u.coherence <= 0


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
