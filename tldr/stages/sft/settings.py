"""Settings of supervised fine-tuning."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from tldr.settings.base import PerSize, Positive, Unit, scalar
from tldr.settings.training import Finetuning, LearningRates, Optimizer


class SFTSettings(Finetuning):
    """Supervised fine-tuning on the references (P App. B.1): 1 epoch, batch 128, cosine to 0."""

    newer: ClassVar[tuple[str, ...]] = ("limit", "lr_factors", "keep_epochs")
    optimizer: Optimizer = Optimizer(lr=6.35e-5)
    lr_factors: LearningRates = [1.0]
    """Learning rates tried, as factors of `optimizer.lr`; the policy with the lowest loss on valid1 is used
    (P App. B.1)."""
    epochs: PerSize[Positive] = 1.0
    """Passes over the posts; may be a fraction."""
    limit: PositiveInt | None = None
    """Use only the first `limit` of the shuffled posts (data scaling); None: all. At one seed a smaller limit
    is a part of a larger one, at every size of the ladder."""
    query_loss: bool = False
    """Also train on the query tokens, as Huang et al. (2024) do."""
    dropout: Unit = 0.0
    """Residual dropout; InstructGPT uses 0.2."""
    select: Literal["last", "valid_loss", "reward"] = "last"
    """last: the final weights. valid_loss: the epoch with the lowest loss on valid1. reward: the final
    weights for the first labels and for every reward model; for all else, from the first reward model of a
    size on, the epoch whose summaries of valid1 it scores highest (InstructGPT C.1; the stage `epoch`)."""
    keep_epochs: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """With `select: reward`: the epochs after which the weights are kept, to be chosen from beside the final
    ones. Each takes the disk of a checkpoint. None: every epoch."""

    @model_validator(mode="after")
    def _fills_a_batch(self) -> SFTSettings:
        if self.limit is not None and isinstance(self.batch, int) and self.limit < self.batch:
            raise ValueError(f"limit {self.limit} does not fill one batch of {self.batch}")
        return self

    @model_validator(mode="after")
    def _epochs_to_choose_from(self) -> SFTSettings:
        if self.select != "reward":
            if self.keep_epochs is not None:
                raise ValueError(f"keep_epochs is for select: reward; with {self.select} no epoch is kept")
        elif not isinstance(self.epochs, dict):
            if self.epochs <= 1:
                raise ValueError(
                    f"select reward chooses an epoch, but epochs {self.epochs:g} has one at most"
                )
            if late := [epoch for epoch in self.keep_epochs or () if epoch >= self.epochs]:
                raise ValueError(
                    f"keep_epochs {late[0]} is not before the end of {self.epochs:g} epochs, whose final "
                    "weights are kept in any case"
                )
        return self

    def kept_epochs(self) -> list[int]:
        """The epochs after which the weights are kept beside the final ones; of settings of one size."""
        if self.select != "reward":
            return []
        every = range(1, math.ceil(scalar(self.epochs)))
        return [epoch for epoch in every if self.keep_epochs is None or epoch in self.keep_epochs]
