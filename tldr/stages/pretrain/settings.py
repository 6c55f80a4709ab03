"""Settings of pretraining."""

from __future__ import annotations

from pydantic import PositiveInt

from tldr.settings.base import PerSize, Unit
from tldr.settings.training import Optimizer, Training


class PretrainSettings(Training):
    """Next-token training from scratch (toy ladder only)."""

    optimizer: Optimizer = Optimizer(warmup=0.05, final=0.1)
    batch: PerSize[PositiveInt] = 16
    steps: PerSize[PositiveInt] = 1500
    """Optimizer updates."""
    query_weight: Unit = 1.0
    """Weight of the loss on a document's post tokens, against its comments and TL;DR."""
