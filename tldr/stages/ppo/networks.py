"""What PPO is given: its four networks, the queries, and where it keeps its progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from tldr.stages.ppo.samplers import Sampler
from tldr.stages.shared.device import Device
from tldr.stages.shared.language import EncodedDocument


@dataclass(frozen=True)
class Networks:
    """The four networks of PPO: policy and value network learn, reference and reward model are frozen.

    Attributes:
        policy: on the CPU; it may be too large for the device until it is sharded.
        value: the same, started from the reward model; None where the settings ask for no network of its own.
        reference, reward: load the model in a dtype. They are called once the others have been placed. The
            reference is None where it is the policy without its adapters.
        sampler: makes what draws responses; None: the policy itself.
    """

    policy: PreTrainedModel
    value: PreTrainedModel | None
    reference: Callable[[torch.dtype], PreTrainedModel] | None
    reward: Callable[[torch.dtype], PreTrainedModel]
    sampler: Callable[[Accelerator, Device], Sampler] | None = None


@dataclass(frozen=True)
class Queries:
    """The posts that the policy summarises, in tokens.

    Attributes:
        tokens: of each query.
        response: tokens of a response at most, EOS included.
        eos, pad: ids of these tokens.
        documents: pretraining texts for PPO-ptx.
    """

    tokens: Sequence[Sequence[int]]
    response: int
    eos: int
    pad: int
    documents: Sequence[EncodedDocument] = ()


class IterationProgress(Protocol):
    """Where an iteration keeps what a stopped run needs to go on inside it; `TrainLoop` is one.

    Attributes:
        extra: JSON values, `tensors`: both are saved with the run's state.
        part: how far the iteration has come: 0 before its episodes are scored, then steps made plus one.
    """

    extra: dict[str, Any]
    tensors: dict[str, Tensor]
    part: int

    def pause(self, part: int = 0, due: bool = False) -> None:
        """A place where the run may be saved and ended."""


@dataclass
class Unsaved:
    """The progress of a run that is never saved."""

    extra: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    part: int = 0

    def pause(self, part: int = 0, due: bool = False) -> None:
        """See `IterationProgress`."""
        self.part = part


def add_value_head(policy: PreTrainedModel) -> None:
    """A scalar head on the policy's own states, under the name a value network's has; it starts at 0."""
    model: Any = policy
    width = model.get_output_embeddings().weight.shape[1]  # OPT-350m's states are narrower than its layers
    head = nn.Linear(width, 1, bias=False, device=policy.device)
    nn.init.zeros_(head.weight)
    policy.score = head
