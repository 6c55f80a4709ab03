"""Checks of samples: do policies stop, repeat themselves or ignore the post; is the reward over-optimised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean, pstdev, stdev

from tldr.doctor.findings import Observation, check
from tldr.doctor.folders import Examined
from tldr.doctor.limits import CONFIDENCE, DISTINCT, EOS_RATE, GOLD_DROP, LENGTH_AT_CAP, REPEATS
from tldr.records import Sample, iter_records

SamplingParameters = tuple[float, float]
"""Temperature and top_p."""


@dataclass
class SampleStatistics:
    """Statistics of a policy's samples drawn in one way; `scores` is {scorer: {post: value}}."""

    count: int = 0
    stopped: int = 0
    tokens: int = 0
    repeats: float = 0.0
    texts: set[str] = field(default_factory=set)
    posts: set[str] = field(default_factory=set)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, row: Sample) -> None:
        """Add a sample."""
        words: list[int] | list[str] = row.response_ids or row.text.split()
        self.count += 1
        self.stopped += row.stopped is not False
        self.tokens += row.tokens if row.tokens is not None else len(words)
        self.repeats += repeated(words)
        self.texts.add(row.text.strip())
        self.posts.add(row.id)
        for name in ("rm", "rm_reference", "gold"):
            if name in row.scores:
                self.scores.setdefault(name, {})[row.id] = row.scores[name]


def repeated(words: list[int] | list[str], n: int = 3) -> float:
    """Fraction of repeated n-grams; 0 for texts too short to have two."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@cache
def sample_statistics(run: Examined) -> dict[SamplingParameters, SampleStatistics]:
    """Statistics of a run's samples, by the way they were drawn."""
    ways: dict[SamplingParameters, SampleStatistics] = {}
    if (path := run.folder / "samples.jsonl").is_file():
        for row in iter_records(path, Sample):
            ways.setdefault((row.temperature, row.top_p), SampleStatistics()).add(row)
    return ways


def _sampled(run: Examined) -> Iterator[tuple[Examined, str, SampleStatistics]]:
    """The fine-tuned policy that a run sampled, how it sampled, and statistics of the samples.

    Unscored samples are skipped if a score run was made from them.
    """
    policy = run.parents.get("policy")
    scored = run.stage == "sample" and any(
        run in other.parents.values() for other in run.examination.runs if other.stage == "score"
    )
    if (
        policy is None
        or scored
        or policy.stage not in ("sft", "epoch", "ppo")
        or run.file.tags.get("method") not in ("sft", "ppo")
    ):
        return
    for (temperature, top_p), stats in sample_statistics(run).items():
        yield policy, f"at temperature {temperature:g}" + (f", top_p {top_p:g}" if top_p < 1 else ""), stats


@check(
    "sample",
    "score",
    why="A policy that does not stop was trained without EOS, or with EOS masked as padding; its "
    "summaries are cut mid-sentence.",
    remedy="Check that the response's EOS is in the loss and that pad is not EOS.",
)
def eos_rate(run: Examined) -> Iterator[Observation]:
    """Summaries end with EOS, as the references do."""
    for policy, how, stats in _sampled(run):
        if severity := EOS_RATE.below(stats.stopped / stats.count):
            seen = (
                f"{stats.stopped / stats.count:.0%} of {stats.count} samples end with EOS {how} ({run.name})"
            )
            yield Observation(policy, severity, seen, "nearly all")
            return


@check(
    "sample",
    "score",
    why="Summaries fill the window: the policy has learnt length, or the window is too small.",
    remedy="Check the reward model's correlation with length, and compare at equal length.",
)
def length_at_cap(run: Examined) -> Iterator[Observation]:
    """Summaries are shorter than the window."""
    cap = run.file.lengths.response
    for policy, how, stats in _sampled(run):
        mean = stats.tokens / stats.count
        if not EOS_RATE.below(stats.stopped / stats.count) and (severity := LENGTH_AT_CAP.above(mean / cap)):
            yield Observation(
                policy, severity, f"{mean:.1f} tokens {how}, window {cap} ({run.name})", "shorter"
            )
            return


@check(
    "sample",
    "score",
    why="A policy that repeats itself no longer writes natural text; only its reward model prefers it.",
    remedy="PPO: raise `ppo.beta` or stop earlier. SFT: train longer; check the loss against `ngram_floor`.",
)
def repeats(run: Examined) -> Iterator[Observation]:
    """Summaries do not repeat the same trigrams."""
    for policy, how, stats in _sampled(run):
        if severity := REPEATS.above(stats.repeats / stats.count):
            seen = f"{stats.repeats / stats.count:.0%} of the trigrams are repetitions {how} ({run.name})"
            yield Observation(policy, severity, seen, "a few percent")
            return


@check(
    "sample",
    "score",
    why="A policy that writes the same for every post does not read it: the query is cut, masked or "
    "misplaced, or the policy has collapsed.",
    remedy="Check padding side, positions, and that the query ends with `TL;DR:`; PPO: raise `ppo.beta`.",
)
def same_text(run: Examined) -> Iterator[Observation]:
    """Different posts get different summaries."""
    for policy, how, stats in _sampled(run):
        if severity := DISTINCT.below(len(stats.texts) / len(stats.posts)):
            seen = f"{len(stats.texts)} different texts for {len(stats.posts)} posts {how} ({run.name})"
            yield Observation(policy, severity, seen, "one per post")
            return


@check(
    "score",
    why="The reward model is optimised past the point where it represents human preferences (P 4.3): the "
    "proxy rises while the true preference falls.",
    remedy="Report it with the result. To avoid it, raise `ppo.beta`, stop earlier, or give the reward model "
    "more and fresher labels.",
)
def overoptimised(run: Examined) -> Iterator[Observation]:
    """Compared with SFT, the policy's reward does not rise while its gold score falls."""
    policy, sft = run.parents.get("policy"), _sft_scores(run)
    if policy is None or policy.stage != "ppo" or sft is None:
        return
    for way, stats in sample_statistics(run).items():
        other = sample_statistics(sft).get(way)
        if other is None or not {"rm", "gold"} <= stats.scores.keys() & other.scores.keys():
            continue
        rm, gold = (_change(other.scores[name], stats.scores[name]) for name in ("rm", "gold"))
        if rm is None or gold is None or rm[0] - rm[1] <= 0 or gold[0] + gold[1] >= 0:
            continue
        spread = pstdev(other.scores["gold"].values())
        deep = -gold[0] > GOLD_DROP * spread and policy.settings.get("beta") != 0
        figures = [f"{name} {by:+.2f} +- {half:.2f}" for name, (by, half) in (("reward", rm), ("gold", gold))]
        seen = f"{', '.join(figures)} against SFT at temperature {way[0]:g}"
        yield Observation(policy, "warning" if deep else "note", seen, "both rising")
        return


def _sft_scores(run: Examined) -> Examined | None:
    """The SFT policy's samples, scored by the same reward model."""
    for other in run.examination.all:
        same = other.stage == "score" and other.file.tags.get("dataset") == run.file.tags.get("dataset")
        if (
            same
            and other.parents.get("reward") is run.parents.get("reward") is not None
            and (other.parents.get("policy") is run.parents.get("sft") is not None)
        ):
            return other
    return None


def _change(before: dict[str, float], after: dict[str, float]) -> tuple[float, float] | None:
    """Mean difference over the common posts, and half the width of its interval."""
    from scipy.stats import norm

    pairs = [after[post] - before[post] for post in after.keys() & before.keys()]
    if len(pairs) < 30:
        return None
    return fmean(pairs), float(norm.ppf((1 + CONFIDENCE) / 2)) * stdev(pairs) / math.sqrt(len(pairs))
