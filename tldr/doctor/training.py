"""Checks of training logs: failures, finite figures, gradients, learning rate, loss; and of SFT's loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import mean

from tldr.doctor.data import ngram_losses, references
from tldr.doctor.findings import Observation, check
from tldr.doctor.folders import Examined
from tldr.doctor.limits import FEWEST_UPDATES, GRADIENTS_CLIPPED, GRADIENTS_ZERO, LOSS_GREW
from tldr.doctor.tokens import READ_BY, TRAINED
from tldr.study.folder import DONE, FAILED, is_busy, last_error, outputs_digest, read_note


@check(
    *READ_BY,
    "data",
    "ratings",
    why="A failed run has no results, and the runs that need it are missing too.",
    remedy="Fix the named cause and run the study again: it resumes from where it stopped.",
)
def failed(run: Examined) -> Iterator[Observation]:
    """The run did not fail, and its parents have not changed since."""
    if (error := last_error(run.folder)) and not (run.folder / DONE).exists():
        remedy = read_note(run.folder / FAILED).get("remedy")
        yield Observation(
            run, "fault", error, f"a finished run; its remedy: {remedy}" if remedy else "a finished run"
        )
    elif not (run.folder / DONE).exists() and not is_busy(run.folder):
        yield Observation(run, "note", "stopped before its end", "a finished run")
    for name, parent in run.file.parents.items():
        if outputs_digest(run.folder.parent / parent.run) not in ("", parent.outputs):
            yield Observation(run, "warning", f"its {name} was run again since", "unchanged parents")


@check(
    *TRAINED,
    why="One non-finite number corrupts every weight that it reaches.",
    remedy="Lower the learning rate or use fp32; start from the last good checkpoint.",
)
def finite(run: Examined) -> Iterator[Observation]:
    """No logged figure is NaN or infinite."""
    for row in run.metrics:
        if bad := [name for name, value in row.items() if not math.isfinite(value)]:
            yield Observation(run, "fault", f"{', '.join(bad)} at update {row['update']:g}", "finite figures")
            return


@check(
    *TRAINED,
    why="A module without a gradient does not change; a gradient that is always clipped makes the effective "
    "learning rate differ from the configured one.",
    remedy="Zero: check what is frozen, masked or detached. Clipped: lower the learning rate or raise "
    "`optimizer.clip`.",
)
def gradients(run: Examined) -> Iterator[Observation]:
    """Gradients are neither zero nor always clipped."""
    rows = run.metrics
    limit = (run.settings.get("optimizer") or {}).get("clip", math.inf)
    for name in sorted({name for row in rows for name in row if name.startswith("grad_norm")}):
        norms = [row[name] for row in rows if name in row]
        zero = mean(norm == 0 for norm in norms)
        if severity := GRADIENTS_ZERO.above(zero):
            yield Observation(
                run, severity, f"{name} is 0 in {zero:.0%} of the updates", "a nonzero gradient"
            )
        clipped = mean(norm >= limit for norm in norms)
        if len(norms) >= FEWEST_UPDATES and (severity := GRADIENTS_CLIPPED.above(clipped)):
            yield Observation(
                run, severity, f"{name} is clipped to {limit:g} in {clipped:.0%} of updates", "in some"
            )


@check(
    *TRAINED,
    why="The model was not trained with the configured learning rate.",
    remedy="Set `optimizer.lr`; check that the warm-up is shorter than the run.",
)
def learning_rate(run: Examined) -> Iterator[Observation]:
    """The learning rate reaches about the configured one."""
    asked = (run.settings.get("optimizer") or {}).get("lr")
    rates = [row[name] for row in run.metrics for name in ("lr", "lr_policy") if name in row]
    if len(rates) < FEWEST_UPDATES or not isinstance(asked, float | int):
        return
    too_low = max(rates) < asked / 2 and (run.folder / DONE).exists()  # otherwise it may be warming up
    if too_low or max(rates) > asked * 1.01:
        yield Observation(run, "fault", f"the highest rate is {max(rates):g}", f"{asked:g}, as configured")


@check(
    "pretrain",
    "sft",
    "reward",
    why="Training made the model worse.",
    remedy="Lower the learning rate or add warm-up; check the loss in the report.",
)
def diverged(run: Examined) -> Iterator[Observation]:
    """The final loss is no higher than the initial one."""
    losses = [row["loss"] for row in run.metrics if "loss" in row]
    if len(losses) < FEWEST_UPDATES:
        return
    first, last = ends(losses, 10)
    if severity := LOSS_GREW.above(last / first):
        yield Observation(run, severity, f"the loss went from {first:.3g} to {last:.3g}", "a lower loss")


def ends(values: Sequence[float], parts: int) -> tuple[float, float]:
    """Means of the first and the last of `parts` equal parts."""
    size = max(1, len(values) // parts)
    return mean(values[:size]), mean(values[-size:])


@check(
    "sft",
    why="A policy that predicts references no better than an n-gram model has not learnt to write them, "
    "and every later stage starts from it.",
    remedy="Train longer or at another learning rate; check that the loss is on the response and the "
    "policy starts from a pretrained model.",
)
def ngram_floor(run: Examined) -> Iterator[Observation]:
    """The loss on valid1 beats a unigram and a bigram model of the training references.

    A policy that was given a part of them on purpose (`sft.limit`) is not held against models of all.
    """
    losses = [row["valid_loss"] for row in run.metrics if "valid_loss" in row]
    data = run.parents.get("data")
    if not losses or data is None or run.settings.get("limit") is not None:
        return
    window = run.file.lengths.response
    train, held_out = ([ids[:window] for ids in references(data.folder, name)] for name in ("sft", "valid1"))
    loss = min(losses) if run.settings.get("select") == "valid_loss" else losses[-1]
    for name, floor in zip(("unigram", "bigram"), ngram_losses(train, held_out), strict=True):
        if loss >= floor:
            seen = f"{loss:.3g} nats per token on valid1; a {name} model of the references has {floor:.3g}"
            yield Observation(run, "fault", seen, "a lower loss")
            return
