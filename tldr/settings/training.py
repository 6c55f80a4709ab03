"""Settings of everything that trains: optimizer, batches, checkpoints, adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from tldr.settings.base import NonNegative, PerSize, Positive, Settings, Unit


class Optimizer(Settings):
    """AdamW and its schedule. Betas, eps, decay and warm-up are not stated by the paper."""

    kind: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit: its two moments in 8 bits, in blocks with a scale each (Dettmers et al. 2022, arXiv
    2110.02861), 2 bytes a weight in place of 8; needs the extra `8bit`. Not sharded."""
    lr: PerSize[Positive] = 1e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's first and second moment."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""
    clip: Positive = 1.0
    """Gradient norm limit."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after the warm-up."""
    warmup: NonNegative = 0.0
    """Below 1 a share of all updates, from 1 on a number of updates."""
    final: Unit = 0.0
    """Learning rate at the end, as a share of the peak."""


class Training(Settings):
    """What every stage on the training loop has."""

    optimizer: Optimizer = Optimizer()
    batch: PerSize[PositiveInt] = 128
    """Examples an update (prompts, for the reward model)."""
    micro_batch: PerSize[PositiveInt] | None = None
    """Examples a forward pass; gradients are accumulated. None: the whole batch at once."""
    gradient_checkpointing: bool = False
    """Keep no activations inside a layer: the backward pass computes them again. Less memory, a third
    more compute."""
    save_every: PositiveInt = 200
    """Updates between resumable checkpoints."""
    keep_states: PositiveInt = 2
    """Resumable checkpoints kept while the stage runs: more than one in case the newest is damaged."""
    seed_offset: int = 0
    """Added to the run's seed: another draw of this stage alone."""

    def packages(self) -> dict[str, str]:
        """See `Settings.packages`."""
        return {"optimizer.kind": "bitsandbytes"} if self.optimizer.kind == "adamw8bit" else {}


class Lora(Settings):
    """Low-rank adapters on linear layers (Hu et al. 2021): only they and a scalar head are trained. Not the
    paper's; needs the extra `lora`. What a stage saves is the merged model, in plain form."""

    rank: PositiveInt = 16
    """Width of the adapters."""
    alpha: PositiveInt = 32
    """What the adapter adds is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On the adapters' inputs."""
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    """Linear layers of the body by the names that the model's class has for them; None: all."""


class Finetuning(Training):
    """What the stages that start from a trained model have."""

    lora: Lora | None = None
    """None: every weight is trained."""

    def packages(self) -> dict[str, str]:
        """See `Settings.packages`."""
        return super().packages() | ({"lora": "peft"} if self.lora is not None else {})
