"""The stages' training steps and forward passes on made-up batches, for `tldr.plan.live` to count."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from tldr.config import Lora
from tldr.models.lora import adapter_parameters
from tldr.models.packed import PackedBatch, response_logprobs, response_scores, response_values
from tldr.models.tail import spared_entries
from tldr.plan.live import Part, Peak, Step, along, highest, peaks_of_depth
from tldr.stages.common import as_model
from tldr.stages.pretrain import TextBatch, language_loss
from tldr.train.stepper import recompute_layers

Kind = Literal["response", "text", "reward", "ppo", "policy_only", "score"]
"""What a step trains: a policy on responses or on whole texts, a reward model, PPO's two networks, its
policy alone; "score" is a policy's forward pass without gradients."""


class Shape:
    """A model's shape: its config and parameter counts, shared ones once.

    Attributes:
        policy, reward: parameters of the causal LM, and of the classifier with one label.
        matrices: entries that every token is multiplied with (no embeddings, no output head).
        head: entries of the output head, which a response token is multiplied with.
        spared: entries of the last layer's matrices that read positions alone go through.
        width: of the attention, in numbers a layer and token (queries); `cache` of keys and values.
    """

    def __init__(self, config: PreTrainedConfig):
        self.config = config
        with torch.device("meta"):
            policy, reward = (_model(kind, config) for kind in (AutoModelForCausalLM, _CLASSIFIER))
        output = policy.get_output_embeddings()  # type: ignore[no-untyped-call]
        outside = {id(m.weight) for m in policy.modules() if isinstance(m, nn.Embedding) or m is output}
        self._model = policy
        self.policy = sum(p.numel() for p in policy.parameters())
        self.reward = sum(p.numel() for p in reward.parameters())
        self.matrices = sum(p.numel() for p in policy.parameters() if p.ndim > 1 and id(p) not in outside)
        self.head = int(output.weight.numel())
        self.spared = spared_entries(policy)
        self.layers = int(config.num_hidden_layers)
        self.width = int(config.hidden_size)
        heads = int(config.num_attention_heads)
        share = int(getattr(config, "num_key_value_heads", None) or heads) / heads
        self.cache = round(2 * self.width * share)
        self.layer = self.matrices / self.layers

    def adapters(self, settings: Lora) -> int:
        """Parameters that LoRA adds to the body."""
        return adapter_parameters(self._model, settings)

    def __repr__(self) -> str:
        return f"Shape({self.config.model_type}, {self.policy:,})"


_CLASSIFIER: Any = AutoModelForSequenceClassification


def _model(
    auto: Any, config: PreTrainedConfig, attention: str = "sdpa", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    config = copy.deepcopy(config)
    config.num_labels = 1
    model: PreTrainedModel = auto.from_config(config, attn_implementation=attention, dtype=dtype)
    return model


@dataclass(frozen=True)
class Forward:
    """How a micro-batch goes through the models.

    Attributes:
        query, options, response: each of its rows is a query with `options` responses.
        bf16: autocast; `sharded` weights are gathered in bf16 already.
        attention: transformers' name of it; ours on a CPU keeps the causal half of its matrix.
        checkpointing: the layers' activations are computed again in the backward pass.
    """

    query: int
    options: int
    response: int
    bf16: bool
    sharded: bool = False
    attention: str = "sdpa"
    checkpointing: bool = False


@dataclass(frozen=True)
class Growth:
    """A step's peaks at two micro-batch sizes; between and beyond them they are straight lines.

    Beyond, that is a little too much: large logits are computed in chunks.
    """

    sizes: tuple[int, int]
    parts: tuple[dict[Part, Peak], dict[Part, Peak]]

    def at(self, rows: int) -> Peak:
        """The peak at a micro-batch of so many queries."""
        low, high = self.sizes
        return highest(along(*self.parts, (rows - low) / (high - low)))


_MEMORY: dict[tuple[object, ...], dict[Part, Peak]] = {}


def growth(kind: Kind, shape: Shape, how: Forward, rows: int) -> Growth:
    """Count a step's bytes at one query and at `rows` (exact there).

    Args:
        kind: the step.
        rows: the micro-batch that is of most interest.
    """
    sizes = (1, max(rows, 2))
    low, high = (_peaks(kind, shape, how, size) for size in sizes)
    return Growth(sizes, (low, high))


def _peaks(kind: Kind, shape: Shape, how: Forward, rows: int) -> dict[Part, Peak]:
    key = (kind, shape.config.to_json_string(), how, rows)
    if key not in _MEMORY:
        config = shape.config

        def build(layers: int) -> Step:
            shallow = copy.deepcopy(config)
            shallow.num_hidden_layers = layers
            return _step(kind, shallow, how, rows)

        _MEMORY[key] = peaks_of_depth(build, shape.layers, int(config.vocab_size), bf16=how.bf16)
    return _MEMORY[key]


def _step(kind: Kind, config: PreTrainedConfig, how: Forward, rows: int) -> Step:
    dtype = torch.bfloat16 if how.sharded and how.bf16 else torch.float32
    parts: dict[str, nn.Module] = {}
    if kind != "reward":
        parts["policy"] = _model(AutoModelForCausalLM, config, how.attention, dtype)
    if kind in ("reward", "ppo"):
        parts["value" if kind == "ppo" else "reward"] = _model(_CLASSIFIER, config, how.attention, dtype)
    modules = nn.ModuleDict(parts)
    for model in map(as_model, modules.values()):
        model.train(False)  # its dropout is 0
        if how.checkpointing:
            recompute_layers(model)
    modules.requires_grad_(kind != "score")
    return modules, _loss(kind, modules, how, rows)


def _loss(kind: Kind, modules: nn.ModuleDict, how: Forward, rows: int) -> Callable[[], Tensor]:
    shape = (rows, how.options, how.response)
    batch = PackedBatch(
        torch.zeros(rows, how.query, dtype=torch.int64),
        torch.ones(rows, how.query, dtype=torch.bool),
        torch.zeros(shape, dtype=torch.int64),
        torch.ones(shape, dtype=torch.bool),
    )
    models = {name: as_model(module) for name, module in modules.items()}

    def loss() -> Tensor:
        if kind == "text":
            return language_loss(modules, _text(rows, how.query + how.response)).total
        if kind == "reward":
            return response_scores(models["reward"], batch).sum()
        if kind == "score":
            return response_logprobs(models["policy"], batch)
        if kind == "response":
            return response_logprobs(models["policy"], batch).sum()
        logprobs, _ = response_logprobs(models["policy"], batch, entropy=True)
        if kind == "policy_only":
            return logprobs.sum()
        return logprobs.sum() + response_values(models["value"], batch).sum()

    return loss


def _text(rows: int, length: int) -> TextBatch:
    ids = torch.zeros(rows, length, dtype=torch.int64)
    return TextBatch(ids, torch.ones(rows, length), torch.ones(rows, length, dtype=torch.bool))
