"""Training steps and forward passes of the stages on made-up batches, which `tldr.plan.live` measures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicLayer

from tldr.models.cache import cache_width, preallocated_cache, rows_of
from tldr.models.generate import pick
from tldr.models.lora import adapter_parameters
from tldr.models.packed import (
    PackedBatch,
    additive,
    attention_mask,
    response_logprobs,
    response_scores,
    response_values,
)
from tldr.models.tail import last_layer_from, spared_entries
from tldr.plan.live import CountedStep, Peak, StepPart, along, highest, peaks_of_depth, peaks_of_depths
from tldr.settings.training import Lora
from tldr.stages.reward.algorithm import freeze_lowest
from tldr.stages.shared.language import TextBatch, language_loss
from tldr.stages.shared.networks import as_model
from tldr.train.stepper import recompute_layers

Use = Literal["sample", "score", "judge"]
StepKind = Literal["response", "text", "reward", "ppo", "policy_only"] | Use
"""What a step trains: a policy on responses or on whole texts, a reward model, PPO's two networks, or PPO's
policy alone. Three kinds have no gradients: "sample" from a policy, "score" responses by their
log-probabilities, and "judge" them with a reward model."""
_USES = get_args(Use)


class Shape:
    """A model's shape: its config and parameter counts. Shared parameters count once.

    Attributes:
        policy, reward: parameters of the causal LM and of the classifier with one label.
        matrices: entries of the matrices that every token passes through (no embeddings, no output head).
        head: entries of the output head, which only response tokens pass through.
        spared: entries of the last layer's matrices that only read positions pass through.
        width: size of the hidden state. `cache` counts keys and values, in numbers per layer and token.
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
        self.cache = cache_width(config)
        self.layer = self.matrices / self.layers

    def adapters(self, settings: Lora, frozen_layers: int = 0) -> int:
        """Parameters that LoRA adds to the body, above its lowest `frozen_layers`."""
        model = copy.deepcopy(self._model)
        layers = next(part for part in model.modules() if isinstance(part, nn.ModuleList))
        del layers[:frozen_layers]
        if not len(layers) and settings.targets is not None:
            return 0  # the named targets were all in the removed layers
        return adapter_parameters(model, settings)

    def reward_above(self, frozen_layers: int) -> int:
        """Trained parameters of a reward model whose lowest layers are frozen."""
        with torch.device("meta"):
            model = _model(_CLASSIFIER, self.config)
        freeze_lowest(model, frozen_layers / self.layers)
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

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
        query, options, response: each row is a query with `options` responses; lengths in tokens.
        bf16: whether autocast is on; `sharded` weights are gathered in bf16.
        attention: its name in transformers; ours on a CPU keeps the causal half of the matrix.
        checkpointing: whether the backward pass recomputes the layers' activations.
        frozen_layers: number of the lowest layers that a reward model does not train.
        encoded: queries that the policy encodes in one pass before it is sampled.
    """

    query: int
    options: int
    response: int
    bf16: bool
    sharded: bool = False
    attention: str = "sdpa"
    checkpointing: bool = False
    frozen_layers: int = 0
    encoded: int = 1


@dataclass(frozen=True)
class Growth:
    """A step's peaks at two micro-batch sizes, for linear interpolation and extrapolation.

    Extrapolation is slightly too high, since large logits are computed in chunks.
    """

    sizes: tuple[int, int]
    parts: tuple[dict[StepPart, Peak], dict[StepPart, Peak]]

    def at(self, rows: int) -> Peak:
        """The peak at a micro-batch of `rows` queries."""
        low, high = self.sizes
        return highest(along(*self.parts, (rows - low) / (high - low)))


_MEMORY: dict[tuple[object, ...], dict[StepPart, Peak]] = {}


def growth(kind: StepKind, shape: Shape, how: Forward, rows: int, value: Shape | None = None) -> Growth:
    """Count a step's bytes at one query and at `rows` (exact there).

    Args:
        kind: the step.
        rows: the micro-batch whose peak should be exact.
        value: of PPO's value network, where it is not the policy's shape.
    """
    sizes = (1, max(rows, 2))
    low, high = (_peaks(kind, shape, how, size, value) for size in sizes)
    return Growth(sizes, (low, high))


def peak_of(kind: StepKind, shape: Shape, how: Forward, rows: int) -> Peak:
    """A step's exact peak at `rows` queries."""
    return highest(_peaks(kind, shape, how, rows))


def _peaks(
    kind: StepKind, shape: Shape, how: Forward, rows: int, value: Shape | None = None
) -> dict[StepPart, Peak]:
    key = (kind, shape.config.to_json_string(), value and value.config.to_json_string(), how, rows)
    if key not in _MEMORY and value is not None:
        configs = (shape.config, value.config)

        def build_two(layers: tuple[int, int]) -> CountedStep:
            return _step(kind, [_of_depth(*each) for each in zip(configs, layers, strict=True)], how, rows)

        depths, vocab = (shape.layers, value.layers), int(shape.config.vocab_size)
        _MEMORY[key] = peaks_of_depths(build_two, depths, vocab, bf16=how.bf16)
    elif key not in _MEMORY:
        config, learning = shape.config, shape.layers - how.frozen_layers
        # Frozen layers keep nothing for the backward pass, so one stands for all of them. A frozen last
        # layer is counted as well, since it differs from the others (`tldr.models.tail`).
        frozen = min(how.frozen_layers, 1 if learning else 2)
        few = replace(how, frozen_layers=frozen)

        def build(layers: int) -> CountedStep:
            return _step(kind, [_of_depth(config, layers + frozen)], few, rows)

        _MEMORY[key] = peaks_of_depth(build, learning, int(config.vocab_size), bf16=how.bf16)
    return _MEMORY[key]


def _of_depth(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    other = copy.deepcopy(config)
    other.num_hidden_layers = layers
    return other


def _step(kind: StepKind, configs: Sequence[PreTrainedConfig], how: Forward, rows: int) -> CountedStep:
    """The step on models of these configs: the policy's, and last that of the reward or value model."""
    half = how.bf16 and (how.sharded or kind == "sample")  # a model that is sampled from is loaded in bf16
    dtype = torch.bfloat16 if half else torch.float32
    parts: dict[str, nn.Module] = {}
    if kind not in ("reward", "judge"):
        parts["policy"] = _model(AutoModelForCausalLM, configs[0], how.attention, dtype)
    if kind in ("reward", "ppo", "judge"):
        parts["value" if kind == "ppo" else "reward"] = _model(_CLASSIFIER, configs[-1], how.attention, dtype)
    modules = nn.ModuleDict(parts)
    for model in map(as_model, modules.values()):
        model.train(False)  # its dropout is 0
        if how.checkpointing:
            recompute_layers(model)
    modules.requires_grad_(kind not in _USES)
    if how.frozen_layers:
        freeze_lowest(as_model(modules["reward"]), how.frozen_layers / configs[-1].num_hidden_layers)
    return modules, _loss(kind, modules, how, rows)


def _sample(policy: PreTrainedModel, how: Forward, rows: int) -> Tensor:
    """The moments of `tldr.models.generate` that need the most memory: some queries are encoded into the
    cache of all queries, and the last token of every response is drawn."""
    total, width = rows * how.options, how.query + how.options * how.response
    cache = preallocated_cache(policy.config, width)
    real = torch.ones(how.encoded, how.query, dtype=torch.bool)
    with last_layer_from(policy, how.encoded, how.query - 1):
        policy(
            input_ids=torch.zeros(how.encoded, how.query, dtype=torch.int64),
            attention_mask=attention_mask(real, torch.zeros(how.query), policy.dtype),
            position_ids=torch.zeros(how.encoded, how.query, dtype=torch.int64),
            past_key_values=rows_of(cache, torch.arange(how.encoded), rows, how.query),
            use_cache=True,
            logits_to_keep=1,
        )
    for layer in cast(list[DynamicLayer], cache.layers):  # fill all but the last tokens' columns
        assert layer.keys is not None
        _, heads, _, depth = layer.keys.shape
        nothing = torch.zeros((), dtype=layer.keys.dtype).expand(
            rows, heads, how.options * (how.response - 1), depth
        )
        layer.update(nothing, nothing)
    allowed = torch.ones(rows, how.options, width, dtype=torch.bool)
    logits = policy(
        input_ids=torch.zeros(rows, how.options, dtype=torch.int64),
        attention_mask=additive(allowed, policy.dtype)[:, None],
        position_ids=torch.zeros(rows, how.options, dtype=torch.int64),
        past_key_values=cache,
        use_cache=True,
    ).logits
    return pick(logits.flatten(0, 1), torch.zeros(total, dtype=torch.float64), 1.0, 1.0)[1]


def _loss(kind: StepKind, modules: nn.ModuleDict, how: Forward, rows: int) -> Callable[[], Tensor]:
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
        if kind in ("reward", "judge"):
            return response_scores(models["reward"], batch).sum()
        if kind == "sample":
            return _sample(models["policy"], how, rows)
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
