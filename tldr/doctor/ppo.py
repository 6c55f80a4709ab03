"""Checks of PPO: first ratio, KL and its estimators, clipping, value network, entropy, score."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from statistics import fmean, stdev

from tldr.doctor.findings import Observation, check
from tldr.doctor.folders import Examined
from tldr.doctor.limits import (
    CLIPPED,
    ENTROPY_LEFT,
    EOS_RATE,
    FEWEST_UPDATES,
    FIRST_KL,
    FIRST_RATIO,
    KL_AGAIN,
    KL_SIGMAS,
    LENGTH_AT_CAP,
    SAMPLER_GAP,
    SCORE_FELL,
    VALUE_WORSE,
    WEIGHT,
)
from tldr.doctor.training import ends
from tldr.records import Sample, iter_records

QUARTERS = 4


def _column(run: Examined, name: str) -> list[float]:
    return [row[name] for row in run.metrics if name in row]


@check(
    "ppo",
    why="Rollout and update compute different log-probabilities, so the clipped loss follows their "
    "difference, not the reward.",
    remedy="Turn dropout off, use the sampling temperature in rollout, reference and update, and "
    "compute all log-probabilities with the same forward pass.",
)
def first_ratio(run: Examined) -> Iterator[Observation]:
    """On the first minibatch of a rollout the ratio is 1 and the KL from the sampling policy is 0."""
    worst = max((abs(ratio - 1) for ratio in _column(run, "first_ratio")), default=0.0)
    if severity := FIRST_RATIO.above(worst):
        yield Observation(run, severity, f"the first ratio is off by {worst:.2g}", "1")
        return
    kl = max(_column(run, "first_approx_kl"), default=0.0)
    if severity := FIRST_KL.above(kl):
        yield Observation(run, severity, f"approx_kl on the first minibatch is {kl:.2g}", "0")


@check(
    "ppo",
    why="The sampler and the trained policy differ: the episodes are off-policy, and the logged KL is wrong.",
    remedy="Update the sampler's weights every iteration and sample at the same temperature; "
    "if only its precision is lower, use a more precise number format.",
)
def sampler_gap(run: Examined) -> Iterator[Observation]:
    """The sampler's log-probabilities equal those of the update's forward pass."""
    worst = max(_column(run, "sampler_gap"), default=0.0)
    if severity := SAMPLER_GAP.above(worst):
        seen = f"sampler and policy differ by {worst:.2g} nats per token"
        yield Observation(run, severity, seen, f"below {SAMPLER_GAP.warning:g}")


@check(
    "ppo",
    why="A KL divergence is never negative: the policy is rewarded for leaving SFT, or the log-probabilities "
    "are not of the distribution that the episodes were sampled from.",
    remedy="The penalty is -beta (log pi - log pi_SFT). Sample without top-k, top-p or a minimum length, and "
    "exclude padding from the sums.",
)
def kl_sign(run: Examined) -> Iterator[Observation]:
    """The logged KL is not below 0 by more than the sampling error of its mean."""
    batch = run.settings.get("batch")
    # The mean of k1 has variance 2 KL / n, so for any KL, z standard errors below it is at least this.
    least = -max(0.01, KL_SIGMAS**2 / (2 * batch)) if isinstance(batch, int) else -0.5
    below = [row for row in run.metrics if row.get("kl", 0.0) < least]
    if below:
        worst = min(row["kl"] for row in below)
        seen = f"the lowest KL is {worst:.3g} nats; it is below {least:.2g} in {len(below)} iterations"
        yield Observation(run, "fault", seen, "0 or more")


@cache
def rollouts(run: Examined) -> dict[int, list[Sample]]:
    """The kept episodes that have both log-probabilities, by iteration."""
    kept: dict[int, list[Sample]] = {}
    if (path := run.folder / "rollouts.jsonl").is_file():
        for row in iter_records(path, Sample):
            if row.logprob is not None and row.logprob_sft is not None:
                kept.setdefault(int(row.tags.get("iteration", 0)), []).append(row)
    return kept


def log_ratios(rows: list[Sample]) -> list[float]:
    """log pi - log pi_SFT of episodes sampled from pi, nats per response."""
    return [(row.logprob or 0.0) - (row.logprob_sft or 0.0) for row in rows]


@check(
    "ppo",
    why="The KL used for the penalty, the report and early stopping is not the policy's KL from SFT.",
    remedy="Sum both log-probabilities over the same real tokens, EOS included, at the rollout's "
    "temperature; see `tldr.mathematics.kl`.",
)
def kl_estimators(run: Examined) -> Iterator[Observation]:
    """The kept episodes reproduce the logged KL (k1), and k3 is consistent with it."""
    logged = {int(row["update"]): row["kl"] for row in run.metrics if "kl" in row}
    for iteration, rows in rollouts(run).items():
        ratios = log_ratios(rows)
        k1 = fmean(ratios)
        if iteration in logged and abs(k1 - logged[iteration]) > KL_AGAIN * max(1.0, abs(k1)):
            seen = f"{k1:.3g} nats in the episodes of iteration {iteration}, {logged[iteration]:.3g} logged"
            yield Observation(run, "fault", seen, "the same value")
            return
        weights = [math.exp(min(-ratio, 50.0)) for ratio in ratios]
        if len(weights) < 30:
            continue
        error = stdev(weights) / math.sqrt(len(weights))
        if fmean(weights) - KL_SIGMAS * error > WEIGHT:
            k3 = k1 + fmean(weights) - 1
            seen = (
                f"iteration {iteration}: k1 {k1:.3g}, k3 {k3:.3g} nats (4 standard errors: {4 * error:.2g})"
            )
            yield Observation(run, "fault", seen, "k3 not above k1")
            return


@check(
    "ppo",
    why="Most of the gradient is discarded, because the policy jumps to the edge of the clip range.",
    remedy="Lower the learning rate or `ppo.epochs`.",
)
def clip_share(run: Examined) -> Iterator[Observation]:
    """Few tokens are clipped."""
    shares = _column(run, "clip_fraction")
    share = fmean(shares) if shares else 0.0
    if severity := CLIPPED.above(share):
        yield Observation(run, severity, f"{share:.0%} of the tokens are clipped", "a few percent")


@check(
    "ppo",
    why="A value network that predicts worse than a constant adds noise to every advantage.",
    remedy="Initialise it from the reward model, give it its own learning rate (`ppo.value_lr`) or more "
    "iterations; check that returns and values belong to the same tokens.",
)
def value_network(run: Examined) -> Iterator[Observation]:
    """The value network's explained variance rises and ends above 0.

    It also falls if the variance of the returns shrinks, as when a policy narrows, even though the error
    falls: that is not a fault.
    """
    explained, errors = (
        [value for value in _column(run, name) if math.isfinite(value)]
        for name in ("explained_variance", "value_loss")
    )
    if len(explained) < FEWEST_UPDATES:
        return
    first, last = ends(explained, QUARTERS)
    seen = f"explained variance {first:.2f} in the first quarter, {last:.2f} in the last"
    before, after = ends(errors, QUARTERS) if len(errors) >= FEWEST_UPDATES else (0.0, 0.0)
    if last < VALUE_WORSE and last < first and not after < before:
        yield Observation(run, "fault", seen, "rising towards 1")
    elif last < 0:
        yield Observation(run, "note", seen, "above 0: better than a constant")


@check(
    "ppo",
    why="A policy without entropy no longer explores and writes the same summary for every post.",
    remedy="Raise `ppo.beta` or lower the learning rate.",
)
def entropy(run: Examined) -> Iterator[Observation]:
    """The entropy does not collapse."""
    values = _column(run, "entropy")
    if len(values) < 2 or values[0] <= 0:
        return
    left = values[-1] / values[0]
    if severity := ENTROPY_LEFT.below(left):
        seen = f"the entropy went from {values[0]:.3g} to {values[-1]:.3g} nats per token"
        yield Observation(run, severity, seen, "most of it kept")


@check(
    "ppo",
    why="The policy moves away from its reward: signs, advantages or the position of the "
    "score are wrong, or the steps are too large.",
    remedy="Check the first ratio and the KL; lower the learning rate; use larger batches.",
)
def score_falls(run: Examined) -> Iterator[Observation]:
    """The reward model's score of the episodes does not fall."""
    scores = _column(run, "score")
    size = len(scores) // QUARTERS
    if len(scores) < FEWEST_UPDATES:
        return
    first, last = ends(scores, QUARTERS)
    error = math.sqrt((stdev(scores[:size]) ** 2 + stdev(scores[-size:]) ** 2) / size)
    if last < first - max(SCORE_FELL * error, 0.01):
        seen = f"the score went from {first:.3g} to {last:.3g} (standard error {error:.2g})"
        yield Observation(run, "fault", seen, "a higher score")


@check(
    "ppo",
    why="An episode that does not end is cut mid-sentence and scored at a token where the reward model was "
    "not trained to score.",
    remedy="Check that SFT stops; then set `ppo.eos` (replace or subtract), or raise `ppo.beta`.",
)
def rollout_ends(run: Examined) -> Iterator[Observation]:
    """Episodes end with EOS before the end of the window."""
    rates, lengths = _column(run, "eos_rate"), _column(run, "length")
    if rates and (severity := EOS_RATE.below(rates[-1])):
        at_first = f"{rates[0]:.0%} of the first"
        yield Observation(
            run, severity, f"{rates[-1]:.0%} of the last iteration's episodes end, {at_first}", "nearly all"
        )
    elif lengths and (severity := LENGTH_AT_CAP.above(lengths[-1] / run.file.lengths.response)):
        seen = f"{lengths[-1]:.1f} tokens on average in a window of {run.file.lengths.response}"
        yield Observation(run, severity, seen, "shorter summaries")
