"""Checks of reward models: better than chance and than length, scores independent of length, the shift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, pstdev

from scipy.stats import spearmanr

from tldr.doctor.data import label_files, rankings
from tldr.doctor.findings import Observation, check
from tldr.doctor.folders import Examined
from tldr.doctor.limits import (
    CONFIDENCE,
    LENGTH_CORRELATION,
    NEAR_CHANCE,
    RANDOM_INIT_ROWS,
    REFERENCE_MEAN,
    REFERENCE_MEAN_ELSEWHERE,
)
from tldr.doctor.samples import sample_statistics
from tldr.measures.wilson import wilson_interval
from tldr.records import Comparison, Ranking, Sample, iter_records


def interval(share: float, n: int) -> tuple[float, float]:
    """Wilson interval of a fraction of `n` independent answers."""
    return wilson_interval(round(share * n), n, CONFIDENCE)


def longer_wins(rows: Sequence[Ranking]) -> float:
    """Fraction of the labelers' pairs whose longer summary, in words, is preferred; ties count half."""
    pairs = [pair for row in rows for pair in row.comparisons()]
    words = [[len(summary.text.split()) for summary in pair.summaries] for pair in pairs]
    return fmean(
        0.5 if a == b else float((a > b) == (pair.choice == 0))
        for pair, (a, b) in zip(pairs, words, strict=True)
    )


@cache
def length_floor(folder: Path) -> tuple[float, int] | None:
    """Accuracy on valid1 of the rule "longer" or "shorter", whichever fits train; and valid1's posts."""
    train, valid = (label_files(folder, split) for split in ("train", "valid1"))
    if not train or not valid:
        return None
    held_out = rankings(valid[0])
    accuracy = longer_wins(held_out)
    posts = {row.info.id or row.info.post for row in held_out}
    return accuracy if longer_wins(rankings(train[0])) >= 0.5 else 1 - accuracy, len(posts)


def _labels(run: Examined) -> Path | None:
    """The folder with the label splits that a reward model was trained and validated on."""
    labels = next((run.parents[name] for name in sorted(run.parents) if name.startswith("labels")), None)
    fold = run.settings.get("fold")
    return None if labels is None else labels.folder if fold is None else labels.folder / f"fold-{fold}"


def _floor(run: Examined) -> tuple[float, int] | None:
    labels = _labels(run)
    return None if labels is None else length_floor(labels)


def _accuracy(run: Examined) -> tuple[float, float, float] | None:
    """Accuracy on valid1 with its interval; n is the number of posts, as a post's pairs are correlated."""
    found, floor = run.json("evaluation.json"), _floor(run)
    if "valid1_accuracy" not in found:
        return None
    n = floor[1] if floor else int(found["valid1_pairs"])
    return (found["valid1_accuracy"], *interval(found["valid1_accuracy"], n))


@check(
    "reward",
    why="A reward model that guesses gives PPO only noise to follow.",
    remedy="Check that labels are not swapped, and that it starts from SFT and reads its score at EOS; give "
    "it more labels or another learning rate.",
)
def chance(run: Examined) -> Iterator[Observation]:
    """The accuracy on valid1 is above one half, interval included."""
    if (found := _accuracy(run)) is None:
        return
    accuracy, low, high = found
    if low <= 0.5:
        seen = f"{accuracy:.3f} on valid1 [{low:.3f}, {high:.3f}]"
        yield Observation(run, "fault" if high < NEAR_CHANCE else "warning", seen, "above 0.5")


@check(
    "reward",
    why="A rule without any learning is as good: the model may have learnt only length.",
    remedy="Give it more labels or another learning rate; check its correlation with length in the report.",
)
def length_rule(run: Examined) -> Iterator[Observation]:
    """The accuracy on valid1 is not below that of always preferring the longer (or the shorter) summary."""
    floor, found = _floor(run), _accuracy(run)
    if floor is None or found is None:
        return
    accuracy, low, high = found
    if low <= floor[0] and high >= NEAR_CHANCE:  # otherwise `chance` reports it
        seen = f"{accuracy:.3f} on valid1 [{low:.3f}, {high:.3f}], the length rule {floor[0]:.3f}"
        yield Observation(run, "fault" if high < floor[0] else "warning", seen, "above the length rule")


@check(
    "reward",
    why="SFT with a random head orders the summaries as well: training taught nothing.",
    remedy="Check that the loss falls and gradients reach the body; check the labels and the learning rate.",
    models=True,
)
def random_init(run: Examined) -> Iterator[Observation]:
    """The accuracy on valid1 is above that before training, for either sign of the random head."""
    from tldr.models.reward import reward_from_policy
    from tldr.stages.reward.algorithm import accuracy, encode_rankings
    from tldr.stages.shared.device import Device
    from tldr.stages.shared.networks import checkpoint_folder, moved
    from tldr.stages.shared.summary_scorer import SummaryScorer
    from tldr.stages.shared.tokenizers import open_tokenizer, pad_id

    labels, found = _labels(run), _accuracy(run)
    if labels is None or found is None:
        return
    rows = [row for row in rankings(labels / "valid1.jsonl") if len(set(row.rank)) > 1][:RANDOM_INIT_ROWS]
    ctx = run.file.context(run.folder)
    tokenizer, device = open_tokenizer(ctx.inputs.policy), Device.open(ctx.precision)
    prompts = encode_rankings(tokenizer, rows, ctx.lengths)
    policy = checkpoint_folder(ctx.inputs.policy)
    model = moved(reward_from_policy(policy, seed=ctx.seed, pad_id=pad_id(tokenizer)), device)
    queries, responses = [prompt.query for prompt in prompts], [prompt.responses for prompt in prompts]
    scorer = SummaryScorer(tokenizer, queries, responses, device)
    share = accuracy(scorer.rewards(model), prompts)
    floor, (value, low, high) = max(share, 1 - share), found
    if low <= floor:
        seen = f"{value:.3f} on valid1 [{low:.3f}, {high:.3f}], before training {floor:.3f}"
        yield Observation(run, "fault" if high < floor else "warning", seen, "higher than before training")


@check(
    "reward",
    "score",
    why="Scores of different reward models, penalties for a missing EOS, and the initial value network "
    "are all relative to the references' mean (P App. B.1).",
    remedy="Save and load with `tldr.models.reward`, which keeps the shift in the checkpoint; train again if "
    "the shift was computed on other posts.",
)
def reference_mean(run: Examined) -> Iterator[Observation]:
    """After the shift the training references average 0, and the reporting references about 0."""
    if run.stage == "reward":
        mean = run.json("evaluation.json").get("reference_mean")
        if mean is not None and (severity := REFERENCE_MEAN.above(abs(mean))):
            yield Observation(run, severity, f"the training references average {mean:.3g}", "0")
        return
    reward, ways = run.parents.get("reward"), list(sample_statistics(run).values())
    scores = ways[0].scores.get("rm_reference", {}) if ways else {}
    if reward is None or len(scores) < 2 or (spread := pstdev(scores.values())) == 0:
        return
    mean = fmean(scores.values())
    if severity := REFERENCE_MEAN_ELSEWHERE.above(abs(mean) / spread):
        seen = f"the references of valid2 average {mean:.3g} in {run.name} (standard deviation {spread:.3g})"
        yield Observation(reward, severity, seen, "about 0")


@check(
    "pairs",
    "reward",
    "ppo",
    why="Optimising such a model makes summaries longer (or shorter), not better.",
    remedy="Check length-controlled results before you trust a preference; label pairs of similar length.",
)
def length_correlation(run: Examined) -> Iterator[Observation]:
    """A reward model's scores are not a function of length."""
    for reward, place, pairs in _scored(run):
        if len(pairs) < 30 or min(len(set(column)) for column in zip(*pairs, strict=True)) < 2:
            continue
        rho = float(spearmanr([length for length, _ in pairs], [score for _, score in pairs]).statistic)
        if severity := LENGTH_CORRELATION.above(abs(rho)):
            seen = f"rank correlation of score and length {rho:+.2f} in {place}"
            yield Observation(reward, severity, seen, "near 0")


def _scored(run: Examined) -> Iterator[tuple[Examined, str, list[tuple[float, float]]]]:
    """(reward model, where the run has them, pairs of length and score)."""
    if run.stage == "ppo":
        path, reward = run.folder / "rollouts.jsonl", run.parents.get("reward")
        if reward is not None and path.is_file():
            rows = [
                row for row in iter_records(path, Sample) if row.tokens is not None and "rm" in row.scores
            ]
            yield reward, run.name, [(float(row.tokens or 0), row.scores["rm"]) for row in rows]
        return
    path = run.folder / ("valid2.jsonl" if run.stage == "pairs" else "predictions.jsonl")
    if not path.is_file():
        return
    summaries = [summary for pair in iter_records(path, Comparison) for summary in pair.summaries]
    named = {f"rm_{name[7:]}": parent for name, parent in run.parents.items() if name.startswith("reward-")}
    for column, reward in (named if run.stage == "pairs" else {"rm": run}).items():
        scored = [summary for summary in summaries if column in summary.scores]
        yield reward, run.name, [(float(len(s.text.split())), s.scores[column]) for s in scored]
