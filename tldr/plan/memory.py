"""Memory a process needs to train, by part: weights, gradients, optimizer, activations, cache, logits.

Rules (the training code's): the weights of models that learn, gradients and AdamW's two moments (if not in
8 bits) are fp32, under LoRA gradients and moments are the adapters'; bf16 is autocast, under FSDP2 weights
are gathered in bf16 layer by layer. Activations and logits are counted by `tldr.plan.live` on the stage's
own step, under LoRA too with all weights learning: too many, for frozen matrices keep no inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from tldr.models.generate import ENCODED
from tldr.models.ladder import choose_attention
from tldr.plan.hardware import GIB, Assumed
from tldr.plan.live import Peak
from tldr.plan.steps import Forward, Growth, Shape, StepKind, growth
from tldr.stages.ppo.rollout import SAMPLED

Placement = Literal["single", "ddp", "fsdp2", "zero2"]
SHARDED = ("fsdp2", "zero2")
"""Weights, gradients and optimizer spread over the processes; under zero2 the weights stay gathered
from the forward to the end of the backward pass (FSDP2 with `reshard_after_forward: false`)."""


@dataclass(frozen=True)
class Options:
    """Options that determine the memory of a stage, besides its model and windows.

    Attributes:
        processes: one a device.
        cuda: on a GPU; a CPU keeps no bf16 copy to sample from.
        frozen_bf16, frozen_place: PPO's reference and reward model: in bf16; on the device, in host
            memory ("cpu"), or sharded ("shard").
    """

    processes: int = 1
    placement: Placement = "single"
    bf16: bool = True
    cuda: bool = True
    checkpointing: bool = False
    frozen_bf16: bool = False
    frozen_place: Literal["device", "cpu", "shard"] = "device"

    @property
    def sharded(self) -> bool:
        """Whether the weights are spread over the processes."""
        return self.processes > 1 and self.placement in SHARDED

    @property
    def width(self) -> int:
        """Bytes of a number that goes into a product."""
        return 2 if self.bf16 else 4


@dataclass(frozen=True)
class TrainingStep:
    """A stage that trains: its step, models and batch.

    Attributes:
        kind: the step.
        frozen: parameters of the models beside the trained ones.
        query, options, response: windows in tokens, and responses a query.
        batch: queries an optimizer step, over all processes.
        drawn: queries sampled an iteration (PPO), over all processes; 0: it samples nothing.
        keeps_best: one more copy of the weights (SFT's `select: valid_loss`).
        counted: the micro-batch whose step is counted exactly; others are on a line through it.
        adapters: parameters that LoRA adds; they alone are trained. None: all are.
        moments: bytes of optimizer state for each that is trained.
        frozen_layers: the lowest ones, which are not trained (reward model); `held` parameters with the
            embeddings, of those that would be trained without it.
    """

    kind: StepKind
    shape: Shape
    query: int
    options: int
    response: int
    batch: int
    frozen: tuple[int, ...] = ()
    drawn: int = 0
    keeps_best: bool = False
    counted: int = 4
    adapters: int | None = None
    moments: int = 8
    frozen_layers: int = 0
    held: int = 0

    @property
    def networks(self) -> int:
        """Models that learn."""
        return 2 if self.kind == "ppo" else 1

    @property
    def learning(self) -> int:
        """Parameters of the models that learn, without adapters."""
        shape = self.shape
        return {"reward": shape.reward, "ppo": shape.policy + shape.reward}.get(self.kind, shape.policy)

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        return (self.learning if self.adapters is None else self.adapters) - self.held

    @property
    def loaded(self) -> int:
        """Parameters of all models, frozen ones and adapters among them."""
        return self.learning + (self.adapters or 0) + sum(self.frozen)


@dataclass(frozen=True)
class Memory:
    """Bytes by part at the moment of peak memory."""

    parts: dict[str, float] = field(default_factory=dict)
    phase: str = "update"

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(self.parts.values())


def forward(work: TrainingStep, options: Options) -> Forward:
    """The forward pass of a micro-batch whose texts fill their windows."""
    return Forward(
        work.query,
        work.options,
        work.response,
        bf16=options.bf16,
        sharded=options.sharded,
        attention=choose_attention("cuda" if options.cuda else "cpu"),
        checkpointing=options.checkpointing,
        frozen_layers=work.frozen_layers,
    )


def step_growth(work: TrainingStep, options: Options) -> Growth:
    """The training step's peaks by micro-batch."""
    return growth(work.kind, work.shape, forward(work, options), work.counted)


def standing(work: TrainingStep, options: Options) -> dict[str, float]:
    """Bytes that stay in memory throughout a stage, for one process."""
    n = options.processes
    spread = n if options.sharded else 1
    width = options.width
    gathered = 0.0
    if options.placement == "zero2" and spread > 1:
        gathered = float(width * work.learning)
    elif spread > 1:  # the layer at work and the next; embeddings, last norm and head all the time
        shape = work.shape
        gathered = width * work.networks * (2 * shape.layer + shape.policy - shape.matrices)
    weights = 4 * (work.learning + (work.adapters or 0)) / spread
    frozen = [(2 if options.frozen_bf16 else 4) * count for count in work.frozen]
    if options.frozen_place == "shard" and n > 1:
        place = sum(frozen) / n + (2 if options.frozen_bf16 else 4) * 2 * work.shape.layer
    else:
        place = sum(frozen) if options.frozen_place != "cpu" else 0.0
    copy = 0.0
    if work.drawn and (spread > 1 or (options.cuda and options.bf16)):
        copy = float(width * work.shape.policy)
    best = 4 * work.trained / spread if work.keeps_best else 0.0
    return {
        "weights": weights + gathered + best,
        "optimizer": work.moments * work.trained / spread,
        "frozen": place,
        "rollout copy": copy,
    }


def update_memory(work: TrainingStep, options: Options, rows: int, assumed: Assumed) -> Memory:
    """The peak of an optimizer step with micro-batches of `rows` queries."""
    peak = step_growth(work, options).at(rows)
    per_process = -(-work.batch // options.processes)
    gradients = float(4 * work.trained)
    # In one micro-batch gradients come as activations go; shards of them are there all the time. Adapters'
    # are too small to count.
    at_once = not options.sharded and rows >= per_process and work.adapters is None
    working = max(peak.total - gradients, 0.0) if at_once else peak.working
    if options.sharded:
        gradients /= options.processes
    logits = min(peak.logits, working)
    parts = standing(work, options) | {
        "gradients": gradients,
        "activations": working - logits,
        "logits": logits,
    }
    return Memory(parts | reserve(parts, working, options, assumed), "update")


def sampled_together(work: TrainingStep, options: Options, rows: int) -> int:
    """Queries whose responses a process samples at once, with micro-batches of `rows` queries."""
    return min(SAMPLED * rows, -(-work.drawn // options.processes))


def encoded_together(query: int, rows: int, options: Options) -> int:
    """Queries that go through the policy in one pass before `rows` of them are sampled."""
    return min(rows, max(1, ENCODED["cuda" if options.cuda else "cpu"] // query))


def sampling_memory(work: TrainingStep, options: Options, rows: int, assumed: Assumed) -> Memory:
    """The peak while responses are sampled: no gradients, but a cache, and the queries' forward pass."""
    shape, width = work.shape, options.width
    together = sampled_together(work, options, rows)
    tokens = work.query + work.options * work.response
    cache = float(together * tokens * shape.layers * shape.cache * width)
    how = replace(forward(work, options), options=1, response=1, sharded=False, checkpointing=False)
    peak = growth("score", shape, how, work.counted).at(encoded_together(work.query, together, options))
    # In inference mode autocast keeps no cast of a weight.
    return _no_gradients(work, options, peak, assumed, cache=cache)


def scoring_memory(work: TrainingStep, options: Options, rows: int, assumed: Assumed) -> Memory:
    """The peak while the networks score `rows` queries' responses."""
    how = replace(forward(work, options), sharded=False, checkpointing=False)
    peak = growth("score", work.shape, how, work.counted).at(rows)
    # Autocast keeps bf16 casts of trained weights while the networks score one rollout.
    casts = 2.0 * work.learning if options.bf16 and not options.sharded else 0.0
    loaded = (2 if options.frozen_bf16 else 4) * max(work.frozen, default=0)
    away = options.frozen_place == "cpu"
    return _no_gradients(work, options, peak, assumed, casts=casts, loaded=loaded if away else 0)


def _no_gradients(
    work: TrainingStep,
    options: Options,
    peak: Peak,
    assumed: Assumed,
    *,
    casts: float = 0.0,
    cache: float = 0.0,
    loaded: int = 0,
) -> Memory:
    logits = max(peak.logits, 0.0)  # of the line through two sizes, which a query's few cross below 0
    buckets = options.processes > 1 and not options.sharded  # DDP keeps those that gradients are views of
    parts = standing(work, options) | {
        "gradients": 4.0 * work.trained if buckets else 0.0,
        "cache": cache,
        "activations": peak.working - logits + casts,
        "logits": logits,
    }
    parts["frozen"] += loaded
    return Memory(parts | reserve(parts, peak.working + cache, options, assumed), "rollout")


def reserve(parts: dict[str, float], moving: float, options: Options, assumed: Assumed) -> dict[str, float]:
    """Bytes that the device and its allocator take besides the tensors, of which `moving` come and go."""
    if options.cuda:
        return {"reserve": assumed.reserve * GIB + assumed.fragmentation * moving}
    return {"reserve": assumed.cpu_fragmentation * sum(parts.values())}


def training_memory(work: TrainingStep, options: Options, rows: int, assumed: Assumed) -> Memory:
    """The larger of a stage's peaks for one process, in bytes."""
    peaks = [update_memory(work, options, rows, assumed)]
    if work.drawn:
        peaks += [sampling_memory(work, options, rows, assumed), scoring_memory(work, options, rows, assumed)]
    return max(peaks, key=lambda peak: peak.total)


def idle_memory(work: TrainingStep, options: Options, scores: Memory, assumed: Assumed) -> Memory:
    """The peak while the trained model scores; `scores` is the memory of a loaded model doing the same."""
    logits = scores.parts["logits"]
    peak = Peak(working=scores.parts["activations"] + logits, logits=logits)
    return replace(_no_gradients(work, options, peak, assumed), phase="scoring")
