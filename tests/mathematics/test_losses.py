"""Cross-entropy, pairwise and K-way losses."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from tldr.errors import UsageError
from tldr.mathematics.losses import kway_loss, ordered_pairs, pair_accuracy, response_loss

LN2 = math.log(2)


def test_response_loss_by_hand():
    # -ln(1/2), -ln(1/4), -ln(1/8) = 1, 2, 3 times ln 2; the two pads count for nothing
    logprobs = torch.tensor([[0.5, 0.25, 1e-9], [0.125, 1e-9, 1e-9]]).log()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert response_loss(logprobs, mask).item() == pytest.approx(2 * LN2)
    # weights 1, 1/2, 2: (1 * 1 + 2 / 2 + 3 * 2) / (1 + 1/2 + 2) = 8 / 3.5
    weights = torch.tensor([[1.0, 0.5, 7.0], [2.0, 7.0, 7.0]])
    assert response_loss(logprobs, mask, weights=weights).item() == pytest.approx(8 / 3.5 * LN2)
    # over a whole batch of 12 tokens, this part adds (1 + 2 + 3) / 12
    assert response_loss(logprobs, mask, count=12).item() == pytest.approx(LN2 / 2)
    assert response_loss(logprobs, mask, weights=weights, count=16).item() == pytest.approx(LN2 / 2)


def test_response_loss_is_torchs_cross_entropy_with_ignored_pads(ragged):
    mask, _ = ragged(1, 0, shape=(4, 6))
    logits = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(2))
    tokens = torch.randint(0, 9, (4, 6), generator=torch.Generator().manual_seed(3))
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens.masked_fill(~mask, -100).flatten(), ignore_index=-100
    )
    logprobs = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    torch.testing.assert_close(response_loss(logprobs, mask), expected)
    torch.testing.assert_close(response_loss(logprobs, mask, weights=torch.ones(4, 6)), expected)


def loss_of_pairs(chosen, rejected):
    """`kway_loss` of rankings of two: what the reward model is trained with on comparisons."""
    scores = torch.stack([chosen, rejected], dim=1)
    ranks = torch.tensor([[1, 2]]).expand(scores.shape)
    return kway_loss(scores, ranks, torch.ones_like(ranks, dtype=torch.bool))


def test_pairwise_loss_by_hand():
    # difference 0: ln 2; difference ln 3: -ln(3/4) = ln(4/3)
    chosen, rejected = torch.tensor([1.0, math.log(3)]), torch.tensor([1.0, 0.0])
    assert loss_of_pairs(chosen, rejected).item() == pytest.approx((LN2 + math.log(4 / 3)) / 2)


def test_pairwise_loss_is_finite_for_extreme_scores():
    big = torch.tensor([1e30, -1e30, 88.0, 200.0], requires_grad=True)
    loss = loss_of_pairs(big, -big)
    loss.backward()
    assert loss.isfinite() and big.grad is not None and big.grad.isfinite().all()
    assert loss_of_pairs(torch.tensor([200.0]), torch.tensor([-200.0])).item() == 0.0
    assert loss_of_pairs(torch.tensor([-200.0]), torch.tensor([200.0])).item() == 400.0


SCORES = torch.tensor([[0.0, math.log(3), -math.log(2)], [5.0, 5.0, math.nan], [1.0, 2.0, 3.0]])
RANKS = torch.tensor([[2, 1, 2], [1, 2, 0], [1, 1, 1]])
PRESENT = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])


def test_kway_loss_by_hand():
    # Prompt 0: summary 1 beats 0 by ln 3 (ln 4/3) and 2 by ln 6 (ln 7/6); 0 and 2 tie.
    # Prompt 1: difference 0, ln 2; its third summary is absent. Prompt 2: all tied, no pair.
    first = (math.log(4 / 3) + math.log(7 / 6)) / 2
    assert kway_loss(SCORES, RANKS, PRESENT).item() == pytest.approx((first + LN2) / 2)
    assert kway_loss(SCORES, RANKS, PRESENT, count=4).item() == pytest.approx((first + LN2) / 4)


def test_trap_ties_dropped():
    pairs = ordered_pairs(RANKS, PRESENT)
    assert pairs.nonzero().tolist() == [[0, 1, 0], [0, 1, 2], [1, 0, 1]]
    scores = SCORES.nan_to_num(0.0).requires_grad_()
    kway_loss(scores, RANKS, PRESENT).backward()
    assert scores.grad is not None
    assert scores.grad[2].tolist() == [0.0, 0.0, 0.0]
    assert scores.grad[1, 2] == 0.0
    assert kway_loss(SCORES[2:], RANKS[2:], PRESENT[2:], count=5).item() == 0.0
    assert kway_loss(SCORES[2:], RANKS[2:], PRESENT[2:]).isnan()


def test_trap_a_prompt_is_one_batch_element():
    # 36 pairs with loss a, and 1 pair with loss b: (a + b) / 2, not (36 a + b) / 37.
    scores = torch.zeros(2, 9)
    scores[1, 0] = 3.0
    ranks = torch.stack([torch.arange(1, 10), torch.arange(1, 10)])
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 2:] = False
    beaten = math.log(1 + math.exp(-3))
    assert kway_loss(scores, ranks, mask).item() == pytest.approx((LN2 + beaten) / 2)


def nested_loops(scores, ranks, mask):
    """InstructGPT 3.5, written out."""
    prompts = []
    for row, rank, there in zip(scores, ranks, mask, strict=True):
        losses = []
        for i, j in combinations([k for k, real in enumerate(there) if real], 2):
            if rank[i] == rank[j]:
                continue
            winner, loser = (i, j) if rank[i] < rank[j] else (j, i)
            losses.append(math.log(1 + math.exp(row[loser] - row[winner])))
        if losses:
            prompts.append(sum(losses) / len(losses))
    return sum(prompts) / len(prompts) if prompts else None


def rankings(seed, prompts=4, k=6):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(prompts, k, generator=generator, dtype=torch.float64) * 3
    ranks = torch.randint(1, k, (prompts, k), generator=generator)
    mask = torch.rand(prompts, k, generator=generator) < 0.75
    return scores, ranks, mask


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_kway_loss_equals_nested_loops(seed):
    scores, ranks, mask = rankings(seed)
    expected = nested_loops(scores.tolist(), ranks.tolist(), mask.tolist())
    loss = kway_loss(scores.masked_fill(~mask, math.nan), ranks, mask)
    assert loss.isnan() if expected is None else loss.item() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_kway_loss_with_two_summaries_is_the_pairwise_loss(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(8, 2, generator=generator)
    first_wins = torch.rand(8, generator=generator) < 0.5
    ranks = torch.where(first_wins[:, None], torch.tensor([1, 2]), torch.tensor([2, 1]))
    chosen = torch.where(first_wins, scores[:, 0], scores[:, 1])
    rejected = torch.where(first_wins, scores[:, 1], scores[:, 0])
    both = torch.ones(8, 2, dtype=torch.bool)
    bradley_terry = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    torch.testing.assert_close(kway_loss(scores, ranks, both), bradley_terry)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(6)))
def test_the_order_of_summaries_and_absent_slots_do_not_matter(seed, order):
    scores, ranks, mask = rankings(seed)
    mask[0, :2] = True
    ranks[0, :2] = torch.tensor([1, 2])
    loss = kway_loss(scores, ranks, mask)
    torch.testing.assert_close(kway_loss(scores[:, order], ranks[:, order], mask[:, order]), loss)
    pad = torch.nn.functional.pad
    padded = kway_loss(pad(scores, (0, 3), value=math.inf), pad(ranks, (0, 3)), pad(mask, (0, 3)))
    torch.testing.assert_close(padded, loss)


def test_kway_micro_batches_with_the_whole_count_add_up(ragged):
    scores, ranks, mask = rankings(9)
    prompts = ordered_pairs(ranks, mask).any((1, 2)).sum()
    parts = [kway_loss(scores[i : i + 1], ranks[i : i + 1], mask[i : i + 1], count=prompts) for i in range(4)]
    torch.testing.assert_close(sum(parts), kway_loss(scores, ranks, mask))


def test_kway_loss_is_finite_with_finite_gradients_for_extreme_scores():
    scores = torch.tensor([[1e30, -1e30, 0.0, math.nan]]).requires_grad_()
    loss = kway_loss(scores, torch.tensor([[3, 1, 2, 1]]), torch.tensor([[True, True, True, False]]))
    loss.backward()
    assert loss.isfinite()
    assert scores.grad is not None and scores.grad.isfinite().all() and scores.grad[0, 3] == 0


def test_gradients_of_the_losses_by_finite_differences(ragged):
    scores, ranks, mask = rankings(4)
    assert gradcheck(lambda s: kway_loss(s, ranks, mask), scores.requires_grad_())
    chosen, rejected = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(loss_of_pairs, (chosen, rejected))
    mask, (logprobs, weights) = ragged(7, 2, dtype=torch.float64)
    logprobs = logprobs.nan_to_num(0.0).requires_grad_()
    assert gradcheck(lambda x: response_loss(x, mask), logprobs)
    assert gradcheck(lambda x: response_loss(x, mask, weights=weights.abs()), logprobs)


def test_accuracy_by_hand():
    # Prompt 0: ln 3 beats 0 and -ln 2: 2 of 2. Prompt 1: equal scores, half of 1. Prompt 2: no pair.
    correct, pairs = pair_accuracy(SCORES, RANKS, PRESENT)
    assert correct.tolist() == [2.0, 0.5, 0.0]
    assert pairs.tolist() == [2, 1, 0]
    correct, _ = pair_accuracy(-SCORES, RANKS, PRESENT)
    assert correct.tolist() == [0.0, 0.5, 0.0]


def test_unequal_shapes_are_refused():
    with pytest.raises(UsageError, match="ranks: shape"):
        kway_loss(torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(UsageError, match="weights: shape"):
        response_loss(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), weights=torch.ones(3))
