"""How PPO's batch is split: over iterations, processes, minibatches and forward passes.

Whether it can be split depends on the settings and the numbers of queries and processes alone, so it is known
before a network is loaded.
"""

from __future__ import annotations

from tldr.errors import UsageError
from tldr.settings.base import scalar
from tldr.stages.ppo.settings import PPOSettings
from tldr.train.batching import BatchPlan, micro_batches


def rollout_plan(settings: PPOSettings, queries: int, processes: int, seed: int) -> BatchPlan:
    """Which queries each iteration asks.

    Args:
        queries: how many there are.
        seed: of PPO.

    Raises:
        UsageError: fewer queries than a rollout needs, processes that cannot share it, several of them with
            vLLM, or fewer pretraining texts than forward passes.
    """
    batch = scalar(settings.batch)
    asked, parts = batch // settings.samples_per_query, settings.minibatches
    if asked % processes or asked // parts < processes:
        raise UsageError(
            f"{processes} processes cannot share {asked} queries in {parts} minibatches",
            where="ppo.batch",
            remedy="make the queries a multiple of the processes, and each minibatch no smaller",
        )
    if settings.sampler == "vllm" and processes > 1:
        raise UsageError(
            f"vLLM samples in one process, not in {processes}",
            where="ppo.sampler",
            remedy="take `own`, which several processes share, or one process",
        )
    _check_texts(settings, asked // parts, processes)
    updates = max(1, scalar(settings.episodes) // batch)
    return BatchPlan([0] * queries, asked, seed, updates=updates, keep_last=False)


def _check_texts(settings: PPOSettings, queries: int, processes: int) -> None:
    """Refuse a minibatch of `queries` whose pretraining texts are fewer than its forward passes."""
    if not settings.ptx_coef:
        return
    size = queries_a_pass(settings, processes)
    passes = processes * len(micro_batches(range(queries), size, processes=processes))
    texts = ptx_texts(settings, queries * settings.samples_per_query)
    if texts < passes:
        raise UsageError(
            f"{texts} pretraining texts a minibatch for {passes} forward passes",
            where="ppo.ptx_ratio",
            remedy="raise it, or micro_batch",
        )


def queries_a_pass(settings: PPOSettings, processes: int) -> int:
    """Queries in one forward pass: the setting, or a process's whole share of a minibatch."""
    queries = scalar(settings.batch) // settings.samples_per_query // settings.minibatches
    share = max(1, queries // processes)
    return share if settings.micro_batch is None else min(scalar(settings.micro_batch), share)


def ptx_texts(settings: PPOSettings, episodes: int) -> int:
    """Pretraining texts beside a minibatch of `episodes`."""
    return max(1, round(episodes * settings.ptx_ratio))
