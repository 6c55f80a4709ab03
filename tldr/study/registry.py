"""The stages by name: the module that runs each, its settings, and what it reads.

The one table behind the graph, the runner and the command line. Modules are imported when a stage
runs and not before, so that no command waits for torch that does not need it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tldr.settings.base import Settings
from tldr.settings.training import Training
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.data.settings import DataSettings
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.pairs.settings import PairsSettings
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.pretrain.settings import PretrainSettings
from tldr.stages.ratings.settings import RatingsSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.settings import EvaluationSettings


@dataclass(frozen=True)
class Stage:
    """One kind of run.

    Attributes:
        module: holds ``run(ctx)``.
        inputs: names of what it reads; the graph may add numbered ones (``policy-s``, ``labels-2``).
        optional: inputs it can do without.
        weight: rough cost next to the others', for a model of the same size.
        help: what it does, in a line.
    """

    module: str
    settings: type[Settings]
    inputs: tuple[str, ...]
    help: str
    weight: float
    optional: tuple[str, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether it is on the training loop, which several processes can share."""
        return issubclass(self.settings, Training)

    def load(self) -> Callable[[RunContext[Any]], None]:
        """Import the module and hand over its ``run``."""
        run: Callable[[RunContext[Any]], None] = importlib.import_module(self.module).run
        return run


STAGES: dict[str, Stage] = {
    "data": Stage("tldr.stages.data.stage", DataSettings, (), "Collect posts and make the tokenizer.", 1),
    "pretrain": Stage(
        "tldr.stages.pretrain.stage",
        PretrainSettings,
        ("data",),
        "Train a language model from a random init.",
        4,
    ),
    "sft": Stage(
        "tldr.stages.sft.stage",
        SFTSettings,
        ("policy", "data"),
        "Fine-tune a policy on reference summaries.",
        1,
    ),
    "labels": Stage(
        "tldr.stages.labels.stage",
        LabelsSettings,
        ("data",),
        "Sample summaries and have simulated labelers rank them.",
        2,
    ),
    "reward": Stage(
        "tldr.stages.reward.stage",
        RewardSettings,
        ("policy", "labels", "data"),
        "Train a reward model on ranked summaries.",
        2,
    ),
    "ppo": Stage(
        "tldr.stages.ppo.stage",
        PPOSettings,
        ("policy", "reference", "reward", "data"),
        "Optimise a policy against a reward model.",
        6,
    ),
    "best_of_n": Stage(
        "tldr.stages.best_of_n.stage",
        BestOfNSettings,
        ("policy", "reward", "data"),
        "Sample N summaries a post and keep the best.",
        2,
    ),
    "sample": Stage(
        "tldr.stages.sample.stage",
        EvaluationSettings,
        ("policy", "data"),
        "Sample a policy on the reporting posts.",
        0.5,
    ),
    "score": Stage(
        "tldr.stages.score.stage",
        EvaluationSettings,
        ("samples", "sft", "reward", "policy", "ppo", "data"),
        "Score samples: reward model, log-probabilities, the planted truth.",
        0.5,
        optional=("sft", "reward", "policy", "ppo"),
    ),
    "pairs": Stage(
        "tldr.stages.pairs.stage",
        PairsSettings,
        ("data", "labels"),
        "Score labelled pairs and probes by every model.",
        2,
    ),
    "ratings": Stage(
        "tldr.stages.ratings.stage",
        RatingsSettings,
        ("data",),
        "Have simulated labelers rate every policy's summaries.",
        0.1,
    ),
}
