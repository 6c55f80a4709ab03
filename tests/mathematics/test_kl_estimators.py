"""KL estimators and the adaptive coefficient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tldr.errors import NonFiniteError, UsageError
from tldr.mathematics.kl import adaptive_beta, sequence_kl, token_kl

ESTIMATORS = ("k1", "k2", "k3")


def test_token_kl_by_hand():
    # probabilities 1/2 against 1/4: d = ln 2 = 0.693147
    # k1 = d; k2 = d^2 / 2 = 0.240227; k3 = 1/2 - 1 + d = 0.193147
    logprobs, ref = torch.tensor([[math.log(0.5), 3.0]]), torch.tensor([[math.log(0.25), math.nan]])
    mask = torch.tensor([[True, False]])
    for estimator, expected in zip(ESTIMATORS, (0.693147, 0.240227, 0.193147), strict=True):
        kl = token_kl(logprobs, ref, mask, estimator=estimator)
        torch.testing.assert_close(kl, torch.tensor([[expected, 0.0]]), atol=1e-6, rtol=0)


def test_sequence_kl_sums_the_real_tokens_of_each_response():
    # differences 0.5 - 0.25 = 0.25 and 0.5, then pads; an absent response has KL 0
    logprobs = torch.tensor([[[-0.5, -1.0, 7.0], [-2.0, 7.0, 7.0], [7.0, 7.0, 7.0]]])
    ref = torch.tensor([[[-1.0, -0.75, 0.0], [-2.5, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    mask = torch.tensor([[[True, True, False], [True, False, False], [False] * 3]])
    assert sequence_kl(logprobs, ref, mask).tolist() == [[0.25, 0.5, 0.0]]
    # k2: (0.5^2 + 0.25^2) / 2 = 0.15625, 0.5^2 / 2 = 0.125
    assert sequence_kl(logprobs, ref, mask, estimator="k2").tolist() == [[0.15625, 0.125, 0.0]]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_k1_and_k3_are_unbiased_over_every_outcome_and_k3_is_never_negative(seed):
    generator = torch.Generator().manual_seed(seed)
    logp, logq = (
        torch.randn(1, 6, dtype=torch.float64, generator=generator).log_softmax(-1) for _ in range(2)
    )
    mask = torch.ones(1, 6, dtype=torch.bool)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logp), torch.distributions.Categorical(logits=logq)
    )
    for estimator in ("k1", "k3"):
        estimate = (logp.exp() * token_kl(logp, logq, mask, estimator=estimator)).sum(-1)
        torch.testing.assert_close(estimate, exact)
    assert (token_kl(logp, logq, mask, estimator="k3") >= 0).all()


def test_k3_keeps_its_digits_near_zero():
    # d = 1e-4: k3 = d^2 / 2 - d^3 / 6 = 5.0e-9, where exp(-d) - 1 + d in float32 is off by up to 6e-8
    one = torch.ones(1, 1, dtype=torch.bool)
    kl = token_kl(torch.tensor([[1e-4]]), torch.zeros(1, 1), one, estimator="k3")
    assert kl.item() == pytest.approx(5e-9, rel=0.01)


def test_unknown_estimator_is_refused():
    with pytest.raises(UsageError, match="unknown estimator 'k4'"):
        token_kl(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), estimator="k4")


def test_adaptive_beta_by_hand():
    # kl 9, target 6: error 0.5 clipped to 0.2; 0.1 (1 + 0.2 * 512 / 10000) = 0.101024
    step = {"target": 6.0, "horizon": 10_000, "episodes": 512}
    assert adaptive_beta(0.1, 9.0, **step) == pytest.approx(0.101024)
    # kl 5.4: error -0.1; 0.1 (1 - 0.00512); kl -3 is clipped to -0.2; on target nothing changes
    assert adaptive_beta(0.1, 5.4, **step) == pytest.approx(0.099488)
    assert adaptive_beta(0.1, -3.0, **step) == pytest.approx(0.098976)
    assert adaptive_beta(0.1, 6.0, **step) == 0.1


def test_adaptive_beta_refuses_what_would_break_it():
    with pytest.raises(NonFiniteError, match="measured KL is nan"):
        adaptive_beta(0.1, math.nan, target=6.0, horizon=10_000, episodes=512)
    with pytest.raises(UsageError, match="too short for 512 episodes"):
        adaptive_beta(0.1, 6.0, target=6.0, horizon=100, episodes=512)
