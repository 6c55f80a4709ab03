"""FLOPs of the stages and the hours they take, from what the packed forward pass computes.

A token passes through every matrix of the body once (2 FLOPs per entry). Attention multiplies it with all
positions of its row (4 x width x positions per layer). Only response tokens pass through the last layer
(`tldr.models.tail`; all tokens do where layers are recomputed) and the output head. A backward pass counts as
two forward passes; gradient checkpointing adds one forward pass of the body. A query is encoded once for all
its responses (`tldr.models.packed`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tldr.plan.hardware import Assumed, DeviceSpec
from tldr.plan.memory import Options, TrainingStep
from tldr.plan.steps import Shape


@dataclass(frozen=True)
class PackedRow:
    """Mean numbers of tokens of a query and of its responses."""

    query: float
    options: int
    response: float

    @property
    def length(self) -> float:
        """Positions of the packed row."""
        return self.query + self.options * self.response


def body(shape: Shape, row: PackedRow, whole: bool = False, lowest: int = 0) -> float:
    """FLOPs of one row through a model without its output head.

    Args:
        whole: whether the last layer also processes the positions before the query's last token.
        lowest: the first layer that is counted.
    """
    layers = shape.layers - lowest
    matrices = shape.matrices - lowest * shape.layer
    every = 2 * row.length * matrices + attention(shape, row, layers)
    return every if whole or not layers else every - 2 * shape.spared * max(row.query - 1, 0)


def attention(shape: Shape, row: PackedRow, layers: int) -> float:
    """FLOPs of the attention products of a row in `layers` layers."""
    return 4 * layers * shape.width * row.length**2


def head(shape: Shape, row: PackedRow) -> float:
    """FLOPs of the output head at a row's response tokens."""
    return 2 * shape.head * row.options * row.response


@dataclass(frozen=True)
class Cost:
    """What a stage computes.

    Attributes:
        training, scoring: FLOPs with and without a backward pass.
        decoded: steps of the decode loop times the bytes that each step reads.
        tokens: real tokens trained on.
    """

    training: float = 0.0
    scoring: float = 0.0
    decoded: float = 0.0
    tokens: float = 0.0

    @property
    def flops(self) -> float:
        """Training and scoring FLOPs."""
        return self.training + self.scoring

    def seconds(self, device: DeviceSpec, options: Options, assumed: Assumed) -> float:
        """Wall time in seconds on all devices of the plan."""
        speed = device.flops(options.bf16)
        alone = self.training / (speed * assumed.training) + self.scoring / (speed * assumed.scoring)
        alone += self.decoded / (1e9 * device.bandwidth * assumed.decoding)
        processes = options.processes
        return alone / (processes * (assumed.several if processes > 1 else 1.0))


def step_cost(work: TrainingStep, options: Options, row: PackedRow) -> Cost:
    """One query's share of a training step."""
    shape, below = work.shape, work.frozen_layers
    backward = 2 if work.adapters is None else 1  # frozen weights need no gradient
    whole = work.kind == "text" or options.checkpointing
    flops = 0.0
    for network in work.networks:
        every, above = (body(network, row, whole, lowest) for lowest in (0, below))
        flops += every + (options.checkpointing + backward) * above
        if backward == 1:  # both operands of the attention's products need one
            flops += attention(network, row, network.layers - below)
    if work.kind == "text":
        flops += (1 + backward) * head(shape, PackedRow(0, 1, row.length))
    elif work.kind != "reward":
        flops += (1 + backward) * head(shape, row)
    return Cost(training=flops, tokens=row.length)


def decode_cost(shape: Shape, row: PackedRow, rows: int, options: Options, cast: bool = False) -> Cost:
    """Sampling one query's responses in batches of `rows` queries.

    Every step reads the weights once for the whole batch, and the cache of each query. The pass over the
    query yields the first token, so the last token never passes through the model.

    Args:
        cast: whether fp32 weights are cast to bf16 at every step, which reads, writes and reads them again.
    """
    width = options.width
    columns = row.query + row.options * row.response / 2
    cache = shape.layers * shape.cache * width * columns
    weights = (8 if cast and options.bf16 else width) * shape.policy
    read = row.response * (weights / rows + cache)
    prefill = body(shape, PackedRow(row.query, 0, 0)) + 2 * shape.head
    tokens = row.options * max(row.response - 1, 0)
    steps = tokens * (2 * shape.matrices + 4 * shape.layers * shape.width * columns + 2 * shape.head)
    return Cost(scoring=prefill + steps, decoded=read)


def rollout_cost(work: TrainingStep, row: PackedRow, rows: int, options: Options) -> Cost:
    """Sampling one query's responses, `rows` queries together, and scoring them with all networks.

    The policy scores them only where the log-probabilities of sampling cannot be reused: in bf16, or sharded.
    """
    shape = work.shape
    drawn = decode_cost(shape, row, rows, options, cast=not (options.cuda or options.sharded))
    policies = 1 + (options.bf16 or options.sharded)  # the reference, and perhaps the policy
    judges = len(work.networks)  # the reward model, and perhaps the value network
    scored = policies * (body(shape, row) + head(shape, row)) + judges * body(work.judging, row)
    return Cost(scoring=drawn.scoring + scored, decoded=drawn.decoded)


def times(cost: Cost, factor: float) -> Cost:
    """The cost multiplied by a factor."""
    return Cost(*(factor * part for part in (cost.training, cost.scoring, cost.decoded, cost.tokens)))


def plus(a: Cost, b: Cost) -> Cost:
    """The sum of two costs."""
    return Cost(a.training + b.training, a.scoring + b.scoring, a.decoded + b.decoded, a.tokens + b.tokens)
