"""Expected gold score of best-of-n for every n, estimated from one pool of samples per post."""

from __future__ import annotations

import torch
from torch import Tensor

from tldr.errors import UsageError


def best_of_n_weights(pool: int) -> Tensor:
    """Probability that the sample of proxy rank i (1 = lowest) is the best of n drawn from the pool.

    It is C(i - 1, n - 1) / C(N, n): the other n - 1 must come from the i - 1 samples ranked below it
    (Nakano et al. 2021, App. I).

    Args:
        pool: N, the number of samples per post.

    Returns:
        float64 (N, N), [n - 1, i - 1]; each row sums to 1.
    """
    rank = torch.arange(1, pool + 1, dtype=torch.float64)
    n = rank[:, None]

    def log_binomial(top: Tensor, bottom: Tensor) -> Tensor:
        return torch.lgamma(top + 1) - torch.lgamma(bottom + 1) - torch.lgamma(top - bottom + 1)

    possible = rank >= n
    log_weights = log_binomial(rank - 1, (n - 1).minimum(rank - 1)) - log_binomial(rank[-1], n)
    return log_weights.exp().masked_fill(~possible, 0.0)


def best_of_n_gold(proxy: Tensor, gold: Tensor) -> Tensor:
    """Unbiased estimate of the gold score of the sample with the best proxy score among n, for all n.

    This is the average over all C(N, n) subsets of the pool. Samples with equal proxy scores are
    equally likely to be picked.

    Args:
        proxy: float (..., N), the score that selects.
        gold: float (..., N), the score that is reported.

    Returns:
        float64 (..., N): index n - 1 holds the expected gold score of best-of-n; n = 1: the pool's mean.

    Raises:
        UsageError: shapes differ, the pool is empty, or a score is NaN or infinite.
    """
    if proxy.shape != gold.shape or proxy.dim() == 0 or proxy.shape[-1] == 0:
        raise UsageError(
            f"proxy scores {tuple(proxy.shape)}, gold scores {tuple(gold.shape)}",
            where="best_of_n_gold",
            remedy="pass both scores of every sample, (..., N) with N >= 1",
        )
    if not (proxy.isfinite().all() and gold.isfinite().all()):
        raise UsageError(
            "a score is NaN or infinite", where="best_of_n_gold", remedy="score every sample of the pool"
        )
    order = proxy.argsort(-1)
    return _share_ties(proxy.gather(-1, order), gold.double().gather(-1, order)) @ best_of_n_weights(
        proxy.shape[-1]
    ).T.to(proxy.device)


def _share_ties(proxy: Tensor, gold: Tensor) -> Tensor:
    """Replace the gold scores of samples with equal (sorted) proxy scores by their mean.

    If ties are ordered at random, this is the expected gold score at each of their ranks.
    """
    starts = torch.zeros_like(proxy, dtype=torch.int64)
    starts[..., 1:] = proxy[..., 1:] != proxy[..., :-1]
    run = starts.cumsum(-1)
    sums = torch.zeros_like(gold).scatter_add(-1, run, gold)
    sizes = torch.zeros_like(gold).scatter_add(-1, run, torch.ones_like(gold))
    return (sums / sizes.clamp(min=1)).gather(-1, run)
