"""Settings of reward models."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from tldr.settings.base import PerSize, Positive, Unit
from tldr.settings.training import Finetuning, Optimizer


class RewardSettings(Finetuning):
    """Reward model (P App. B.1, 3.4): one epoch, batch 64, loss -log sigma(difference)."""

    optimizer: Optimizer = Optimizer(lr=1.5e-5)
    batch: PerSize[PositiveInt] = 64
    epochs: PerSize[Positive] = 1.0
    """Passes over the rankings; may be a fraction."""
    seeds: PositiveInt = 1
    """RMs trained a size, best on valid1 kept (the paper: 3-10)."""
    limit: PositiveInt | None = None
    """Use only the first `limit` training rankings (data scaling)."""
    share_posts: bool = False
    """Encode a post once for all its rankings, which makes several comparisons of a post cheap. The loss is
    the same. An update then has whole posts, as many as have `batch` rankings on average."""
    frozen_layers: Unit = 0.0
    """Share of the layers, the lowest ones with the embeddings, that stay as SFT left them. Not the
    paper's: trlx freezes 0.7 (examples/summarize_rlhf), which halves a step and its memory."""
    shift_posts: PositiveInt | None = None
    """Training references whose mean score becomes 0; None: all of them, as in the paper."""
    fold: NonNegativeInt | None = None
    """Train on the labels without this fold of `labels.folds`, and report on it."""
