"""The stages' own updates on made-up examples: SFT, reward model, PPO.

Each class puts together what its stage's `run` does, with nothing read and nothing saved: the same batch
plan, collation, loss and `Stepper`; PPO is the stage's own class with its networks and posts replaced.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from tldr.bench.texts import (
    PAD,
    bare_tokenizer,
    made_up_queries,
    made_up_responses,
    random_policy,
    random_reward,
)
from tldr.models.ladder import set_dropout
from tldr.models.packed import PackedBatch
from tldr.settings.base import Precision, scalar
from tldr.settings.models import Lengths
from tldr.stages.ppo import PPOInputs
from tldr.stages.ppo.rollout import Experience, Models, Rollout
from tldr.stages.ppo.samplers import OwnSampler
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.ppo.stage import PPOStage, add_value_head
from tldr.stages.reward.algorithm import RankedPrompt, collate_prompts, freeze_lowest, ranking_loss
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.algorithm import full_text_loss, pack, response_loss
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.batches import share
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.device import Device
from tldr.stages.shared.tokenizers import eos_id
from tldr.train.batching import BatchPlan
from tldr.train.frozen import Frozen
from tldr.train.loop import TrainLoop
from tldr.train.metrics import Row
from tldr.train.processes import make_accelerator
from tldr.train.rng import derive
from tldr.train.stepper import Stepper

EXAMPLES = 512
"""Made-up examples at least: one window of the batches' sorting by length."""
ENDLESS = 10**6
"""Updates of a plan; only its first ones are made."""

Lengthy = tuple[int, list[int]]
"""Tokens of a query, and of each of its responses."""


@dataclass(frozen=True)
class Setting:
    """What a stage's update depends on beside its settings."""

    config: PreTrainedConfig
    lengths: Lengths
    precision: Precision = "auto"
    seed: int = 0


@dataclass
class Done:
    """What some updates took: wall seconds, real tokens, the rows they went through, seconds by phase."""

    seconds: float = 0.0
    tokens: float = 0.0
    rows: list[Lengthy] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    figures: Row = field(default_factory=dict)


class Work(Protocol):
    """A stage set up to make its updates, one after the other."""

    stepper: Stepper

    def update(self, index: int) -> Done:
        """Make one update; its time excludes nothing, the device has finished when it ends."""


def clock(device: torch.device) -> float:
    """Seconds, after all that the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Supervised(ABC):
    """SFT or a reward model: examples, their batch plan, and one optimizer step an update."""

    def __init__(
        self,
        settings: SFTSettings | RewardSettings,
        module: dict[str, nn.Module],
        rows: list[Lengthy],
        setting: Setting,
    ):
        accelerator = make_accelerator(setting.precision)
        seed = derive(setting.seed, next(iter(module)))
        lengths = [query + len(responses) * max(responses) for query, responses in rows]
        self._plan = BatchPlan(lengths, scalar(settings.batch), seed, updates=ENDLESS, keep_last=False)
        self.stepper = Stepper(accelerator, module, settings, seed)
        self._settings, self._rows, self._device = settings, rows, accelerator.device

    @abstractmethod
    def step(self, parts: Sequence[Sequence[int]]) -> Row:
        """One optimizer step from the examples of each micro-batch."""

    def update(self, index: int) -> Done:
        """See `Work`."""
        start = clock(self._device)
        self.stepper.set_lr(index, ENDLESS)
        chosen = self._plan.batch(index)
        figures = self.step(share(chosen, self._settings, self.stepper.accelerator))
        seconds = clock(self._device) - start
        return Done(seconds, figures["tokens"], [self._rows[i] for i in chosen], figures=figures)


class SFTWork(Supervised):
    """Supervised fine-tuning."""

    def __init__(self, settings: SFTSettings, setting: Setting):
        count, vocab = max(EXAMPLES, scalar(settings.batch)), int(setting.config.vocab_size)
        queries = made_up_queries(count, setting.lengths.query, vocab, setting.seed)
        responses = made_up_responses(count, setting.lengths.response, vocab, setting.seed)
        self._examples = list(zip(queries, responses, strict=True))
        self._loss = full_text_loss if settings.query_loss else response_loss
        device = Device.open(setting.precision).device
        policy = random_policy(setting.config, device, setting.seed)
        policy.train()
        set_dropout(policy, settings.dropout)
        rows = [(len(query), [len(response)]) for query, response in self._examples]
        super().__init__(settings, {"policy": policy}, rows, setting)

    def step(self, parts: Sequence[Sequence[int]]) -> Row:
        """As `tldr.stages.sft.stage.run`."""
        batches = [pack([self._examples[i] for i in part], PAD).to(self._device) for part in parts]
        return self.stepper.step(self._loss, batches)


class RewardWork(Supervised):
    """A reward model on pairs; the first summary is the better one."""

    def __init__(self, settings: RewardSettings, setting: Setting):
        count, vocab = max(EXAMPLES, scalar(settings.batch)), int(setting.config.vocab_size)
        queries = made_up_queries(count, setting.lengths.query, vocab, setting.seed)
        # As long as the policy's: labelers compared its samples and references of like length.
        responses = made_up_responses(2 * count, setting.lengths.response, vocab, setting.seed)
        self._examples = [
            RankedPrompt(query, responses[2 * i : 2 * i + 2], [1, 2]) for i, query in enumerate(queries)
        ]
        model = random_reward(setting.config, Device.open(setting.precision).device, setting.seed)
        freeze_lowest(model, settings.frozen_layers)
        rows = [(len(e.query), [len(response) for response in e.responses]) for e in self._examples]
        super().__init__(settings, {"reward": model}, rows, setting)

    def step(self, parts: Sequence[Sequence[int]]) -> Row:
        """As `tldr.stages.reward.stage.train_reward`."""
        batches = [collate_prompts([self._examples[i] for i in part], PAD) for part in parts]
        return self.stepper.step(ranking_loss, [batch.to(self._device) for batch in batches])


class PPOWork(PPOStage):
    """The PPO stage with random networks; an update is an iteration, timed by phase.

    Without pretraining text (PPO-ptx), of which there is none; sampled by the policy itself.
    """

    def __init__(self, settings: PPOSettings, setting: Setting):
        left_out = {"ptx_coef": 0.0, "save_steps": None, "keep_rollouts": None, "sampler": "own"}
        settings = settings.model_copy(update=left_out)
        folder = Path("unused")
        inputs = PPOInputs(policy=folder, reference=folder, reward=folder, data=folder)
        self.ctx = RunContext(settings, folder, inputs, lengths=setting.lengths, precision=setting.precision)
        self.settings, self.batch = settings, scalar(settings.batch)
        self.seed = derive(setting.seed, "ppo")
        self.accelerator = make_accelerator(setting.precision)
        self.device = Device.open(setting.precision)
        self.tokenizer = bare_tokenizer()
        self.documents = []
        config, device = setting.config, self.device.device
        queries = self.batch // settings.samples_per_query
        count = max(EXAMPLES, queries)
        self.queries = made_up_queries(count, setting.lengths.query, int(config.vocab_size), setting.seed)
        policy = random_policy(config, device, setting.seed)
        self.sampler = OwnSampler(policy, self.accelerator, self.device, eos_id(self.tokenizer), PAD)
        modules: dict[str, nn.Module] = {"policy": policy}
        if settings.value_network == "shared":
            add_value_head(policy)
        elif settings.algorithm == "ppo":
            modules["value"] = random_reward(config, device, setting.seed)
        self.stepper = Stepper(self.accelerator, modules, settings, self.seed)
        dtype = torch.bfloat16 if settings.frozen_dtype == "bf16" else torch.float32
        frozen = [random_policy(config, device, setting.seed), random_reward(config, device, setting.seed)]
        self.reference, self.reward = (
            Frozen(nn.Module.to(model, dtype), settings.frozen_place, device) for model in frozen
        )
        self.plan = BatchPlan([0] * count, queries, self.seed, updates=ENDLESS, keep_last=False)
        self.loop = TrainLoop("ppo", folder, self.stepper, ENDLESS, settings)
        self._marks: dict[str, float] = {}

    def _models(self) -> Models:
        models = super()._models()

        def trained(batch: PackedBatch) -> dict[str, Tensor]:
            self._marks.setdefault("sampled", clock(self.device.device))  # all is, before the first is scored
            return models.trained(batch)

        return replace(models, trained=trained)

    def _experience(self, iteration: int) -> Experience:
        experience = super()._experience(iteration)
        self._marks["scored"] = clock(self.device.device)
        return experience

    def _steps(self, rollout: Rollout, index: int) -> list[Row]:
        lengths = rollout.query_mask.sum(-1).tolist(), rollout.response_mask.sum(-1).tolist()
        self.rows: list[Lengthy] = list(zip(*lengths, strict=True))
        return super()._steps(rollout, index)

    def update(self, index: int) -> Done:
        """See `Work`."""
        self._marks.clear()
        self.loop.part = 0  # as `TrainLoop.run` does between updates
        start = clock(self.device.device)
        self.stepper.set_lr(index, ENDLESS)
        figures = self.iteration(index)
        end, marks = clock(self.device.device), self._marks
        phases = {
            "generation": marks["sampled"] - start,
            "scoring": marks["scored"] - marks["sampled"],
            "update": end - marks["scored"],
        }
        return Done(end - start, figures["tokens"], self.rows, phases, figures)


def work_of(settings: SFTSettings | RewardSettings | PPOSettings, setting: Setting) -> Work:
    """A stage set up with random weights, by the class of its settings."""
    kinds: dict[type, Callable[..., Work]] = {
        SFTSettings: SFTWork,
        RewardSettings: RewardWork,
        PPOSettings: PPOWork,
    }
    return kinds[type(settings)](settings, setting)
