"""Settings of supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from tldr.settings.base import PerSize, Positive, Unit
from tldr.settings.training import Finetuning, Optimizer


class SFTSettings(Finetuning):
    """Supervised fine-tuning on the references (P App. B.1): 1 epoch, batch 128, cosine to 0."""

    optimizer: Optimizer = Optimizer(lr=6.35e-5)
    epochs: PerSize[Positive] = 1.0
    """Passes over the posts; may be a fraction."""
    query_loss: bool = False
    """Also train on the query tokens, as Huang et al. (2024) do."""
    dropout: Unit = 0.0
    """Residual dropout; InstructGPT uses 0.2."""
    select: Literal["last", "valid_loss"] = "last"
    """last: the final weights. valid_loss: the epoch with the lowest loss on valid1."""
