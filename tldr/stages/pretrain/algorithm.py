"""Next-token training of a policy with random weights."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator
from transformers import PreTrainedModel

from tldr.settings.base import scalar
from tldr.stages.pretrain.settings import PretrainSettings
from tldr.stages.shared.language import EncodedDocument, TextBatch, collate_documents, language_loss
from tldr.stages.shared.supervised import SupervisedTraining
from tldr.train.batching import BatchPlan
from tldr.train.rng import derive
from tldr.train.stepper import Stepper


def pretraining(
    policy: PreTrainedModel,
    documents: list[EncodedDocument],
    plan: BatchPlan,
    settings: PretrainSettings,
    accelerator: Accelerator,
    *,
    pad: int,
    seed: int,
) -> SupervisedTraining[EncodedDocument, TextBatch]:
    """Train on documents; a post's tokens weigh `query_weight`.

    Args:
        plan: the documents of every update (`pretraining_plan`).
        pad: token id of padding.
        seed: of the run.
    """
    return SupervisedTraining(
        Stepper(accelerator, {"policy": policy}, settings, derive(seed, "pretrain")),
        plan,
        settings,
        documents,
        collate=lambda chosen: collate_documents(chosen, pad, settings.query_weight),
        loss=language_loss,
    )


def pretraining_plan(
    documents: Sequence[EncodedDocument], settings: PretrainSettings, processes: int, *, seed: int
) -> BatchPlan:
    """The documents of every update.

    Raises:
        UsageError: too few documents for a batch, or for the processes that share it.
    """
    return BatchPlan(
        [len(document.ids) for document in documents],
        scalar(settings.batch),
        derive(seed, "pretrain"),
        updates=scalar(settings.steps),
        processes=processes,
    )
