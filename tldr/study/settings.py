"""Settings of a study: data, ladder, seeds, stages, rounds, evaluation."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Annotated, TypeVar

from pydantic import Field, PositiveInt, model_validator

from tldr.errors import nearest
from tldr.settings.base import Name, Precision, Seed, Settings
from tldr.settings.models import Lengths, ModelSpec
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.data.settings import FileData, TokenizerSpec
from tldr.stages.epoch.settings import EpochSettings
from tldr.stages.judge.settings import JudgeSettings
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.pairs.settings import PairsSettings
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.pretrain.settings import PretrainSettings
from tldr.stages.ratings.settings import RatingsSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.settings import EvaluationSettings
from tldr.study.variant_settings import BestOfNVariant, LabelsVariant, PPOVariant, RewardVariant, Variant
from tldr.toy.settings import ToyData

SettingsT = TypeVar("SettingsT", SFTSettings, LabelsSettings, RewardSettings, PPOSettings)


class Round(Settings):
    """An earlier round of feedback, as the paper's batches: labels of what the policies so far write, reward
    models on all labels so far, and policies trained from SFT against them. Its settings are laid over the
    study's own."""

    sizes: list[Name] | None = None
    """Sizes that train a reward model and a policy in this round; None: the whole ladder."""
    labels: LabelsSettings
    reward: RewardSettings
    ppo: PPOSettings


class Study(Settings):
    """One experiment: data, ladder, seeds, stages, evaluation."""

    name: Name
    """Of the study's folder in `runs/`."""
    description: str = ""
    """A sentence for the report's head."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    """Every stage behind the data runs once for each."""
    precision: Precision = "auto"
    """auto: bf16 where the device multiplies in it, else fp32. Weights are fp32 in any case."""
    threads: PositiveInt = 1
    """CPU threads of a run's process. Last bits depend on their number, so the study sets it, whatever
    `--jobs` is."""
    data: Annotated[ToyData | FileData, Field(discriminator="kind")]
    """A generated world (`kind: toy`), or files (`kind: files`)."""
    tokenizer: TokenizerSpec = TokenizerSpec()
    lengths: Lengths = Lengths()
    ladder: Annotated[dict[Name, ModelSpec], Field(min_length=1)]
    sizes: Annotated[list[Name], Field(min_length=1)] | None = None
    """The sizes of the ladder that have policies; None: all. `load_study` removes the others (`chosen`),
    except one that `reward.size` names."""
    pretrain: PretrainSettings | None = None
    sft: SFTSettings = SFTSettings()
    labels: LabelsSettings = LabelsSettings()
    reward: RewardSettings = RewardSettings()
    epoch: EpochSettings = EpochSettings()
    ppo: PPOSettings = PPOSettings()
    rounds: list[Round] = []
    """Rounds of feedback before the last one, whose settings are `labels`, `reward` and `ppo` above. Labelers
    compare samples of all SFT policies. From the second round on they also compare samples of the earlier
    rounds' policies, and the best of several SFT samples by their reward models. Each round has `sizes` and
    what differs from the study's `labels`, `reward` and `ppo`."""
    best_of_n: BestOfNSettings | None = BestOfNSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    pairs: PairsSettings | None = None
    ratings: RatingsSettings | None = None
    judges: dict[Name, JudgeSettings] = {}
    """Who else says which summaries are better than the references: every preference figure, table and claim
    is drawn by each of them."""
    variants: dict[Name, Variant] = {}
    """Stages that run again with other settings, for scaling and ablations. In a study file a variant may
    have ``sweep: {beta: [0.1, 0]}``; it expands to one variant per value (``kl-0.1``, ``kl-0``)."""

    @property
    def policy_sizes(self) -> list[str]:
        """The sizes that have policies, in the ladder's order: all but one that only reward models need."""
        return [size for size in self.ladder if self.sizes is None or size in self.sizes]

    @property
    def reward_sizes(self) -> list[str]:
        """The sizes of the main reward models, in the ladder's order."""
        used = {self.reward.of_policy(size) for size in self.policy_sizes}
        return [size for size in self.ladder if size in used]

    def sizes_of(self, variant: Variant) -> list[str]:
        """The sizes at which a variant's runs are made."""
        if variant.sizes is not None:
            return variant.sizes
        if isinstance(variant, RewardVariant):
            return list(self.ladder)
        return self.reward_sizes if isinstance(variant, LabelsVariant) else self.policy_sizes

    def chosen(self) -> Study:
        """The study restricted to the sizes in `sizes` and those of their reward models: its ladder, settings
        and variants. `sizes` stays only if a size has a reward model and no policy.

        Raises:
            ValueError: `sizes` names a size that is not in the ladder.
        """
        if self.sizes is None:
            return self
        if odd := set(self.sizes) - set(self.ladder):
            raise ValueError(f"the ladder has {_list(self.ladder)}, but not {_list(odd)}")
        rounds = [(each, sizes) for each in self.rounds if (sizes := _some(each.sizes, self.sizes)) != []]
        named = {reward.size for reward in (self.reward, *(each.reward for each, _ in rounds))}
        kept = {*self.sizes, *(size for size in named if size is not None)}
        changes: dict[str, object] = {
            name: value.of_sizes(kept) for name, value in self if isinstance(value, Settings)
        }
        changes["ladder"] = {size: model for size, model in self.ladder.items() if size in kept}
        changes["variants"] = {
            name: variant.model_copy(update={"sizes": sizes, "set": variant.set.of_sizes(kept)})
            for name, variant in self.variants.items()
            if (sizes := _some(variant.sizes, kept if _of_rewards(variant) else self.sizes)) != []
        }
        changes["rounds"] = [
            Round(
                sizes=sizes,
                labels=each.labels,
                reward=each.reward.of_sizes(kept),
                ppo=each.ppo.of_sizes(kept),
            )
            for each, sizes in rounds
        ]
        changes["sizes"] = None if kept == set(self.sizes) else self.sizes
        return self.model_validate({**dict(self), **changes})

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for size, model in self.ladder.items():
            if model.path is None and self.pretrain is None:
                raise ValueError(
                    f"ladder.{size} is randomly initialised, but the study has no pretrain stage"
                )
            room = self.lengths.query + self.lengths.response
            if model.path is None and model.context < room:
                raise ValueError(
                    f"ladder.{size}.context {model.context} is shorter than query + response = {room}"
                )
            zero_shot = self.evaluation.zero_shot
            if zero_shot and model.path is None:
                room = zero_shot.query_tokens + self.lengths.response
                if model.context < room:
                    raise ValueError(
                        f"ladder.{size}.context {model.context} is shorter than "
                        f"evaluation.zero_shot.query_tokens + lengths.response = {room}"
                    )
        return self

    @model_validator(mode="after")
    def _names(self) -> Study:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: one is repeated")
        for stage, settings in self:
            for key, sizes in settings.size_maps() if isinstance(settings, Settings) else ():
                if odd := sizes ^ set(self.ladder):
                    raise ValueError(
                        f"{stage}.{key} has {_list(sizes)}, the ladder has {_list(self.ladder)}: "
                        f"they differ in {_list(odd)}"
                    )
        return self

    @model_validator(mode="after")
    def _reward_sizes(self) -> Study:
        """Reward models have sizes of the ladder; those of variants are told by `sizes` alone."""
        places = {"reward": self.reward}
        places |= {f"rounds.{number}.reward": each.reward for number, each in enumerate(self.rounds)}
        for place, reward in places.items():
            if reward.size is not None and reward.size not in self.ladder:
                raise ValueError(
                    f"{place}.size: the ladder has {_list(self.ladder)}, but not "
                    f"'{reward.size}'{nearest(reward.size, self.ladder)}"
                )
        for name, variant in self.variants.items():
            if isinstance(variant, RewardVariant) and variant.set.size is not None:
                raise ValueError(
                    f"variants.{name}.set.size: a reward variant's models have the sizes in its `sizes`: "
                    f"write variants.{name}.sizes: [{variant.set.size}]"
                )
            odd = set(variant.sizes or ()) - {self.reward.size}
            if isinstance(variant, LabelsVariant) and self.reward.size is not None and odd:
                raise ValueError(
                    f"variants.{name}.sizes: with reward.size {self.reward.size} no reward model of size "
                    f"{_list(odd)} has the study's own labels, to be compared with: drop it from the sizes"
                )
        return self

    @model_validator(mode="after")
    def _variants(self) -> Study:
        for name, variant in self.variants.items():
            if odd := set(variant.sizes or ()) - set(self.ladder):
                raise ValueError(f"variants.{name}.sizes: the ladder has no {_list(odd)}")
            if isinstance(variant, PPOVariant) and variant.reward is not None:
                other = self.variants.get(variant.reward)
                if not isinstance(other, RewardVariant):
                    raise ValueError(f"variants.{name}.reward: '{variant.reward}' is not a reward variant")
                used = {self.reward.of_policy(size) for size in variant.sizes or self.ladder}
                if odd := used - set(other.sizes or self.ladder):
                    raise ValueError(f"variants.{name}: {variant.reward} is not trained at size {_list(odd)}")
        return self

    def _with_variants(self, stage: str, settings: SettingsT) -> dict[str, SettingsT]:
        """A stage's settings and those of its variants, by their keys in the study file."""
        return {stage: settings} | {
            f"variants.{name}.set": variant.set
            for name, variant in self.variants.items()
            if isinstance(variant.set, type(settings))
        }

    @model_validator(mode="after")
    def _posts(self) -> Study:
        """No more posts are asked for than the toy world makes; files are counted when the stage runs."""
        if not isinstance(self.data, ToyData):
            return self
        sft = self._with_variants("sft", self.sft)
        ppo = {f"rounds.{number}.ppo": each.ppo for number, each in enumerate(self.rounds)}
        ppo |= self._with_variants("ppo", self.ppo)
        for kind, asked in (("sft", sft), ("ppo", ppo)):
            made = self.data.sft_posts if kind == "sft" else self.data.ppo_posts
            for key, settings in asked.items():
                if (settings.limit or 0) > made:
                    raise ValueError(
                        f"{key}.limit {settings.limit} is more than the {made} posts of data.{kind}_posts"
                    )
        return self

    @model_validator(mode="after")
    def _folds(self) -> Study:
        """Reward models name a fold if and only if the labels come in folds."""
        folds = self.labels.folds
        for key, settings in self._with_variants("reward", self.reward).items():
            if folds is None and settings.fold is not None:
                raise ValueError(f"{key}.fold {settings.fold}: the labels have no folds (labels.folds)")
            if folds is not None and (settings.fold is None or settings.fold >= folds):
                raise ValueError(
                    f"{key}.fold {settings.fold} is not one of the {folds} folds 0 to {folds - 1}"
                )
        if folds is not None and isinstance(self.data, ToyData):
            raise ValueError(
                "labels.folds is only for labels from files: the toy world holds out posts itself"
            )
        return self

    @model_validator(mode="after")
    def _judges(self) -> Study:
        pools = self.best_of_n or any(isinstance(each, BestOfNVariant) for each in self.variants.values())
        for name, judge in self.judges.items():
            if judge.pool_share and not pools:
                raise ValueError(
                    f"judges.{name}.pool_share {judge.pool_share:g}: the study has no pool: give it "
                    "best_of_n, or a variant of that kind"
                )
            if judge.variant is None:
                continue
            other = self.variants.get(judge.variant)
            if not isinstance(other, RewardVariant):
                raise ValueError(f"judges.{name}.variant: '{judge.variant}' is not a reward variant")
            if max(self.reward.posts[0], other.set.posts[0]) < min(self.reward.posts[1], other.set.posts[1]):
                raise ValueError(
                    f"judges.{name}.variant: '{judge.variant}' learns from posts that `reward` learns from "
                    "too, so it is not held out: give them parts that do not overlap, as reward.posts: "
                    f"[0, 0.8] and variants.{judge.variant}.set.posts: [0.8, 1]"
                )
        return self

    @model_validator(mode="after")
    def _chosen_questions(self) -> Study:
        """Questions are chosen by the reward models of the round before."""
        asked = [(number, f"rounds.{number}.labels", each.labels) for number, each in enumerate(self.rounds)]
        asked += [
            (len(self.rounds), place, own)
            for place, own in self._with_variants("labels", self.labels).items()
        ]
        for number, place, labels in asked:
            if (by := labels.choose_by) is None:
                continue
            if number == 0:
                inherited = f": write {place}.choose_by: null" if self.rounds else ""
                raise ValueError(
                    f"{place}.choose_by {by}: before the first labels there is no reward model to choose by"
                    + inherited
                )
            before = self.rounds[number - 1]
            sizes = {before.reward.of_policy(size) for size in before.sizes or self.policy_sizes}
            models = len(sizes) * before.reward.seeds
            if by == "disagreement" and models < 2:
                raise ValueError(
                    f"{place}.choose_by disagreement: the round before has a single reward model, which "
                    f"cannot disagree: give rounds.{number - 1}.reward.seeds 2 or more, or further sizes"
                )
            if isinstance(self.data, FileData) and labels.kind != "people":
                raise ValueError(f"{place}.choose_by {by}: labels from files are given, not asked for")
        for name, variant in self.variants.items():
            if isinstance(variant, LabelsVariant) and not isinstance(self.data, ToyData):
                raise ValueError(
                    f"variants.{name}: only the toy world's labelers can be asked again in another way"
                )
        return self

    @model_validator(mode="after")
    def _labelers(self) -> Study:
        """Only the toy world's labelers and people can label a policy's samples."""
        for number, each in enumerate(self.rounds):
            if odd := set(each.sizes or ()) - set(self.ladder):
                raise ValueError(f"rounds.{number}.sizes: the ladder has no {_list(odd)}")
        if isinstance(self.data, FileData):
            kinds = {"labels": self.labels.kind}
            kinds |= {f"rounds.{number}.labels": each.labels.kind for number, each in enumerate(self.rounds)}
            by_people = [place for place, kind in kinds.items() if kind == "people"]
            if self.data.comparisons is None and not by_people:
                raise ValueError(
                    "data.comparisons is missing: data from files need labels from files, or people's "
                    "(labels.kind: people)"
                )
            if self.data.comparisons is not None and by_people:
                raise ValueError(
                    f"{by_people[0]}.kind people, but data.comparisons gives labels: drop one of them"
                )
            if self.rounds and len(by_people) < len(kinds):
                raise ValueError("rounds: each needs new labels, which files cannot provide, but people can")
            if self.best_of_n and "gold" in self.best_of_n.scorers:
                raise ValueError("best_of_n.scorers: gold scores exist only in the toy world")
            if self.ratings:
                raise ValueError("ratings: only the toy world has labelers to rate a policy's samples")
        return self


def _of_rewards(variant: Variant) -> bool:
    """Whether a variant's `sizes` are those of reward models, not of policies."""
    return isinstance(variant, RewardVariant | LabelsVariant)


def _some(sizes: list[str] | None, chosen: Container[str]) -> list[str] | None:
    return None if sizes is None else [size for size in sizes if size in chosen]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
