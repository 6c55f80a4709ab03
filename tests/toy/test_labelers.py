"""Simulated labelers: noise, agreement, the signed slider, rankings, ratings."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy.conftest import FACTS
from tldr.errors import RecordError
from tldr.records import Post
from tldr.toy import authors, generate, gold, labelers, world, writers
from tldr.toy.labelers import Candidate, Worker

PLAIN = Worker("plain", carelessness=1.0, length_bias=0.0)
GOOD = Candidate("my boyfriend sold my guitar. should i sue?", "good")
BAD = Candidate("the rent makes it hard.", "bad")


def test_an_average_worker_chooses_with_the_planted_probability(post: Post) -> None:
    """A gap of about half a TAU: one fact more."""
    rng = random.Random(0)
    near = Candidate("the rent makes it hard. should i sue?", "near")
    gap = gold.utility(post, near.text).overall - gold.utility(post, BAD.text).overall
    assert gap == pytest.approx(gold.WORTH["sue"]) and 0.4 < gap / gold.TAU < 4
    n = 6000
    share = sum(labelers.compare(post, near, BAD, rng, worker=PLAIN).choice == 0 for _ in range(n)) / n
    assert share == pytest.approx(gold.preference_probability(gap, 0.0), abs=0.02)


def test_shown_order_does_not_matter(post: Post) -> None:
    rng = random.Random(1)
    n = 3000
    first = sum(labelers.compare(post, GOOD, BAD, rng, worker=PLAIN).choice == 0 for _ in range(n))
    second = sum(labelers.compare(post, BAD, GOOD, rng, worker=PLAIN).choice == 1 for _ in range(n))
    assert first / n == pytest.approx(second / n, abs=0.03)


def test_a_biased_worker_likes_the_longer(post: Post) -> None:
    """Equal utility and 6 words of nothing: the bias alone decides."""
    rng = random.Random(2)
    short, long = Candidate(BAD.text, "s"), Candidate(f"{BAD.text} sorry for the wall of text.", "l")
    biased = Worker("biased", 1.0, 0.5)
    n = 1500
    wins = {
        worker.name: sum(
            labelers.compare(post, long, short, rng, worker=worker).choice == 0 for _ in range(n)
        )
        / n
        for worker in (PLAIN, biased)
    }
    assert wins["biased"] > wins["plain"] + 0.3


def test_two_labelers_agree_as_the_papers_do() -> None:
    """72-77 % (P C.2) on a mixed pool, up to two standard errors of 4,000 pairs.

    A reference and a summary of some facts differ less, and two references of one post least, as two samples
    of one policy do: the paper's range goes down to about 65 % there (P C.2).
    """
    rng = random.Random(4)
    posts = [generate._with_reference(rng, world.draw_post(rng, f"p{i}")) for i in range(4000)]
    mixed = labelers.agreement([(p, *generate.mixed_pair(rng, p)) for p in posts], rng)
    noise = 2 * math.sqrt(0.77 * 0.23 / len(posts))
    assert 0.72 - noise <= mixed <= 0.77 + noise
    some = [
        (p, Candidate(p.summary or "", "ref"), Candidate(writers.write(rng, p, "some")[1], "b"))
        for p in posts
    ]
    alike = [
        (
            p,
            Candidate(p.summary or "", "a"),
            Candidate(authors.reference(rng, world.facts_of(p), p.post), "b"),
        )
        for p in posts
    ]
    least, less = (labelers.agreement(pairs, rng) for pairs in (alike, some))
    assert 0.62 <= least < less - noise and less < mixed - noise


@given(st.integers(0, 10_000))
def test_confidence_is_signed_and_never_five(seed: int) -> None:
    rng = random.Random(seed)
    post = generate._with_reference(rng, world.draw_post(rng, "p"))
    row = labelers.compare(post, *generate.mixed_pair(rng, post), rng)
    confidence = row.extra.confidence
    assert confidence in ((1, 2, 3, 4) if row.choice == 0 else (6, 7, 8, 9))


def test_trap_confidence_strength_is_distance_from_five(post: Post) -> None:
    """Surer when the noisy gap is larger: a hopeless summary against a good one, and equal ones."""
    rng = random.Random(5)
    complete = Candidate("my boyfriend sold my guitar. the rent makes it hard. should i sue?", "complete")
    far = [abs((labelers.compare(post, complete, BAD, rng).extra.confidence or 0) - 5) for _ in range(500)]
    near = [abs((labelers.compare(post, BAD, BAD, rng).extra.confidence or 0) - 5) for _ in range(500)]
    assert sum(far) / 500 > sum(near) / 500 + 1
    assert set(far) | set(near) == {1, 2, 3, 4}


def test_comparison_is_openais_row(post: Post) -> None:
    row = labelers.compare(post, GOOD, BAD, random.Random(6), batch="b7", split="valid1")
    assert [s.policy for s in row.summaries] == ["good", "bad"]
    assert all(s.text.startswith(" ") and not s.text.startswith("  ") for s in row.summaries)
    assert row.worker in {w.name for w in labelers.WORKERS}
    assert (row.batch, row.split, row.info.id, row.info.post) == ("b7", "valid1", "p", post.post)
    assert world.facts_of(row.info) == FACTS


class _Still(random.Random):
    """No noise: every exponential draw is 1, so every Gumbel is 0."""

    def expovariate(self, lambd: float = 1.0) -> float:
        return 1.0


def test_ranking_orders_by_utility_and_ties_the_close(post: Post) -> None:
    """Without noise: four facts > two > one = the same again > the same without its EOS, which costs 1."""
    twin = Candidate(BAD.text, "twin")
    mid = Candidate("my boyfriend did a bad thing. the rent makes it hard.", "mid")
    unfinished = Candidate(BAD.text, "cut", stopped=False)
    row = labelers.rank(post, [BAD, unfinished, GOOD, twin, mid], _Still(), worker=PLAIN)
    assert row.rank == [3, 5, 1, 3, 2]


def test_ranking_ties_chain_through_neighbours(post: Post) -> None:
    a, b, c = (Candidate(BAD.text + " help." * n, str(n)) for n in (0, 1, 1))
    gaps = abs(gold.utility(post, a.text).overall - gold.utility(post, b.text).overall)
    assert gaps < labelers.TIE * gold.TAU, "a word of the language costs nothing"
    assert labelers.rank(post, [a, b, c], _Still(), worker=PLAIN).rank == [1, 1, 1]


def test_rankings_of_the_world_hold_ties_and_distinct_ranks(posts: list[Post]) -> None:
    rng = random.Random(8)
    kinds = Counter(len(set(labelers.rank(p, generate._distinct(rng, p, 5), rng).rank)) for p in posts[:200])
    assert kinds[5] > 20 and sum(n for k, n in kinds.items() if k < 5) > 20


def test_axis_ratings_follow_the_axes(post: Post) -> None:
    """True axes: nothing wrong 7; facts of the mean worth, 4.7, 7; a wrong one of weight .8 costs 1.6."""
    everything = "my boyfriend sold my guitar. the rent makes it hard. should i sue?"
    full = gold.utility_of(FACTS, everything)
    axes = labelers.true_axes(full)
    worth = sum(gold.WORTH[value] for value in FACTS.values())
    assert axes["accuracy"] == 7 and axes["coherence"] == 7
    assert axes["coverage"] == pytest.approx(1 + 6 * worth / 4.7)
    assert axes["overall"] == pytest.approx(1 + 6 * (worth + 1) / 6.2)
    wrong = labelers.true_axes(gold.utility_of(FACTS, "my wife did a bad thing."))
    assert wrong["accuracy"] == pytest.approx(7 - 1.6) and wrong["coverage"] == 1
    rng = random.Random(9)
    rows = [labelers.rate(post, candidate, rng) for candidate in (GOOD, BAD) for _ in range(100)]
    means = [sum(r.summary.axes.coverage or 0 for r in part) / 100 for part in (rows[:100], rows[100:])]
    expected = [1 + 6 * gold.utility_of(FACTS, c.text).coverage / 4.7 for c in (GOOD, BAD)]
    assert means == pytest.approx(expected, abs=0.3) and expected[0] > expected[1] + 1
    for row in rows:
        values = (
            getattr(row.summary.axes, axis) for axis in ("overall", "accuracy", "coverage", "coherence")
        )
        assert all(1 <= value <= 7 for value in values)


def test_posts_without_facts_are_refused() -> None:
    foreign = Post(id="x", subreddit="self", title="t", post="p")
    for ask in (
        lambda: labelers.compare(foreign, GOOD, BAD, random.Random(0)),
        lambda: labelers.rank(foreign, [GOOD, BAD], random.Random(0)),
        lambda: labelers.rate(foreign, GOOD, random.Random(0)),
    ):
        with pytest.raises(RecordError, match="no toy facts"):
            ask()


@given(st.text(), st.text(), st.booleans())
def test_any_text_can_be_labelled(a: str, b: str, stopped: bool) -> None:
    rng = random.Random(0)
    post = world.draw_post(rng, "p")
    pair = (Candidate(a, "a", stopped), Candidate(b, "b"))
    labelers.compare(post, *pair, rng).to_json()
    labelers.rank(post, pair, rng).to_json()
    labelers.rate(post, pair[0], rng).to_json()
