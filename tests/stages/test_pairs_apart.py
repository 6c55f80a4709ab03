"""A ranking's pairs as examples of their own, shuffled: the same pairs as together, in other batches."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.stages import lab as laboratory
from tldr.inputs.posts import load_comparisons
from tldr.mathematics.losses import kway_loss, ordered_pairs
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.reward.algorithm import (
    RankedPost,
    RankedPrompt,
    encode_rankings,
    reward_plan,
    training_posts,
    untied_pairs,
)
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.shared.tokenizers import open_tokenizer
from tldr.train.metrics import read_metrics

Pair = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""A query, the summary preferred, and the other."""


def preferences(posts: list[RankedPost]) -> Counter[Pair]:
    """How often each summary of a query is preferred to another, as the loss sees it."""
    found: Counter[Pair] = Counter()
    for post in posts:
        for places, rank in zip(post.places, post.ranks, strict=True):
            better = ordered_pairs(torch.tensor([rank]), torch.ones(1, len(rank), dtype=torch.bool))[0]
            for one, two in better.nonzero().tolist():
                sides = (tuple(post.responses[places[side]]) for side in (one, two))
                found[(tuple(post.query), *sides)] += 1
    return found


APART = RewardSettings(pairs="apart", batch=4)
TOGETHER = RewardSettings(batch=4)


def test_pairs_by_hand() -> None:
    a, b, c = [5, 0], [6, 7, 0], [8, 0]
    prompts = [
        RankedPrompt([1], [a, b, c], [2, 1, 2]),  # a and c tie
        RankedPrompt([2], [a, b], [1, 1]),  # nothing but a tie
        RankedPrompt([3], [c, a], [2, 1]),
    ]
    assert untied_pairs(prompts) == [
        RankedPrompt([1], [a, b], [2, 1]),
        RankedPrompt([1], [b, c], [1, 2]),
        RankedPrompt([3], [c, a], [2, 1]),
    ]
    assert untied_pairs([]) == []


ranked = st.integers(2, 6).flatmap(lambda k: st.lists(st.integers(1, k), min_size=k, max_size=k))


@given(st.lists(ranked, min_size=1, max_size=8))
def test_both_modes_hold_the_same_pairs(ranks: list[list[int]]) -> None:
    prompts = [
        RankedPrompt([number], [[place + 10, 0] for place in range(len(rank))], rank)
        for number, rank in enumerate(ranks)
    ]
    apart = training_posts(prompts, APART)
    assert preferences(apart) == preferences(training_posts(prompts, TOGETHER))
    assert all(len(post.responses) == 2 and len(set(post.ranks[0])) == 2 for post in apart)


def test_a_batch_of_all_pairs_has_the_loss_of_rankings_weighed_by_their_pairs() -> None:
    """Together a ranking counts once, however many pairs it has; apart every pair does."""
    scores, ranks = torch.tensor([[0.3, -1.0, 0.8], [2.0, 0.5, 0.0]]), torch.tensor([[1, 2, 3], [2, 1, 9]])
    mask = torch.tensor([[True] * 3, [True, True, False]])
    single = [float(kway_loss(scores[i : i + 1], ranks[i : i + 1], mask[i : i + 1])) for i in (0, 1)]
    prompts = [RankedPrompt([i], [[s] for s in range(n)], ranks[i, :n].tolist()) for i, n in ((0, 3), (1, 2))]
    rows = untied_pairs(prompts)
    values = torch.tensor([[float(scores[row.query[0], side[0]]) for side in row.responses] for row in rows])
    loss = kway_loss(values, torch.tensor([row.rank for row in rows]), torch.ones(4, 2, dtype=torch.bool))
    assert float(loss) == pytest.approx((3 * single[0] + single[1]) / 4)
    assert float(kway_loss(scores, ranks, mask)) == pytest.approx(sum(single) / 2)


def test_the_pairs_of_a_ranking_are_scattered_over_the_updates() -> None:
    """Were batches formed by length, the six pairs of a ranking, all of one length, would stay together."""
    prompts = [
        RankedPrompt([number] * (5 + number), [[place, 0] for place in range(4)], [1, 2, 3, 4])
        for number in range(64)
    ]
    posts = training_posts(prompts, RewardSettings(pairs="apart", batch=24))
    plan = reward_plan(posts, RewardSettings(pairs="apart", batch=24), 1, seed=3)
    together = reward_plan(training_posts(prompts, TOGETHER), TOGETHER, 1, seed=3)
    assert plan.total_updates == together.total_updates == 16, "as many pairs an update, as many updates"
    batches = [plan.batch(update) for update in range(16)]
    assert sorted(row for batch in batches for row in batch) == list(range(6 * 64)), (
        "every pair once an epoch"
    )
    seen: dict[int, set[int]] = {}
    for update, batch in enumerate(batches):
        for row in batch:
            seen.setdefault(posts[row].query[0], set()).add(update)
    spread = sum(map(len, seen.values())) / 64
    assert spread == pytest.approx(16 * (1 - (15 / 16) ** 6), abs=0.25), (
        "as six independent draws of an update"
    )


def test_shared_posts_are_refused() -> None:
    with pytest.raises(ValidationError, match="set share_posts to false"):
        RewardSettings(pairs="apart", share_posts=True)


@pytest.fixture(scope="module")
def rankings(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rankings of four summaries by the toy world's labelers."""
    folder = tmp_path_factory.mktemp("ranked") / "labels"
    settings = LabelsSettings(pairs=24, valid_pairs=16, k=(4, 4))
    return laboratory.run(laboratory.context("labels", lab, folder, settings=settings), "labels")


def test_a_reward_model_trains_on_the_pairs_of_a_ranking_file(
    lab: Path, rankings: Path, tmp_path: Path
) -> None:
    rows = load_comparisons(rankings / "train.jsonl")
    prompts = encode_rankings(open_tokenizer(lab / "sft"), rows, laboratory.LENGTHS)
    apart = training_posts(prompts, APART)
    assert preferences(apart) == preferences(training_posts(prompts, TOGETHER))
    ties = sum(n * (n - 1) // 2 for row in rows for n in Counter(row.rank).values())
    assert ties > 0, "without a tie in the file the test says little"
    assert len(apart) == 6 * len(rows) - ties
    settings = laboratory.changed("reward", {"pairs": "apart", "batch": 24, "limit": 16})
    ctx = laboratory.context("reward", lab, tmp_path / "rm", settings=settings)
    laboratory.run(laboratory.rewired(ctx, labels=rankings), "reward")
    evaluation = json.loads((tmp_path / "rm" / "evaluation.json").read_text())
    useful = [row for row in rows if len(set(row.rank)) > 1][:16]
    pairs = sum(len(list(row.comparisons())) for row in useful)
    assert (evaluation["train_rankings"], evaluation["train_pairs"]) == (16, pairs)
    assert len(read_metrics(tmp_path / "rm" / "metrics.jsonl")) == -(-pairs // 24)
    assert evaluation["valid2_pairs"] == 6 * 8, "rankings are judged whole"
