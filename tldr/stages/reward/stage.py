"""A reward model trained on rankings, from the SFT policy (P 3.4, App. B.1).

After training the scores are shifted so that the training references average 0 (mean only), and the
shift is stored in the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.inputs.leakage import EVALUATION, check_leaks, folder_keys, label_keys
from tldr.inputs.posts import load_comparisons
from tldr.models.ladder import parameter_count
from tldr.models.reward import apply_shift, reward_from_policy, save_reward
from tldr.records import Ranking, write_json, write_records
from tldr.settings.base import scalar
from tldr.stages.reward import RewardRun
from tldr.stages.reward.algorithm import (
    RankedPrompt,
    accuracy,
    encode_rankings,
    encode_references,
    pair_count,
    predictions,
    ranked_posts,
    reward_plan,
    reward_training,
    shared_scores,
    training_posts,
    untied_pairs,
)
from tldr.stages.reward.chosen import confident, in_part, of_batches
from tldr.stages.shared.device import Device
from tldr.stages.shared.networks import as_model, checkpoint_folder, open_reward
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.summary_scorer import SummaryScorer
from tldr.stages.shared.tokenizers import open_tokenizer, pad_id
from tldr.stages.shared.trained_on import write_trained_on
from tldr.train.loop import TrainLoop
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive
from tldr.train.stepper import Stepper

RECHECKED = 64
"""References that the saved model scores once more, which shows that it carries the shift."""


def run(ctx: RewardRun) -> None:
    """Train one reward model, shift it and evaluate it. A study with several uses the best on valid1.

    Inputs: ``policy`` (SFT), ``labels`` (``train``, ``valid1``, ``valid2`` rankings; further rounds'
    labels are ``labels-2``, ...), ``data``, and perhaps ``held_out`` labels to select and report on. Writes
    ``checkpoint/`` and ``evaluation.json``; of a fold also ``predictions.jsonl``, its held-out comparisons
    with the scores of both summaries. ``trained_on.txt`` has the posts that it learned from.
    """
    tokenizer = open_tokenizer(ctx.inputs.policy)
    labels = label_folders(ctx)
    held_out = labels if ctx.inputs.held_out is None else [ctx.inputs.held_out]
    rankings = {"train": read_rankings(labels, "train")}
    rankings |= {name: read_rankings(held_out, name) for name in ("valid1", "valid2")}
    rankings["train"] = of_batches(rankings["train"], ctx.settings.batches)
    rankings["valid1"] = confident(rankings["valid1"], ctx.settings.select_confidence)
    # Labels from elsewhere have not been compared with the evaluation posts by an earlier stage.
    check_leaks(folder_keys(ctx.inputs.data, EVALUATION) | label_keys(rankings))
    rankings["train"] = in_part(rankings["train"], ctx.settings.posts)[: ctx.settings.limit]
    splits = {name: encode_rankings(tokenizer, rows, ctx.lengths) for name, rows in rankings.items()}
    train = splits.pop("train")
    posts = read_posts(ctx.inputs.data, "sft", references=True)[: ctx.settings.shift_posts]
    references = encode_references(tokenizer, posts, ctx.lengths)
    stepper = train_reward(ctx, train, tokenizer)

    def scored(prompts: list[RankedPrompt]) -> list[list[float]]:
        posts = ranked_posts(prompts, share=ctx.settings.share_posts)
        return shared_scores(stepper, posts, pad_id(tokenizer))

    before = scored(references)
    scores = {name: scored(prompts) for name, prompts in splits.items()}
    model = stepper.whole("reward")
    if model is None:
        return
    evaluation = finish(ctx, as_model(model), tokenizer, references, [row[0] for row in before])
    for name, prompts in splits.items():
        evaluation[f"{name}_accuracy"] = accuracy(scores[name], prompts)
        evaluation[f"{name}_pairs"] = pair_count(prompts)
    evaluation |= {"n": evaluation["valid2_pairs"], "train_rankings": len(train)}
    if ctx.settings.pairs == "apart":
        evaluation["train_pairs"] = len(untied_pairs(train))
    trained: Any = as_model(model)
    head = sum(weights.numel() for weights in trained.score.parameters())
    evaluation["params"] = parameter_count(trained) - head  # as of the policy that it started from
    if ctx.settings.fold is not None:
        shifted = [[score - evaluation["shift"] for score in row] for row in scores["valid2"]]
        write_records(ctx.folder / "predictions.jsonl", predictions(rankings["valid2"], shifted))
    agreement = labels[-1] / "agreement.json"
    if agreement.exists():
        evaluation["label_agreement"] = json.loads(agreement.read_text(encoding="utf-8"))["agreement"]
    write_trained_on(ctx.folder, rankings["train"])
    write_json(ctx.folder / "evaluation.json", evaluation)


def label_folders(ctx: RewardRun) -> list[Path]:
    """The folders of labels by round; of a fold, its folders in them."""
    further = sorted(ctx.inputs.further_labels.items(), key=lambda item: int(item[0]))
    labels = [ctx.inputs.labels, *(place for _, place in further)]
    if ctx.settings.fold is not None:
        labels = [place / f"fold-{ctx.settings.fold}" for place in labels]
    return labels


def read_rankings(labels: list[Path], name: str) -> list[Ranking]:
    """The rankings of a split with a winner; those whose summaries all tie teach nothing.

    Raises:
        UsageError: there is none.
    """
    rows = interleaved([load_comparisons(place / f"{name}.jsonl") for place in labels])
    useful = [row for row in rows if len(set(row.rank)) > 1]
    if not useful:
        raise UsageError(
            f"no ranking of {name} has a winner",
            where=labels[0],
            remedy="give comparisons whose summaries do not all tie",
        )
    return useful


def interleaved(rounds: Sequence[list[Ranking]]) -> list[Ranking]:
    """The rankings of all rounds, mixed evenly, so that the first n are a sample of the whole pool."""
    placed = [
        ((place + 0.5) / len(rows), number, row)
        for number, rows in enumerate(rounds)
        for place, row in enumerate(rows)
    ]
    return [row for _, _, row in sorted(placed, key=lambda entry: entry[:2])]


def train_reward(ctx: RewardRun, train: list[RankedPrompt], tokenizer: PreTrainedTokenizerBase) -> Stepper:
    """Train from the SFT policy with a fresh head, saving on the way; the stepper holds the model."""
    seed, pad = derive(ctx.seed, "reward"), pad_id(tokenizer)
    accelerator = make_accelerator(ctx.precision)
    # Before a network is loaded.
    posts = training_posts(train, ctx.settings)
    plan = reward_plan(posts, ctx.settings, accelerator.num_processes, seed=seed)
    model = reward_from_policy(checkpoint_folder(ctx.inputs.policy), seed=seed, pad_id=pad)
    training = reward_training(model, posts, plan, ctx.settings, accelerator, pad=pad, seed=seed)
    TrainLoop("reward", ctx.folder, training.stepper, plan.total_updates, ctx.settings).run(training.update)
    return training.stepper


def finish(
    ctx: RewardRun,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    references: list[RankedPrompt],
    before: list[float],
) -> dict[str, Any]:
    """Shift to reference mean 0, save, reload, and score references again with the saved model.

    Args:
        before: the references' scores without a shift.

    Returns:
        The shift, where it is stored, and the reference mean of the saved model.
    """
    shift = mean(before)
    way = apply_shift(model, shift)
    save_reward(model, tokenizer, ctx.folder / "checkpoint", _card(ctx, shift, way))
    device, some = Device.open(ctx.precision), references[:RECHECKED]
    queries, responses = [prompt.query for prompt in some], [prompt.responses for prompt in some]
    scorer = SummaryScorer(tokenizer, queries, responses, device)
    again = [row[0] for row in scorer.rewards(open_reward(ctx.folder, device))]
    return {
        "shift": shift,
        "shift_in": way,
        "shift_posts": len(references),
        # of all references, as the saved model scores them: what it changed is read off the first ones
        "reference_mean": shift + mean(b - a for a, b in zip(before, again, strict=False)),
    }


def _card(ctx: RewardRun, shift: float, way: str) -> str:
    return (
        f"Reward model, {scalar(ctx.settings.epochs):g} epochs on ranked summaries. Scores are read at the "
        f"last token (EOS); they are shifted by {-shift:+.6f} ({way}) so that the training references "
        f"average 0."
    )
