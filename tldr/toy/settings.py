"""Settings of the toy world."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from tldr.settings.base import SeedOffset, Settings


class ToyData(Settings):
    """Sizes of the toy world; its rules are in `tldr.toy`."""

    kind: Literal["toy"] = "toy"
    """Names this kind of data."""
    seed: SeedOffset = 1
    """Of the world: another seed makes other posts, labelers and corpus."""
    corpus: PositiveInt = 24000
    """Documents in the pretraining corpus."""
    sft_posts: PositiveInt = 6000
    """Posts with a reference for SFT; a subset of the PPO posts, as in the paper."""
    ppo_posts: PositiveInt = 8000
    """Posts that PPO samples summaries for."""
    valid1_posts: PositiveInt = 600
    """Posts for model selection."""
    valid2_posts: PositiveInt = 1000
    """Posts for reporting; never used for selection."""
