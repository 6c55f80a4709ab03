"""Expand a study into runs, each named by a hash of its settings, seed and external inputs.

::

    data -> pretrain -> sft -> labels (of all sizes' samples) -> reward -> ppo -> sample -> score
                        sft -> best_of_n -> score;   pretrain, sft -> sample -> score
    all sizes' reward models and SFT policies -> pairs;   samples of all policies -> ratings
    pretrained, sft, ppo -> sample -> score again on news articles and further posts, if the data has some
    variants: sft -> sample -> score, reward, ppo -> sample -> score, or best_of_n, with other settings
    scores of all policies (and pools, if asked for) -> judge, for every judge
    sft.select: reward:       sft and the first reward model of its size -> epoch, which all but labels so far
                              and reward models then read in the place of sft
    earlier rounds (r1, ...): labels -> reward -> ppo, whose samples, and the best of several SFT samples by
                              whose reward models, are labelled in the next round

A model that is loaded from a path is not pretrained. Parents are created before their children, so the
graph has no cycles, and the runs are listed in an order in which they can be executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from tldr.errors import UsageError
from tldr.settings.base import Settings, scalar
from tldr.stages.best_of_n import BestOfNInputs
from tldr.stages.data import DataInputs
from tldr.stages.data.settings import DataSettings, FileData
from tldr.stages.epoch import EpochInputs
from tldr.stages.labels import LabelsInputs
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.pairs import PairsInputs
from tldr.stages.ppo import PPOInputs
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.pretrain import PretrainInputs
from tldr.stages.ratings import RatingsInputs
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sample import SampleInputs
from tldr.stages.score import ScoreInputs
from tldr.stages.sft import SFTInputs
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.settings import NEWS, EvaluationSettings
from tldr.study.hashes import FileHashes
from tldr.study.judging import judge_runs
from tldr.study.runs import InputSource, Run, run_of
from tldr.study.seed_runs import SeedRuns, VariantSampling, Writers, by_size, of_one_model, on_labels, size_of
from tldr.study.settings import Study
from tldr.study.variants import Variants
from tldr.toy.settings import ToyData

REWARD_DRAW, ROUND_DRAW = 1_000, 100_000
"""Added to a study's seed for every additional reward model and every additional round of labels."""


def expand(study: Study, files: FileHashes) -> list[Run]:
    """All runs of a study, parents before children.

    Args:
        files: hashes of the data and model files that the study names.

    Raises:
        UsageError: such a file is missing, or two different runs would have one title.
    """
    graph = Graph(study, files)
    path = study.tokenizer.path
    tokenizer = study.tokenizer.model_copy(update={"path": None if path is None else files.pinned(path)})
    worlds: dict[int | None, ToyData | FileData] = {None: study.data}
    if isinstance(study.data, ToyData) and len(study.data.seeds) > 1:
        worlds = {world.seed: world for world in study.data.worlds()}
    for data_seed, world in worlds.items():
        settings = DataSettings(data=world, tokenizer=tokenizer)
        data = graph.add(run_of(DataInputs(), settings, data_seed=data_seed))
        for seed in study.seeds:
            graph.add_seed(seed, data)
    return list(graph.runs.values())


class Graph:
    """Collects runs by name; equal runs are added only once."""

    def __init__(self, study: Study, files: FileHashes):
        self.study, self.files = study, files
        self.runs: dict[str, Run] = {}
        self._titles: dict[str, str] = {}

    def add(self, run: Run) -> InputSource:
        """Add the ingredients and the parents' data seed to a run, and keep it."""
        data_seeds = {run.data_seed, *(parent.data_seed for parent in run.parent_runs())} - {None}
        if data_seeds:
            (data_seed,) = data_seeds
            run = replace(run, data_seed=data_seed)
        ingredients: dict[str, Any] = {
            "stage": run.stage,
            "settings": self._settings(run.settings),
            "seed": run.seed,
            "offset": run.offset,
            "tags": run.tags,
            "model": run.model.model_dump(mode="json") if run.model and run.stage == "pretrain" else None,
            "lengths": self.study.lengths.model_dump(mode="json"),
            "precision": self.study.precision,
            "threads": self.study.threads,
            "parents": {name: _identity(source) for name, source in run.parents.items()},
        }
        run = replace(run, ingredients=ingredients)
        run = self.runs.setdefault(run.name, run)
        if self._titles.setdefault(run.title.casefold(), run.name) != run.name:
            raise UsageError(
                f"two different runs would be called {run.title}",
                where=f"study {self.study.name}",
                remedy="rename a variant or a size of the ladder",
            )
        return InputSource(runs=(run,))

    def _settings(self, settings: Settings) -> dict[str, Any]:
        """Settings as JSON; files are represented by their content, not by their path.

        Of the page on which people label only the labelers of an item count: what they have labeled must not
        be lost because its title, its instructions or the known answers are changed.
        """
        values = settings.naming()
        if isinstance(settings, LabelsSettings) and settings.kind == "people":
            values["page"] = {"labelers_per_item": settings.page.labelers_per_item}
            del values["known"]
        if isinstance(settings, DataSettings):
            if isinstance(settings.data, FileData):
                no_path = ("kind", "on_error", "report_unmarked")
                paths = {name: v for name, v in values["data"].items() if v and name not in no_path}
                hashes = {name: self.files.data(value) for name, value in paths.items()}
                values["data"] |= hashes
            if settings.tokenizer.path is not None:
                values["tokenizer"] = {"path": self.files.place(settings.tokenizer.path)}
        return values

    def add_seed(self, seed: int, data: InputSource) -> None:
        """Add every run of one seed."""
        sizes = self.study.policy_sizes
        start = {size: self._start(size, seed, data) for size in self.study.ladder}
        trained = {
            size: self._tried(
                [self.sft_run(self.study.sft, size, seed, start[size], data)], self.study.sft.lr_factors
            )
            for size in self.study.ladder
        }
        sft = {size: trained[size] for size in sizes}  # until a reward model chooses another epoch
        writers = Writers({f"sft-{size}": policy for size, policy in sft.items()})
        labels: list[InputSource] = []
        earlier: dict[tuple[str, str], tuple[InputSource, InputSource]] = {}
        for number, settings in enumerate(self.study.rounds, start=1):
            labels.append(self.labels(settings.labels, seed, writers, data, number))
            for size in settings.sizes or sizes:
                reward = self._reward(settings.reward, size, seed, trained, labels, data, number)
                sft[size] = self.chosen_epoch(self.study.sft, sft[size], reward, data)
                policy = self._ppo(settings.ppo, size, seed, sft[size], reward, data, number)
                earlier[f"r{number}", size] = reward, policy
                writers = writers.with_round(number, size, sft[size], reward, policy)
        labels.append(self.labels(self.study.labels, seed, writers, data))
        rewards, models = dict[str, InputSource](), dict[str, dict[str, InputSource]]()
        for size in sizes:
            rewards[size] = self._reward(self.study.reward, size, seed, trained, labels, data)
            sft[size] = self.chosen_epoch(self.study.sft, sft[size], rewards[size], data)
            policy = self._ppo(self.study.ppo, size, seed, sft[size], rewards[size], data)
            models[size] = {"pretrained": start[size], "sft": sft[size], "ppo": policy}
        main = SeedRuns(seed, data, labels, trained, models, rewards, by_size(rewards.values()))
        for size in sizes:
            self._measure(main, size)
        for (name, size), (reward, policy) in earlier.items():
            sampling = VariantSampling(name, reward)
            self.sample_and_score(main, size, "ppo", policy, sampling)
        variants = Variants(self, main)
        variants.add_supervised(start)
        variants.add_labels(writers)
        further = variants.add_rewards()
        judging = {judge.variant for judge in self.study.judges.values()}
        others = {(name, size_of(reward)): reward for (name, _), (reward, _) in earlier.items()}
        others |= {place: reward for place, reward in further.items() if place[0] not in judging}
        variants.add_policies(others)
        variants.add_pools(others)
        for run in judge_runs(self.study, self.files, main, others | further):
            self.add(run)
        if self.study.pairs is not None:
            self._pairs(main, others)
        if self.study.ratings is not None:
            rated = RatingsInputs(samples=main.samples, data=data)
            self.add(run_of(rated, self.study.ratings, seed=seed))

    def run(self, inputs: Any, settings: Settings, size: str, seed: int) -> Run:
        """A run with the model of a size; it is not added."""
        model = self.study.ladder[size]
        return run_of(inputs, settings.for_size(size), size=size, seed=seed, model=model)

    def _add(self, inputs: Any, settings: Settings, size: str, seed: int) -> InputSource:
        return self.add(self.run(inputs, settings, size, seed))

    def sft_run(self, given: SFTSettings, size: str, seed: int, start: InputSource, data: InputSource) -> Run:
        """SFT at the first learning rate."""
        return self.run(SFTInputs(policy=start, data=data), of_one_model(given), size, seed)

    def _start(self, size: str, seed: int, data: InputSource) -> InputSource:
        """The initial policy of SFT: the pretrained run, or the ladder's path."""
        path = self.study.ladder[size].path
        if path is not None:
            return InputSource.outside(path, self.files)
        assert self.study.pretrain is not None
        return self._add(PretrainInputs(data=data), self.study.pretrain, size, seed)

    def labels(
        self,
        settings: LabelsSettings,
        seed: int,
        writers: Writers,
        data: InputSource,
        number: int = 0,
        variant: str = "",
    ) -> InputSource:
        """Labels of what the writers write; given labels do not depend on the seed.

        Args:
            number: of an earlier round; 0 is the last one. variant: that asks in another way.
        """
        if isinstance(self.study.data, FileData) and settings.kind != "people":
            return self.add(run_of(LabelsInputs(data=data), settings))
        rewards = writers.rewards if settings.choose_by is not None else {}
        inputs = LabelsInputs(
            data=data, policies=writers.policies, choosers=writers.choosers, rewards=rewards
        )
        return self.add(
            run_of(inputs, settings, seed=seed, **_round(number, *([variant] if variant else [])))
        )

    def chosen_epoch(
        self,
        given: SFTSettings,
        policy: InputSource,
        reward: InputSource,
        data: InputSource,
        variant: str = "",
    ) -> InputSource:
        """The epoch of an SFT run that a reward model scores highest, where the run's settings ask for it. A
        policy that was chosen so stays."""
        (trained, *_) = policy.runs
        if given.select != "reward" or trained.stage == "epoch":
            return policy
        assert trained.size is not None and trained.seed is not None
        inputs = EpochInputs(policy=policy, reward=reward, data=data)
        run = self.run(inputs, self.study.epoch, trained.size, trained.seed)
        return self.add(replace(run, variant=variant))

    def _ppo(
        self,
        settings: PPOSettings,
        size: str,
        seed: int,
        sft: InputSource,
        reward: InputSource,
        data: InputSource,
        number: int = 0,
    ) -> InputSource:
        """The policy trained from SFT against a round's reward model."""
        inputs = PPOInputs(policy=sft, reference=sft, reward=reward, data=data)
        return self.add(replace(self.run(inputs, settings, size, seed), **_round(number)))

    def _reward(
        self,
        given: RewardSettings,
        size: str,
        seed: int,
        trained: Mapping[str, InputSource],
        labels: list[InputSource],
        data: InputSource,
        number: int = 0,
    ) -> InputSource:
        """The reward models that a size's policy is trained against, all on the same labels: of its own size,
        or of `reward.size`, which are added once for all sizes."""
        own = given.of_policy(size)
        run = self.run(on_labels(trained[own], labels, data), of_one_model(given), own, seed)
        draws: list[Run] = []
        for index in range(given.seeds):
            changes = _round(number, *([f"rm{index}"] if index else []))
            changes["offset"] += REWARD_DRAW * index
            draws.append(replace(run, **changes))
        return self._tried(draws, given.lr_factors)

    def _tried(self, runs: list[Run], factors: list[float]) -> InputSource:
        """Runs of SFT or a reward model, each at all learning rates; runs that read them use the best."""
        found: list[Run] = []
        for run, factor in product(runs, factors):
            settings = run.settings
            assert isinstance(settings, SFTSettings | RewardSettings)
            if factor != 1.0:
                optimizer = settings.optimizer
                rate = optimizer.model_copy(update={"lr": scalar(optimizer.lr) * factor})
                variant = "-".join(filter(None, (run.variant, f"lr{factor:g}")))
                run = replace(run, settings=settings.model_copy(update={"optimizer": rate}), variant=variant)
            found += self.add(run).runs
        return InputSource(runs=tuple(found))

    def _measure(self, seed_runs: SeedRuns, size: str) -> None:
        """Add samples of every policy of a size, and their scores."""
        for method, policy in seed_runs.models[size].items():
            sampled = self.sample_and_score(seed_runs, size, method, policy)
            seed_runs.samples[f"{method}-{size}"] = sampled
            if isinstance(self.study.data, FileData):
                news = [NEWS] if self.study.data.cnndm is not None else []
                for dataset in [*self.study.data.further(), *news]:
                    self._on_dataset(seed_runs, size, method, policy, dataset)
        if self.study.best_of_n is not None:
            pool = self.add(self.best_of_n(seed_runs, size, self.study.best_of_n))
            seed_runs.offer_pool(size, pool)
            self.score(seed_runs, size, "best_of_n", pool, seed_runs.models[size]["sft"])

    def _evaluation(self, method: str, temperatures: list[float] | None = None) -> EvaluationSettings:
        """The evaluation settings that a run depends on: bootstrap draws only affect the report, and
        zero-shot examples only the pretrained policies."""
        changes: dict[str, Any] = {"bootstrap": EvaluationSettings.model_fields["bootstrap"].default}
        if method != "pretrained":
            changes["zero_shot"] = None
        if temperatures is not None:
            changes["temperatures"] = temperatures
            if method == "sft":  # of a variant: its further ways of sampling are not asked for
                changes |= {"sft_temperatures": [], "sft_top_ps": []}
        return self.study.evaluation.model_copy(update=changes)

    def sample_and_score(
        self,
        seed_runs: SeedRuns,
        size: str,
        method: str,
        policy: InputSource,
        sampling: VariantSampling | None = None,
    ) -> InputSource:
        temperatures = sampling.temperatures if sampling else None
        settings = self._evaluation(method, temperatures)
        run = self.run(SampleInputs(policy=policy, data=seed_runs.data), settings, size, seed_runs.seed)
        sampled = self.add(replace(run, method=method, variant=sampling.name if sampling else ""))
        self.score(seed_runs, size, method, sampled, policy, sampling)
        return sampled

    def score(
        self,
        seed_runs: SeedRuns,
        size: str,
        method: str,
        samples: InputSource,
        policy: InputSource,
        sampling: VariantSampling | None = None,
    ) -> None:
        inputs = ScoreInputs(
            samples=samples,
            policy=policy,
            sft=seed_runs.models[size]["sft"],
            reward=sampling.reward if sampling else seed_runs.reward[size],
            ppo=policy if method == "ppo" else None,
            data=seed_runs.data,
        )
        settings = self._evaluation(method, sampling.temperatures if sampling else None)
        run = self.run(inputs, settings, size, seed_runs.seed)
        name = "-".join(filter(None, (method, size, sampling.name if sampling else "")))
        scored = replace(run, method=method, variant=sampling.name if sampling else "")
        (seed_runs.further if sampling else seed_runs.scored)[name] = self.add(scored)

    def _on_dataset(
        self, seed_runs: SeedRuns, size: str, method: str, policy: InputSource, dataset: str
    ) -> None:
        """Add a policy's summaries of the articles (P 4.2) or of further posts at the lowest temperature, and
        their scores; articles have no in-context examples."""
        chosen = {"temperatures": [min(self.study.evaluation.temperatures)]}
        settings = self._evaluation("" if dataset == NEWS else method)
        settings = settings.model_copy(update=chosen | {"sft_temperatures": [], "sft_top_ps": []})
        run = self.run(SampleInputs(policy=policy, data=seed_runs.data), settings, size, seed_runs.seed)
        inputs = ScoreInputs(
            samples=self.add(replace(run, method=method, dataset=dataset)),
            policy=policy,
            sft=seed_runs.models[size]["sft"],
            reward=seed_runs.reward[size],
            data=seed_runs.data,
        )
        run = self.run(inputs, settings, size, seed_runs.seed)
        self.add(replace(run, method=method, dataset=dataset))

    def best_of_n(
        self,
        seed_runs: SeedRuns,
        size: str,
        settings: Settings,
        rewards: Mapping[str, InputSource] | None = None,
    ) -> Run:
        policy, reward = seed_runs.models[size]["sft"], seed_runs.reward[size]
        inputs = BestOfNInputs(policy=policy, reward=reward, rewards=rewards or {}, data=seed_runs.data)
        return self.run(inputs, settings, size, seed_runs.seed)

    def _pairs(self, seed_runs: SeedRuns, rewards: dict[tuple[str, str], InputSource]) -> None:
        """Add pairs, scored by every reward model and SFT policy of the seed."""
        assert self.study.pairs is not None
        inputs = PairsInputs(
            data=seed_runs.data,
            labels=seed_runs.labels[-1],
            policies={
                f"{method}-{size}": models[method]
                for size, models in seed_runs.models.items()
                for method in ("sft", "ppo")
            },
            rewards=seed_runs.rewards
            | {f"{size}_{name}": source for (name, size), source in rewards.items()},
            sft={size: models["sft"] for size, models in seed_runs.models.items()},
        )
        self.add(run_of(inputs, self.study.pairs, seed=seed_runs.seed))


def _round(number: int, *variant: str) -> dict[str, Any]:
    """The fields in which the runs of an earlier round differ from those of the last, which is 0."""
    names = [*([f"r{number}"] if number else []), *variant]
    return {"variant": "-".join(names), "offset": ROUND_DRAW * number}


def _identity(source: InputSource) -> str | list[str]:
    return [run.key for run in source.runs] if source.runs else source.identity
