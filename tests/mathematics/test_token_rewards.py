"""Per-token rewards and the EOS rules."""

from __future__ import annotations

import math

import pytest
import torch

from tldr.errors import UsageError
from tldr.mathematics.kl import sequence_kl
from tldr.mathematics.rewards import apply_eos_rule, last_real_token, token_rewards

MASK = torch.tensor([[True, True, False, False], [True] * 4, [False] * 4])


def test_rewards_by_hand():
    # Row 0: KL terms 0.4 and -0.2 with beta 0.05 are -0.02 and +0.01; the score 2 joins the second.
    logprobs = torch.tensor([[-1.0, -1.2, math.nan, 9.0]])
    ref_logprobs = torch.tensor([[-1.4, -1.0, 9.0, math.nan]])
    rewards = token_rewards(torch.tensor([2.0]), logprobs, ref_logprobs, MASK[:1], beta=0.05)
    torch.testing.assert_close(rewards, torch.tensor([[-0.02, 2.01, 0.0, 0.0]]))


def test_trap_score_added_at_last_real_token():
    zeros = torch.zeros(3, 4)
    rewards = token_rewards(torch.tensor([7.0, 8.0, 9.0]), zeros, zeros, MASK, beta=0.05)
    # Row 0 ends (EOS) at 1: the score is there, not in slot 2 (N+, former TRL) nor in slot 3
    # (lm-human-preferences' [:, -1] on ragged rows). Row 2 is absent and gets nothing.
    assert rewards.tolist() == [[0, 7, 0, 0], [0, 0, 0, 8], [0, 0, 0, 0]]
    assert last_real_token(MASK).nonzero().tolist() == [[0, 1], [1, 3]]


def test_rewards_of_a_response_sum_to_score_minus_beta_kl(ragged):
    mask, (logprobs, ref_logprobs) = ragged(1, 2, shape=(2, 3, 9))
    scores = torch.randn(2, 3)
    rewards = token_rewards(scores, logprobs, ref_logprobs, mask, beta=0.3)
    expected = scores - 0.3 * sequence_kl(logprobs, ref_logprobs, mask)
    torch.testing.assert_close(rewards.sum(-1), expected)
    assert (rewards[~mask] == 0).all()


def test_appended_padding_changes_no_bit(ragged):
    mask, (logprobs, ref_logprobs) = ragged(2, 2)
    scores = torch.randn(5)
    rewards = token_rewards(scores, logprobs, ref_logprobs, mask, beta=0.05)
    wide = [torch.nn.functional.pad(x, (0, 4), value=math.inf) for x in (logprobs, ref_logprobs)]
    wide_mask = torch.nn.functional.pad(mask, (0, 4))
    padded = token_rewards(scores, *wide, wide_mask, beta=0.05)
    assert torch.equal(padded[:, :7], rewards)
    assert (padded[:, 7:] == 0).all()


def test_trap_eos_replace_is_not_subtract():
    scores, stopped = torch.tensor([3.0, 3.0, -4.0]), torch.tensor([True, False, False])
    assert apply_eos_rule(scores, stopped, missing="none", value=-1.0).tolist() == [3, 3, -4]
    # replace: the score is -1 (which *lifts* the bad one from -4); subtract: 3 - 1 and -4 - 1
    assert apply_eos_rule(scores, stopped, missing="replace", value=-1.0).tolist() == [3, -1, -1]
    assert apply_eos_rule(scores, stopped, missing="subtract", value=-1.0).tolist() == [3, 2, -5]
    assert apply_eos_rule(scores, stopped, missing="subtract", value=1.0).tolist() == [3, 2, -5]


def test_bad_input_is_refused():
    scores, zeros = torch.zeros(3), torch.zeros(3, 4)
    with pytest.raises(UsageError, match="unknown rule 'penalise'"):
        apply_eos_rule(scores, scores > 0, missing="penalise", value=-1.0)
    with pytest.raises(UsageError, match=r"stopped is torch\.float32"):
        apply_eos_rule(scores, scores, missing="none", value=-1.0)
    with pytest.raises(UsageError, match="scores: shape"):
        token_rewards(torch.zeros(3, 1), zeros, zeros, MASK, beta=0.05)
    with pytest.raises(UsageError, match="right-pad"):
        token_rewards(scores, zeros, zeros, MASK.flip(-1), beta=0.05)
