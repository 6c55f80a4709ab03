"""Settings for training: optimizer, batches, checkpoints, adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from tldr.settings.base import NonNegative, PerSize, Positive, SeedOffset, Settings, Unit, different


class Optimizer(Settings):
    """AdamW and its schedule. The paper does not state betas, eps, weight decay and warm-up."""

    kind: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit: both moments in 8 bits, quantised in blocks (Dettmers et al. 2022, arXiv 2110.02861):
    2 bytes per weight instead of 8. Needs the extra `8bit`; cannot be sharded."""
    lr: PerSize[Positive] = 1e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's first and second moment."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""
    clip: Positive = 1.0
    """Maximum gradient norm."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after the warm-up."""
    warmup: NonNegative = 0.0
    """Warm-up: a fraction of all updates if below 1, otherwise a number of updates."""
    final: Unit = 0.0
    """Final learning rate as a fraction of the peak."""


class Training(Settings):
    """Settings of every stage that trains."""

    optimizer: Optimizer = Optimizer()
    batch: PerSize[PositiveInt] = 128
    """Examples per update (prompts, for the reward model)."""
    micro_batch: PerSize[PositiveInt] | None = None
    """Examples per forward pass; gradients are accumulated. None: the whole batch at once."""
    gradient_checkpointing: bool = False
    """Do not keep activations inside a layer: the backward pass recomputes them. Less memory, one third
    more compute."""
    save_every: PositiveInt = 200
    """Updates between saved resumable states."""
    keep_states: PositiveInt = 2
    """Resumable states kept while the stage runs; more than one in case the newest is damaged."""
    seed_offset: SeedOffset = 0
    """Added to the run's seed, to repeat only this stage with other random numbers."""

    def packages(self) -> dict[str, str]:
        """See `Settings.packages`."""
        return {"optimizer.kind": "bitsandbytes"} if self.optimizer.kind == "adamw8bit" else {}


class Lora(Settings):
    """Low-rank adapters on linear layers (Hu et al. 2021): only the adapters and a scalar head are trained.
    Not part of the paper; needs the extra `lora`. A stage saves the merged model."""

    rank: PositiveInt = 16
    """Width of the adapters."""
    alpha: PositiveInt = 32
    """The adapter's output is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapters' inputs."""
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the body's linear layers to adapt, as in the model's class; None: all."""


LearningRates = Annotated[list[Positive], Field(min_length=1), AfterValidator(different)]
"""Learning rates that are tried, as factors of `optimizer.lr`: each is a run, and what reads the stage takes
the best on valid1 (P App. B.1). [0.5, 1, 2] tries three."""


class Finetuning(Training):
    """Settings of the stages that start from a trained model."""

    lora: Lora | None = None
    """None: every weight is trained."""

    def packages(self) -> dict[str, str]:
        """See `Settings.packages`."""
        return super().packages() | ({"lora": "peft"} if self.lora is not None else {})
