"""Supervised fine-tuning of a policy on the posts of a data folder."""

from __future__ import annotations

from torch import nn

from tldr.models.ladder import disable_dropout, load_policy, save_policy
from tldr.records import write_json
from tldr.settings.base import scalar
from tldr.stages.sft import SFTRun
from tldr.stages.sft.algorithm import (
    BestWeights,
    encode_references,
    fine_tuning,
    fine_tuning_plan,
    validation_loss,
)
from tldr.stages.shared.epochs import Epoch, write_epochs
from tldr.stages.shared.networks import as_model, checkpoint_folder
from tldr.stages.shared.posts import first_shuffled, read_posts
from tldr.stages.shared.tokenizers import open_tokenizer, pad_id
from tldr.train.batching import micro_batches
from tldr.train.loop import TrainLoop
from tldr.train.metrics import read_metrics
from tldr.train.processes import make_accelerator


def run(ctx: SFTRun) -> None:
    """Fine-tune ``policy`` on ``sft.jsonl`` of ``data``, or a part of it; write ``checkpoint/``.

    The validation loss on valid1 is logged once an epoch (and chooses the weights when
    `select: valid_loss`). That of the saved weights is in ``evaluation.json``: a study with several learning
    rates uses the policy with the lowest. With `select: reward` ``epoch-1/``, ``epoch-2/``, ... have the
    weights of earlier epochs, and ``epochs.json`` lists them with the final ones.
    """
    settings, data = ctx.settings, ctx.inputs.data
    accelerator = make_accelerator(ctx.precision)
    tokenizer = open_tokenizer(data)
    posts, held_out_posts = (read_posts(data, name, references=True) for name in ("sft", "valid1"))
    examples, held_out = (
        encode_references(tokenizer, chosen, ctx.lengths)
        for chosen in (first_shuffled(posts, settings.limit, seed=ctx.seed, stage="sft"), held_out_posts)
    )
    # Before a network is loaded: how the processes share what is trained on and what is validated on.
    plan = fine_tuning_plan(examples, settings, accelerator.num_processes, seed=ctx.seed)
    micro_batches(held_out, processes=accelerator.num_processes)
    policy = load_policy(checkpoint_folder(ctx.inputs.policy), tokenizer)
    training = fine_tuning(
        policy, examples, plan, settings, accelerator, pad=pad_id(tokenizer), seed=ctx.seed
    )
    stepper = training.stepper
    loop = TrainLoop("sft", ctx.folder, stepper, plan.total_updates, settings)
    best = BestWeights(loop.tensors, loop.extra)
    kept = {
        epoch * plan.per_epoch: epoch
        for epoch in settings.kept_epochs()
        if epoch * plan.per_epoch < plan.total_updates
    }

    def save(module: nn.Module, name: str, epochs: float) -> None:
        trained = as_model(module)
        disable_dropout(trained)
        card = f"SFT on {len(examples):,} references, {epochs:g} epochs."
        save_policy(trained, tokenizer, ctx.folder / name, card)

    def on_update(done: int, row: dict[str, float]) -> None:
        if done % plan.per_epoch == 0 or done == plan.total_updates:
            row["valid_loss"] = validation_loss(stepper, held_out, pad_id(tokenizer))
            if settings.select == "valid_loss":
                best.offer(row["valid_loss"], stepper.modules["policy"])
        # Before the state after this update is saved: a run that resumes has the epoch, or makes it again.
        if done in kept and (copied := stepper.snapshot("policy")) is not None:
            save(copied, f"epoch-{kept[done]}", kept[done])

    loop.on_update = on_update
    loop.run(training.update)
    if settings.select == "valid_loss":
        best.restore(stepper.modules["policy"])
    if (whole := stepper.whole("policy")) is not None:
        save(whole, "checkpoint", scalar(settings.epochs))
        losses = {
            int(row["update"]): row["valid_loss"]
            for row in read_metrics(ctx.folder / "metrics.jsonl")
            if "valid_loss" in row
        }
        final = losses[plan.total_updates]
        used = min(losses.values()) if settings.select == "valid_loss" else final
        write_json(ctx.folder / "evaluation.json", {"valid1_loss": used, "posts": len(held_out)})
        if settings.select == "reward":
            write_epochs(
                ctx.folder,
                [Epoch(epoch, f"epoch-{epoch}", losses[done]) for done, epoch in kept.items()]
                + [Epoch(scalar(settings.epochs), "checkpoint", final)],
            )
