"""Settings of reward models."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tldr.settings.base import Name, PerSize, Positive, Unit, different
from tldr.settings.training import Finetuning, LearningRates, Optimizer


class RewardSettings(Finetuning):
    """Reward model (P App. B.1, 3.4): one epoch, batch 64, loss -log sigma(difference)."""

    newer: ClassVar[tuple[str, ...]] = (
        "pairs",
        "posts",
        "batches",
        "select_confidence",
        "lr_factors",
        "size",
    )

    size: Name | None = None
    """A size of the ladder: one reward model of it serves the policies of all sizes, as InstructGPT's of 6B
    served policies of 1.3B, 6B and 175B. A separate value network starts from it, so it has that size too. If
    the size is not among the study's `sizes`, it is pretrained and fine-tuned for the reward model alone. All
    sizes need the same tokenizer. The study then has no main reward models of other sizes: to see accuracy
    against size (Fig. 6) add a variant of kind reward. None: a reward model of each policy's own size."""
    optimizer: Optimizer = Optimizer(lr=1.5e-5)
    lr_factors: LearningRates = [1.0]
    """Learning rates tried, as factors of `optimizer.lr`, each with every one of the `seeds`; the model with
    the highest accuracy on valid1 is used (P App. B.1)."""
    batch: PerSize[PositiveInt] = 64
    epochs: PerSize[Positive] = 1.0
    """Passes over the rankings; may be a fraction."""
    seeds: PositiveInt = 1
    """RMs trained a size, best on valid1 kept (the paper: 3-10)."""
    limit: PositiveInt | None = None
    """Use only the first `limit` training rankings (data scaling)."""
    posts: tuple[Unit, Unit] = (0.0, 1.0)
    """Use only the training rankings of this part of the posts, from one share up to another, in the order
    of a hash of their text. [0, 0.8] and [0.8, 1] have no post in common, so a reward model on the second
    part can judge policies that were trained against one on the first. `limit` counts what is left."""
    batches: Annotated[list[str], Field(min_length=1)] | None = None
    """Train only on labels of these batches, before `limit` counts; None: all. The paper's final reward model
    had batch3 to batch10 of the released files (README of openai/summarize-from-feedback)."""
    select_confidence: Annotated[int, Field(ge=1, le=4)] | None = None
    """Select only on the labels of valid1 that are at least this far from the middle of the slider, 5: 4 is
    certain. Labels without a confidence then do not select. The paper has a threshold for each worker, which
    it does not give (App. C.1); it found that to filter the training labels hurts. None: all select."""
    share_posts: bool = False
    """Encode a post once for all its rankings, which makes several comparisons of a post cheap. The loss is
    the same. An update then has whole posts, as many as have `batch` rankings on average."""
    pairs: Literal["together", "apart"] = "together"
    """together: all pairs of a ranking are one example of a batch (InstructGPT 3.5). apart: each pair without
    a tie is an example of its own, shuffled with those of all rankings, which InstructGPT found to over-fit
    in one epoch. `batch` and `micro_batch` then count pairs. For as many pairs an update as together, and so
    for as many updates, multiply `batch` by the pairs without a tie that a ranking has on average: 6 for 4
    summaries without ties. That mean is `train_pairs` / `train_rankings` in the ``evaluation.json`` of a run
    with pairs apart. `limit` counts rankings in either case."""
    frozen_layers: Unit = 0.0
    """Share of the layers, the lowest ones with the embeddings, that stay as SFT left them. Not the
    paper's: trlx freezes 0.7 (examples/summarize_rlhf), which halves a step and its memory."""
    shift_posts: PositiveInt | None = None
    """Training references whose mean score becomes 0; None: all of them, as in the paper."""
    fold: NonNegativeInt | None = None
    """Train on the labels without this fold of `labels.folds`, and report on it."""

    def of_policy(self, size: str) -> str:
        """The size of the reward model that a policy of `size` is trained against."""
        return self.size or size

    @field_validator("batches")
    @classmethod
    def _different(cls, batches: list[str] | None) -> list[str] | None:
        return None if batches is None else different(batches)

    @model_validator(mode="after")
    def _some_posts(self) -> RewardSettings:
        if self.posts[0] >= self.posts[1]:
            raise ValueError(f"posts {list(self.posts)}: the first share must be below the second")
        return self

    @model_validator(mode="after")
    def _pairs_or_posts(self) -> RewardSettings:
        if self.pairs == "apart" and self.share_posts:
            raise ValueError(
                "pairs apart makes each pair an example of its own, but share_posts encodes all of a post "
                "together: set share_posts to false"
            )
        return self
