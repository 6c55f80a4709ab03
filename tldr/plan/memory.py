"""Memory that one process needs to train: weights, gradients, optimizer, activations, cache, logits.

The rules are those of the training code. The weights of models that learn, their gradients and AdamW's two
moments are fp32 (the moments may be 8-bit). Under LoRA only the adapters have gradients and moments. bf16
means autocast; FSDP2 gathers the weights in bf16, layer by layer. `tldr.plan.live` counts activations and
logits on the stage's own step. Under LoRA it counts as if all weights learned, which is too much: frozen
matrices keep no inputs.
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
"""Placements that shard weights, gradients and optimizer state over the processes. Under zero2 the weights
stay gathered from the forward pass to the end of the backward pass (FSDP2 with `reshard_after_forward:
false`)."""


@dataclass(frozen=True)
class Options:
    """Options that determine the memory of a stage, besides its model and windows.

    Attributes:
        processes: one per device.
        cuda: whether the device is a GPU; a CPU keeps no bf16 copy to sample from.
        frozen_bf16, frozen_place: whether PPO's reference and reward model are in bf16, and where they are:
            on the device, in host memory ("cpu"), or sharded ("shard").
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
        """Whether the weights are sharded over the processes."""
        return self.processes > 1 and self.placement in SHARDED

    @property
    def width(self) -> int:
        """Bytes of one operand of a matrix product."""
        return 2 if self.bf16 else 4


@dataclass(frozen=True)
class TrainingStep:
    """The step, models and batch of a stage that trains.

    Attributes:
        kind: the step.
        shape: of the policy, or of the reward model that is trained.
        reward: shape of PPO's reward model and value network; None: the policy's.
        frozen: parameters of each model that is loaded but not trained.
        query, options, response: tokens per query, responses per query, tokens per response.
        batch: queries per optimizer step, over all processes.
        drawn: queries sampled per iteration (PPO), over all processes; 0 if the stage samples nothing.
        keeps_best: whether one more copy of the weights is kept (SFT's `select: valid_loss`).
        counted: the micro-batch whose step is counted exactly; others are interpolated from it.
        adapters: parameters that LoRA adds, which are then the only trained ones; None without LoRA.
        moments: bytes of optimizer state per trained parameter.
        frozen_layers: number of the lowest layers that are not trained (reward model). `held` is the number
            of parameters, embeddings included, that this excludes from training.
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
    reward: Shape | None = None

    @property
    def networks(self) -> tuple[Shape, ...]:
        """Shapes of the models that are trained."""
        return (self.shape, self.judging) if self.kind == "ppo" else (self.shape,)

    @property
    def judging(self) -> Shape:
        """Shape of PPO's reward model and value network."""
        return self.reward or self.shape

    @property
    def learning(self) -> int:
        """Parameters of the models that learn, without adapters."""
        shape = self.shape
        both = shape.policy + self.judging.reward
        return {"reward": shape.reward, "ppo": both}.get(self.kind, shape.policy)

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        return (self.learning if self.adapters is None else self.adapters) - self.held

    @property
    def loaded(self) -> int:
        """Parameters of all models, including frozen ones and adapters."""
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
    value = work.reward if work.kind == "ppo" else None
    return growth(work.kind, work.shape, forward(work, options), work.counted, value)


def standing(work: TrainingStep, options: Options) -> dict[str, float]:
    """Bytes that one process holds throughout a stage, by part."""
    n = options.processes
    spread = n if options.sharded else 1
    width = options.width
    gathered = 0.0
    if options.placement == "zero2" and spread > 1:
        gathered = float(width * work.learning)
    elif spread > 1:  # this layer and the next at a time; embeddings, last norm and head throughout
        gathered = width * sum(2 * each.layer + each.policy - each.matrices for each in work.networks)
    weights = 4 * (work.learning + (work.adapters or 0)) / spread
    frozen = [(2 if options.frozen_bf16 else 4) * count for count in work.frozen]
    layer = max(work.shape.layer, work.judging.layer)
    if options.frozen_place == "shard" and n > 1:
        place = sum(frozen) / n + (2 if options.frozen_bf16 else 4) * 2 * layer
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
    """Peak memory of an optimizer step with micro-batches of `rows` queries."""
    peak = step_growth(work, options).at(rows)
    per_process = -(-work.batch // options.processes)
    gradients = float(4 * work.trained)
    # With a single micro-batch, gradients appear while activations are freed; sharded ones are always there.
    # Gradients of adapters are too small to count.
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
    """Number of queries that one process samples together, with micro-batches of `rows` queries."""
    return min(SAMPLED * rows, -(-work.drawn // options.processes))


def encoded_together(query: int, rows: int, options: Options) -> int:
    """Number of queries that are encoded in one pass when `rows` of them are sampled together."""
    return min(rows, max(1, ENCODED["cuda" if options.cuda else "cpu"] // query))


def sampling_memory(work: TrainingStep, options: Options, rows: int, assumed: Assumed) -> Memory:
    """Peak memory while responses are sampled: a cache and the queries' forward pass, without gradients."""
    shape, width = work.shape, options.width
    together = sampled_together(work, options, rows)
    tokens = work.query + work.options * work.response
    cache = float(together * tokens * shape.layers * shape.cache * width)
    how = replace(forward(work, options), options=1, response=1, sharded=False, checkpointing=False)
    peak = growth("score", shape, how, work.counted).at(encoded_together(work.query, together, options))
    # In inference mode autocast does not cache the casts of weights.
    return _no_gradients(work, options, peak, assumed, cache=cache)


def scoring_memory(work: TrainingStep, options: Options, rows: int, assumed: Assumed) -> Memory:
    """Peak memory while the networks score the responses of `rows` queries."""
    how = replace(forward(work, options), sharded=False, checkpointing=False)
    peak = growth("score", work.shape, how, work.counted).at(rows)
    if work.reward is not None:  # larger than the policy, it may need more, even without logits
        judged = growth("judge", work.reward, how, work.counted).at(rows)
        peak = max(peak, judged, key=lambda each: each.working)
    # Autocast caches bf16 casts of the trained weights while the networks score one rollout.
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
    logits = max(peak.logits, 0.0)  # the interpolation can fall below 0 for a single query
    buckets = options.processes > 1 and not options.sharded  # DDP's buckets hold the gradients
    parts = standing(work, options) | {
        "gradients": 4.0 * work.trained if buckets else 0.0,
        "cache": cache,
        "activations": peak.working - logits + casts,
        "logits": logits,
    }
    parts["frozen"] += loaded
    return Memory(parts | reserve(parts, peak.working + cache, options, assumed), "rollout")


def reserve(parts: dict[str, float], moving: float, options: Options, assumed: Assumed) -> dict[str, float]:
    """Bytes that the device and its allocator need besides the tensors, of which `moving` bytes are
    temporary."""
    if options.cuda:
        return {"reserve": assumed.reserve * GIB + assumed.fragmentation * moving}
    return {"reserve": assumed.cpu_fragmentation * sum(parts.values())}


def training_memory(work: TrainingStep, options: Options, rows: int, assumed: Assumed) -> Memory:
    """The largest peak of a stage for one process, in bytes."""
    peaks = [update_memory(work, options, rows, assumed)]
    if work.drawn:
        peaks += [sampling_memory(work, options, rows, assumed), scoring_memory(work, options, rows, assumed)]
    return max(peaks, key=lambda peak: peak.total)


def idle_memory(work: TrainingStep, options: Options, scores: Memory, assumed: Assumed) -> Memory:
    """Peak memory while the trained model scores; `scores` is that of a loaded model doing the same."""
    logits = scores.parts["logits"]
    peak = Peak(working=scores.parts["activations"] + logits, logits=logits)
    return replace(_no_gradients(work, options, peak, assumed), phase="scoring")
