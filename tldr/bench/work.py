"""The stages' own updates on synthetic examples: SFT, reward model, PPO.

Each class does what its stage's `run` does, without reading or saving anything: it has the same batch plan,
collation, loss and `Stepper`. For PPO it is the algorithm itself on random networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tldr.bench.texts import (
    PAD,
    bare_tokenizer,
    made_up_queries,
    made_up_responses,
    random_policy,
    random_reward,
)
from tldr.models.ladder import set_dropout
from tldr.settings.base import Precision, scalar
from tldr.settings.models import Lengths
from tldr.stages.ppo.algorithm import PPO
from tldr.stages.ppo.networks import Networks, Queries
from tldr.stages.ppo.rollout import Rollout
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.reward.algorithm import (
    RankedPrompt,
    collate_posts,
    freeze_lowest,
    ranked_posts,
    ranking_loss,
)
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.algorithm import full_text_loss, pack, response_loss
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.device import Device
from tldr.stages.shared.supervised import SupervisedTraining
from tldr.stages.shared.tokenizers import eos_id
from tldr.train.batching import BatchPlan
from tldr.train.metrics import MetricsRow
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive
from tldr.train.stepper import Loss, Stepper

EXAMPLES = 512
"""Fewest synthetic examples: one window of the batches' sorting by length."""
ENDLESS = 10**6
"""Number of updates in the batch plan; only the first few are made."""

RowLengths = tuple[int, list[int]]
"""The length in tokens of a query and of each of its responses."""


@dataclass(frozen=True)
class Setting:
    """What a stage's update depends on besides its settings."""

    config: PreTrainedConfig
    lengths: Lengths
    precision: Precision = "auto"
    seed: int = 0


@dataclass
class UpdateMeasurement:
    """Measurements of one update: wall seconds, real tokens, lengths of its rows, seconds by phase."""

    seconds: float = 0.0
    tokens: float = 0.0
    rows: list[RowLengths] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    figures: MetricsRow = field(default_factory=dict)


class Work(Protocol):
    """A stage that is set up to make updates one after the other."""

    stepper: Stepper

    def update(self, index: int) -> UpdateMeasurement:
        """Make one update; the time covers everything, until the device has finished."""


def clock(device: torch.device) -> float:
    """Time in seconds, after the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class SupervisedWork:
    """SFT or a reward model: an update is the stages' own (`SupervisedTraining`), timed.

    Args:
        module: the network, by name.
        examples: what `collate` makes batches of.
        rows: their lengths.
    """

    def __init__(
        self,
        settings: SFTSettings | RewardSettings,
        module: dict[str, nn.Module],
        examples: Sequence[Any],
        collate: Callable[[list[Any]], Any],
        loss: Callable[[nn.ModuleDict, Any], Loss],
        rows: list[RowLengths],
        setting: Setting,
    ):
        accelerator = make_accelerator(setting.precision)
        seed = derive(setting.seed, next(iter(module)))
        lengths = [query + len(responses) * max(responses) for query, responses in rows]
        plan = BatchPlan(lengths, scalar(settings.batch), seed, updates=ENDLESS, keep_last=False)
        self.stepper = Stepper(accelerator, module, settings, seed)
        self._training = SupervisedTraining(self.stepper, plan, settings, examples, collate, loss)
        self._rows, self._device = rows, accelerator.device

    def update(self, index: int) -> UpdateMeasurement:
        """See `Work`."""
        start = clock(self._device)
        self.stepper.set_lr(index, ENDLESS)
        figures = self._training.update(index)
        seconds = clock(self._device) - start
        rows = [self._rows[i] for i in self._training.plan.batch(index)]
        return UpdateMeasurement(seconds, figures["tokens"], rows, figures=figures)


class SFTWork(SupervisedWork):
    """Supervised fine-tuning."""

    def __init__(self, settings: SFTSettings, setting: Setting):
        count, vocab = max(EXAMPLES, scalar(settings.batch)), int(setting.config.vocab_size)
        queries = made_up_queries(count, setting.lengths.query, vocab, setting.seed)
        responses = made_up_responses(count, setting.lengths.response, vocab, setting.seed)
        examples = list(zip(queries, responses, strict=True))
        loss = full_text_loss if settings.query_loss else response_loss
        device = Device.open(setting.precision).device
        policy = random_policy(setting.config, device, setting.seed)
        policy.train()
        set_dropout(policy, settings.dropout)
        rows = [(len(query), [len(response)]) for query, response in examples]
        collate = partial(pack, pad=PAD)
        super().__init__(settings, {"policy": policy}, examples, collate, loss, rows, setting)


class RewardWork(SupervisedWork):
    """A reward model on pairs; the first summary is the better one."""

    def __init__(self, settings: RewardSettings, setting: Setting):
        count, vocab = max(EXAMPLES, scalar(settings.batch)), int(setting.config.vocab_size)
        queries = made_up_queries(count, setting.lengths.query, vocab, setting.seed)
        # As long as the policy's responses: labelers compared samples with references of similar length.
        responses = made_up_responses(2 * count, setting.lengths.response, vocab, setting.seed)
        prompts = [
            RankedPrompt(query, responses[2 * i : 2 * i + 2], [1, 2]) for i, query in enumerate(queries)
        ]
        examples = ranked_posts(prompts, share=False)
        model = random_reward(setting.config, Device.open(setting.precision).device, setting.seed)
        freeze_lowest(model, settings.frozen_layers)
        rows = [(len(e.query), [len(response) for response in e.responses]) for e in examples]
        collate = partial(collate_posts, pad=PAD)
        super().__init__(settings, {"reward": model}, examples, collate, ranking_loss, rows, setting)


class PPOWork(PPO):
    """PPO on random networks; an update is one iteration, timed by phase.

    PPO-ptx is off, because there is no pretraining text. The policy itself is the sampler.
    """

    def __init__(self, settings: PPOSettings, setting: Setting):
        left_out = {"ptx_coef": 0.0, "save_steps": None, "keep_rollouts": None, "sampler": "own"}
        settings = settings.model_copy(update=left_out)
        config, device = setting.config, Device.open(setting.precision).device
        batch = scalar(settings.batch) // settings.samples_per_query
        count = max(EXAMPLES, batch)
        tokens = made_up_queries(count, setting.lengths.query, int(config.vocab_size), setting.seed)
        separate = settings.algorithm == "ppo" and settings.value_network == "separate"
        networks = Networks(
            policy=random_policy(config, device, setting.seed),
            value=random_reward(config, device, setting.seed) if separate else None,
            reference=lambda dtype: _in(dtype, random_policy(config, device, setting.seed)),
            reward=lambda dtype: _in(dtype, random_reward(config, device, setting.seed)),
        )
        queries = Queries(tokens, setting.lengths.response, eos_id(bare_tokenizer()), PAD)
        super().__init__(networks, queries, settings, seed=setting.seed, precision=setting.precision)
        self.plan = BatchPlan([0] * count, batch, self.seed, updates=ENDLESS, keep_last=False)
        self.on_phase, self.on_rollout = self._mark, self._measure
        self._marks: dict[str, float] = {}
        self._rows: list[RowLengths] = []

    def _mark(self, phase: str) -> None:
        self._marks[phase] = clock(self.device.device)

    def _measure(self, index: int, rollout: Rollout) -> None:
        lengths = rollout.query_mask.sum(-1).tolist(), rollout.response_mask.sum(-1).tolist()
        self._rows = list(zip(*lengths, strict=True))

    def update(self, index: int) -> UpdateMeasurement:
        """See `Work`."""
        start = clock(self.device.device)
        self.stepper.set_lr(index, ENDLESS)
        figures = self.iteration(index)
        end, marks = clock(self.device.device), self._marks
        phases = {
            "generation": marks["sampled"] - start,
            "scoring": marks["scored"] - marks["sampled"],
            "update": end - marks["scored"],
        }
        return UpdateMeasurement(end - start, figures["tokens"], self._rows, phases, figures)


def _in(dtype: torch.dtype, model: PreTrainedModel) -> PreTrainedModel:
    nn.Module.to(model, dtype)
    return model


def work_of(settings: SFTSettings | RewardSettings | PPOSettings, setting: Setting) -> Work:
    """The stage of these settings, set up with random weights."""
    kinds: dict[type, Callable[..., Work]] = {
        SFTSettings: SFTWork,
        RewardSettings: RewardWork,
        PPOSettings: PPOWork,
    }
    return kinds[type(settings)](settings, setting)
