"""A study expanded into runs, each named by a hash of everything it depends on.

::

    data -> pretrain -> sft -> labels (of all sizes' samples) -> reward -> ppo -> sample -> score
                        sft -> best_of_n -> score;   pretrain, sft -> sample -> score
    all sizes' reward models and SFT policies -> pairs;   samples of all policies -> ratings
    pretrained, sft, ppo -> sample -> score once more on news articles, where the data has some
    variants: reward, ppo -> sample -> score, or best_of_n once more with other settings
    further rounds: ppo of all sizes -> labels -> reward (from SFT, on all labels so far) -> ppo

What a rung of the ladder loads from a path is not pretrained. Parents are made before children,
so the graph has no circles and the list of runs is in an order they can be run in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tldr.errors import UsageError
from tldr.settings.base import Settings
from tldr.settings.models import ModelSpec
from tldr.stages.data.settings import DataSettings, FileData
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.shared.settings import EvaluationSettings
from tldr.study.hashes import FileHashes, code_version, sha256
from tldr.study.load import nearest
from tldr.study.registry import STAGES
from tldr.study.settings import BestOfNVariant, PPOVariant, RewardVariant, Study

Tags = dict[str, str | int | float | bool]

REWARD_DRAW, ROUND_DRAW = 1_000, 100_000
"""Added to a study's seed for every further reward model, and for every further round of labels."""


@dataclass(frozen=True)
class Source:
    """Where an input comes from: a run, the best of several (reward models), or a path or hub name."""

    runs: tuple[Run, ...] = ()
    external: str = ""
    identity: str = ""
    """Of `external`: its content's hash, or the hub name."""


@dataclass(frozen=True)
class Run:
    """One run of one stage.

    Attributes:
        size: rung of the ladder, where the stage has one.
        seed: the study's seed; None where the stage does not depend on it.
        method: the policy that is sampled or scored.
        variant: what sets it apart from the main run ("rm1", "r2"); "" is the main one.
        dataset: what is summarized, where it is not posts ("cnndm").
        offset: added to the seed, so that further reward models and rounds draw anew.
        ingredients: everything the run depends on; its key is their hash.
    """

    stage: str
    settings: Settings
    size: str | None = None
    seed: int | None = None
    method: str = ""
    variant: str = ""
    dataset: str = ""
    offset: int = 0
    model: ModelSpec | None = None
    parents: dict[str, Source] = field(default_factory=dict)
    ingredients: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """sha256 of the ingredients."""
        return sha256(json.dumps(self.ingredients, sort_keys=True))

    @property
    def title(self) -> str:
        """Its name without the key: what stays the same when a setting is changed."""
        seed = None if self.seed is None else f"s{self.seed}"
        return "-".join(filter(None, (self.stage, self.size, seed, self.method, self.variant, self.dataset)))

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.title}-{self.key[:10]}"

    @property
    def tags(self) -> Tags:
        """What its samples are grouped by in tables."""
        tags = {"size": self.size, "method": self.method, "variant": self.variant, "dataset": self.dataset}
        return {name: value for name, value in tags.items() if value}

    def parent_runs(self) -> list[Run]:
        """All runs that must be done before this one."""
        return [run for source in self.parents.values() for run in source.runs]


def expand(study: Study, files: FileHashes) -> list[Run]:
    """All runs of a study, parents before children.

    Args:
        files: hashes of the data and model files that the study names.

    Raises:
        UsageError: such a file is missing.
    """
    graph = _Graph(study, files)
    data = graph.add(Run("data", DataSettings(data=study.data, tokenizer=study.tokenizer)))
    for seed in study.seeds:
        graph.add_seed(seed, data)
    return list(graph.runs.values())


def needed_for(runs: list[Run], stage: str | None) -> list[Run]:
    """The runs of one stage and all they need; without a stage, all runs.

    Raises:
        UsageError: the study has no such stage.
    """
    if stage is None:
        return runs
    stages = list(dict.fromkeys(run.stage for run in runs))
    if stage not in stages:
        raise UsageError(
            f"the study has no stage '{stage}'{nearest(stage, stages)}",
            where="--only",
            remedy=f"choose from {', '.join(stages)}",
        )
    wanted: set[str] = set()
    for run in reversed(runs):
        if run.stage == stage or run.name in wanted:
            wanted.update([run.name, *(parent.name for parent in run.parent_runs())])
    return [run for run in runs if run.name in wanted]


Parents = dict[str, Source]


@dataclass(frozen=True)
class Made:
    """What one seed's main runs left: `models` are size -> method -> policy."""

    seed: int
    data: Source
    labels: Parents
    models: dict[str, Parents]
    reward: Parents
    samples: Parents = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """A variant's name, the reward model that scores its samples, and how they are drawn (None: as the
    study's own policies)."""

    name: str
    reward: Source
    temperatures: list[float] | None = None


class _Graph:
    """Collects runs by name; a run that is there already is not added twice."""

    def __init__(self, study: Study, files: FileHashes):
        self.study, self.files = study, files
        self.runs: dict[str, Run] = {}

    def add(self, run: Run) -> Source:
        """Complete a run with its ingredients and keep it."""
        ingredients: dict[str, Any] = {
            "stage": run.stage,
            "settings": self._settings(run.settings),
            "seed": run.seed,
            "offset": run.offset,
            "tags": run.tags,
            "model": run.model.model_dump(mode="json") if run.model and run.stage == "pretrain" else None,
            "lengths": self.study.lengths.model_dump(mode="json"),
            "precision": self.study.precision,
            "parents": {name: _identity(source) for name, source in run.parents.items()},
            "code": code_version(STAGES[run.stage].module),
        }
        run = replace(run, ingredients=ingredients)
        run = self.runs.setdefault(run.name, run)
        return Source(runs=(run,))

    def _settings(self, settings: Settings) -> dict[str, Any]:
        """Settings as JSON; a file counts by what is in it, not by where it lies."""
        values = settings.model_dump(mode="json")
        if isinstance(settings, DataSettings):
            if isinstance(settings.data, FileData):
                no_path = ("kind", "on_error")
                paths = {name: v for name, v in values["data"].items() if v and name not in no_path}
                hashes = {name: self.files.data(value) for name, value in paths.items()}
                values["data"] |= hashes
            if settings.tokenizer.path is not None:
                values["tokenizer"] = {"path": self.files.place(settings.tokenizer.path)}
        return values

    def add_seed(self, seed: int, data: Source) -> None:
        """Every run that belongs to one seed."""
        sizes = list(self.study.ladder)
        start = {size: self._start(size, seed, data) for size in sizes}
        sft = {
            size: self._add("sft", self.study.sft, size, seed, {"policy": start[size], "data": data})
            for size in sizes
        }
        # How many rounds follow does not matter to a run, so it is no part of its settings.
        ppo = self.study.ppo.model_copy(update={"rounds": PPOSettings.model_fields["rounds"].default})
        policies, labels, reward = sft, dict[str, Source](), dict[str, Source]()
        for number in range(1, self.study.ppo.rounds + 1):
            name = "labels" if number == 1 else f"labels-{number}"
            labels[name] = self._labels(number, seed, policies, data)
            for size in sizes:
                parents = {"policy": sft[size], **labels, "data": data}
                reward[size] = self._reward(number, size, seed, parents)
                parents = {"policy": policies[size], "reference": sft[size], "reward": reward[size]}
                run = self._run("ppo", ppo, size, seed, parents | {"data": data})
                policies = policies | {size: self.add(replace(run, **_round(number)))}
        models = {
            size: {"pretrained": start[size], "sft": sft[size], "ppo": policies[size]} for size in sizes
        }
        main = Made(seed, data, labels, models, reward)
        for size in sizes:
            self._measure(main, size)
        rewards = self._reward_variants(main)
        self._policy_variants(main, rewards)
        self._pools(main, rewards)
        if self.study.pairs is not None:
            self._pairs(main, rewards)
        if self.study.ratings is not None:
            self.add(Run("ratings", self.study.ratings, seed=seed, parents={"data": data, **main.samples}))

    def _run(self, stage: str, settings: Settings, size: str, seed: int, parents: Parents) -> Run:
        return Run(stage, settings.for_size(size), size, seed, model=self.study.ladder[size], parents=parents)

    def _add(self, stage: str, settings: Settings, size: str, seed: int, parents: Parents) -> Source:
        return self.add(self._run(stage, settings, size, seed, parents))

    def _start(self, size: str, seed: int, data: Source) -> Source:
        """What SFT starts from: the pretrained run, or the ladder's path."""
        path = self.study.ladder[size].path
        if path is not None:
            return Source(external=path, identity=self.files.place(path))
        assert self.study.pretrain is not None
        return self._add("pretrain", self.study.pretrain, size, seed, {"data": data})

    def _labels(self, number: int, seed: int, policies: dict[str, Source], data: Source) -> Source:
        """Labels of what all sizes write; those of files are what they are, whatever the seed."""
        if isinstance(self.study.data, FileData):
            return self.add(Run("labels", self.study.labels, parents={"data": data}))
        parents = {"data": data} | {f"policy-{size}": policy for size, policy in policies.items()}
        return self.add(Run("labels", self.study.labels, seed=seed, parents=parents, **_round(number)))

    def _reward(self, number: int, size: str, seed: int, parents: Parents) -> Source:
        """The reward models of a size, all on the same labels; who uses them takes the best."""
        settings = self.study.reward.model_copy(
            update={"seeds": RewardSettings.model_fields["seeds"].default}
        )
        run = self._run("reward", settings, size, seed, parents)
        runs: list[Run] = []
        for index in range(self.study.reward.seeds):
            changes = _round(number, *([f"rm{index}"] if index else []))
            changes["offset"] += REWARD_DRAW * index
            runs += self.add(replace(run, **changes)).runs
        return Source(runs=tuple(runs))

    def _measure(self, made: Made, size: str) -> None:
        """Samples of every policy of a size, and their scores."""
        for method, policy in made.models[size].items():
            sampled = self._sample_and_score(made, size, method, policy)
            made.samples[f"samples-{method}-{size}"] = sampled
            if isinstance(self.study.data, FileData) and self.study.data.cnndm is not None:
                self._on_news(made, size, method, policy)
        if self.study.best_of_n is not None:
            run = self._best_of_n(made, size, self.study.best_of_n)
            self._score(made, size, "best_of_n", self.add(run), made.models[size]["sft"])

    def _evaluation(self, method: str, temperatures: list[float] | None = None) -> EvaluationSettings:
        """What of the evaluation's settings matters to a run: the bootstrap's draws do to the report only,
        zero-shot examples to the pretrained policies."""
        changes: dict[str, Any] = {"bootstrap": EvaluationSettings.model_fields["bootstrap"].default}
        if method != "pretrained":
            changes["zero_shot"] = None
        if temperatures is not None:
            changes["temperatures"] = temperatures
        return self.study.evaluation.model_copy(update=changes)

    def _sample_and_score(
        self, made: Made, size: str, method: str, policy: Source, sweep: Sweep | None = None
    ) -> Source:
        temperatures = sweep.temperatures if sweep else None
        settings = self._evaluation(method, temperatures)
        run = self._run("sample", settings, size, made.seed, {"policy": policy, "data": made.data})
        sampled = self.add(replace(run, method=method, variant=sweep.name if sweep else ""))
        self._score(made, size, method, sampled, policy, sweep)
        return sampled

    def _score(
        self,
        made: Made,
        size: str,
        method: str,
        samples: Source,
        policy: Source,
        sweep: Sweep | None = None,
    ) -> None:
        parents = {"samples": samples, "policy": policy, "sft": made.models[size]["sft"], "data": made.data}
        parents["reward"] = sweep.reward if sweep else made.reward[size]
        if method == "ppo":
            parents["ppo"] = policy
        settings = self._evaluation(method, sweep.temperatures if sweep else None)
        run = self._run("score", settings, size, made.seed, parents)
        self.add(replace(run, method=method, variant=sweep.name if sweep else ""))

    def _on_news(self, made: Made, size: str, method: str, policy: Source) -> None:
        """A policy's summaries of the articles at the lowest temperature (P 4.2), and their scores."""
        chosen = {"temperatures": [min(self.study.evaluation.temperatures)]}
        settings = self._evaluation("").model_copy(update=chosen | {"sft_temperatures": [], "sft_top_ps": []})
        run = self._run("sample", settings, size, made.seed, {"policy": policy, "data": made.data})
        parents = {"samples": self.add(replace(run, method=method, dataset="cnndm")), "policy": policy}
        parents |= {"sft": made.models[size]["sft"], "reward": made.reward[size], "data": made.data}
        run = self._run("score", settings, size, made.seed, parents)
        self.add(replace(run, method=method, dataset="cnndm"))

    def _best_of_n(self, made: Made, size: str, settings: Settings, **more: Source) -> Run:
        parents = {"policy": made.models[size]["sft"], "reward": made.reward[size], "data": made.data}
        return self._run("best_of_n", settings, size, made.seed, parents | more)

    def _reward_variants(self, made: Made) -> dict[tuple[str, str], Source]:
        """Reward models trained otherwise, on the first round's labels: (variant, size) -> run."""
        rewards: dict[tuple[str, str], Source] = {}
        for name, variant in self.study.variants.items():
            if not isinstance(variant, RewardVariant):
                continue
            settings = variant.set.model_copy(update={"seeds": RewardSettings.model_fields["seeds"].default})
            for size in variant.sizes or self.study.ladder:
                parents = {"policy": made.models[size]["sft"], "labels": made.labels["labels"]}
                run = self._run("reward", settings, size, made.seed, parents | {"data": made.data})
                rewards[name, size] = self.add(replace(run, variant=name))
        return rewards

    def _policy_variants(self, made: Made, rewards: dict[tuple[str, str], Source]) -> None:
        """Policies trained otherwise from SFT, sampled, and scored by the reward model they trained on."""
        for name, variant in self.study.variants.items():
            if not isinstance(variant, PPOVariant):
                continue
            for size in variant.sizes or self.study.ladder:
                sft = made.models[size]["sft"]
                reward = rewards[variant.reward, size] if variant.reward else made.reward[size]
                parents = {"policy": sft, "reference": sft, "reward": reward, "data": made.data}
                run = self._run("ppo", variant.set, size, made.seed, parents)
                policy = self.add(replace(run, variant=name))
                sweep = Sweep(name, reward, variant.temperatures)
                self._sample_and_score(made, size, "ppo", policy, sweep)
                if variant.reward:  # what that reward model makes of the policy that all of them start from
                    start = Sweep(variant.reward, reward)
                    self._score(made, size, "sft", made.samples[f"samples-sft-{size}"], sft, start)

    def _pools(self, made: Made, rewards: dict[tuple[str, str], Source]) -> None:
        """Larger pools, scored by the reward models of all sizes and by the variants of their own."""
        for name, variant in self.study.variants.items():
            if isinstance(variant, BestOfNVariant):
                for size in variant.sizes or self.study.ladder:
                    others = {f"reward-{other}": made.reward[other] for other in self.study.ladder}
                    own = {key: source for key, source in rewards.items() if key[1] == size}
                    others |= {f"reward-{size}_{key[0]}": source for key, source in own.items()}
                    run = self._best_of_n(made, size, variant.set, **others)
                    self.add(replace(run, variant=name))

    def _pairs(self, made: Made, rewards: dict[tuple[str, str], Source]) -> None:
        """Pairs scored by every reward model and SFT policy of the seed."""
        parents = {"data": made.data, "labels": list(made.labels.values())[-1]}
        for size, models in made.models.items():
            parents |= {f"policy-{method}-{size}": models[method] for method in ("sft", "ppo")}
            parents |= {f"sft-{size}": models["sft"], f"reward-{size}": made.reward[size]}
        parents |= {f"reward-{size}_{name}": source for (name, size), source in rewards.items()}
        assert self.study.pairs is not None
        self.add(Run("pairs", self.study.pairs, seed=made.seed, parents=parents))


def _round(number: int, *variant: str) -> dict[str, Any]:
    """How a round's runs differ from the first round's."""
    names = [*variant, *([f"r{number}"] if number > 1 else [])]
    return {"variant": "-".join(names), "offset": ROUND_DRAW * (number - 1)}


def _identity(source: Source) -> str | list[str]:
    return [run.key for run in source.runs] if source.runs else source.identity
