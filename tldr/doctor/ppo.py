"""PPO: the first ratio, the KL and its estimators, clipping, the value network, entropy, the score."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from statistics import fmean, stdev

from tldr.doctor.findings import Sight, check
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
    why="The log-probabilities of the rollout are not those of the update: the clipped loss then follows "
    "the difference, not the reward.",
    remedy="Turn dropout off, use the sampling temperature in rollout, reference and update alike, and "
    "compute all log-probabilities by one forward pass.",
)
def first_ratio(run: Examined) -> Iterator[Sight]:
    """On the first minibatch of a rollout the ratio is 1 and the KL to the rollout's policy 0."""
    worst = max((abs(ratio - 1) for ratio in _column(run, "first_ratio")), default=0.0)
    if severity := FIRST_RATIO.above(worst):
        yield Sight(run, severity, f"the first ratio is off by {worst:.2g}", "1")
        return
    kl = max(_column(run, "first_approx_kl"), default=0.0)
    if severity := FIRST_KL.above(kl):
        yield Sight(run, severity, f"approx_kl of the first minibatch is {kl:.2g}", "0")


@check(
    "ppo",
    why="What samples is not the policy that learns: the episodes are off-policy, and the KL is not of them.",
    remedy="Bring the sampler's weights up to date every iteration and have it draw at the same temperature; "
    "if it only computes less exactly, take a finer number format.",
)
def sampler_gap(run: Examined) -> Iterator[Sight]:
    """The sampler drew with the log-probabilities that the update's forward pass gives."""
    worst = max(_column(run, "sampler_gap"), default=0.0)
    if severity := SAMPLER_GAP.above(worst):
        seen = f"sampler and policy are {worst:.2g} nats a token apart"
        yield Sight(run, severity, seen, f"below {SAMPLER_GAP.warning:g}")


@check(
    "ppo",
    why="A divergence is never negative: the policy is rewarded for leaving SFT, or the episodes were not "
    "drawn from the distribution whose log-probabilities are taken.",
    remedy="The penalty is -beta (log pi - log pi_SFT). Sample without top-k, top-p or a least length, and "
    "leave padding out of the sums.",
)
def kl_sign(run: Examined) -> Iterator[Sight]:
    """The logged KL is not below 0 by more than an average over the episodes may be."""
    batch = run.settings.get("batch")
    # k1 has a variance of about 2 KL / n, so whatever the KL, z deviations below it is no less than this
    least = -max(0.01, KL_SIGMAS**2 / (2 * batch)) if isinstance(batch, int) else -0.5
    below = [row for row in run.metrics if row.get("kl", 0.0) < least]
    if below:
        worst = min(row["kl"] for row in below)
        seen = f"the KL is {worst:.3g} nats at worst, below {least:.2g} in {len(below)} iterations"
        yield Sight(run, "fault", seen, "0 or more")


@cache
def rollouts(run: Examined) -> dict[int, list[Sample]]:
    """The kept episodes by iteration, those with both log-probabilities."""
    kept: dict[int, list[Sample]] = {}
    if (path := run.folder / "rollouts.jsonl").is_file():
        for row in iter_records(path, Sample):
            if row.logprob is not None and row.logprob_sft is not None:
                kept.setdefault(int(row.tags.get("iteration", 0)), []).append(row)
    return kept


def log_ratios(rows: list[Sample]) -> list[float]:
    """log pi - log pi_SFT of episodes drawn from pi, nats a response."""
    return [(row.logprob or 0.0) - (row.logprob_sft or 0.0) for row in rows]


@check(
    "ppo",
    why="The KL that is penalised, reported and stopped at is not the policy's distance from SFT.",
    remedy="Sum both log-probabilities over the same real tokens, EOS included, at the temperature of the "
    "rollout; see `tldr.mathematics.kl`.",
)
def kl_estimators(run: Examined) -> Iterator[Sight]:
    """The kept episodes give the logged KL again (k1), and k3 does not contradict it."""
    logged = {int(row["update"]): row["kl"] for row in run.metrics if "kl" in row}
    for iteration, rows in rollouts(run).items():
        ratios = log_ratios(rows)
        k1 = fmean(ratios)
        if iteration in logged and abs(k1 - logged[iteration]) > KL_AGAIN * max(1.0, abs(k1)):
            seen = (
                f"{k1:.3g} nats by the episodes of iteration {iteration}, {logged[iteration]:.3g} in the log"
            )
            yield Sight(run, "fault", seen, "the same")
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
            yield Sight(run, "fault", seen, "k3 not above k1")
            return


@check(
    "ppo",
    why="Most of the update is thrown away, so the policy jumps to the edge of what is allowed.",
    remedy="Lower the learning rate, or `ppo.epochs`.",
)
def clip_share(run: Examined) -> Iterator[Sight]:
    """Few tokens are clipped."""
    shares = _column(run, "clip_fraction")
    share = fmean(shares) if shares else 0.0
    if severity := CLIPPED.above(share):
        yield Sight(run, severity, f"{share:.0%} of the tokens are clipped", "a few in a hundred")


@check(
    "ppo",
    why="A value network that predicts worse than a constant adds noise to every advantage.",
    remedy="Start it from the reward model, give it a learning rate of its own (`ppo.value_lr`) or more "
    "iterations; see that returns and values are of the same tokens.",
)
def value_network(run: Examined) -> Iterator[Sight]:
    """The value network's explained variance rises, and is above 0 at the end.

    It also falls where returns come to differ less, as they do when a policy narrows, though the error falls
    too: that is no fault.
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
        yield Sight(run, "fault", seen, "rising towards 1")
    elif last < 0:
        yield Sight(run, "note", seen, "above 0: better than a constant")


@check(
    "ppo",
    why="A policy without entropy explores nothing more and writes one summary for everything.",
    remedy="Raise `ppo.beta` or lower the learning rate.",
)
def entropy(run: Examined) -> Iterator[Sight]:
    """The entropy does not collapse."""
    values = _column(run, "entropy")
    if len(values) < 2 or values[0] <= 0:
        return
    left = values[-1] / values[0]
    if severity := ENTROPY_LEFT.below(left):
        seen = f"the entropy went from {values[0]:.3g} to {values[-1]:.3g} nats a token"
        yield Sight(run, severity, seen, "most of it left")


@check(
    "ppo",
    why="The policy is optimised away from what it is rewarded for: signs, advantages or the place of the "
    "score are wrong, or the steps are too large.",
    remedy="See the first ratio and the KL; lower the learning rate; take larger batches.",
)
def score_falls(run: Examined) -> Iterator[Sight]:
    """The reward model's score of the episodes does not fall."""
    scores = _column(run, "score")
    size = len(scores) // QUARTERS
    if len(scores) < FEWEST_UPDATES:
        return
    first, last = ends(scores, QUARTERS)
    error = math.sqrt((stdev(scores[:size]) ** 2 + stdev(scores[-size:]) ** 2) / size)
    if last < first - max(SCORE_FELL * error, 0.01):
        seen = f"the score went from {first:.3g} to {last:.3g} (standard error {error:.2g})"
        yield Sight(run, "fault", seen, "a higher score")


@check(
    "ppo",
    why="What does not end is cut in mid-sentence and scored at a token at which the reward model has never "
    "read a score.",
    remedy="See that SFT stops; then `ppo.eos` (replace or subtract), or a larger `ppo.beta`.",
)
def rollout_ends(run: Examined) -> Iterator[Sight]:
    """Episodes end with EOS, before the window does."""
    rates, lengths = _column(run, "eos_rate"), _column(run, "length")
    if rates and (severity := EOS_RATE.below(rates[-1])):
        at_first = f"{rates[0]:.0%} of the first iteration's"
        yield Sight(run, severity, f"{rates[-1]:.0%} of the last episodes end, {at_first}", "nearly all")
    elif lengths and (severity := LENGTH_AT_CAP.above(lengths[-1] / run.file.lengths.response)):
        seen = f"{lengths[-1]:.1f} tokens on average in a window of {run.file.lengths.response}"
        yield Sight(run, severity, seen, "shorter summaries")
