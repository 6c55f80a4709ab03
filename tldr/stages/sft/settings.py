"""Settings of supervised fine-tuning."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt, model_validator

from tldr.settings.base import PerSize, Positive, Unit
from tldr.settings.training import Finetuning, LearningRates, Optimizer


class SFTSettings(Finetuning):
    """Supervised fine-tuning on the references (P App. B.1): 1 epoch, batch 128, cosine to 0."""

    newer: ClassVar[tuple[str, ...]] = ("limit", "lr_factors")
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
    select: Literal["last", "valid_loss"] = "last"
    """last: the final weights. valid_loss: the epoch with the lowest loss on valid1."""

    @model_validator(mode="after")
    def _fills_a_batch(self) -> SFTSettings:
        if self.limit is not None and isinstance(self.batch, int) and self.limit < self.batch:
            raise ValueError(f"limit {self.limit} does not fill one batch of {self.batch}")
        return self
