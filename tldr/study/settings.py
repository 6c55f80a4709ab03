"""Settings of a study: data, ladder, seeds, stages, variants, evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, TypeVar

from pydantic import Field, PositiveInt, field_validator, model_validator

from tldr.settings.base import Name, NonNegative, Precision, Seed, Settings, different
from tldr.settings.models import Lengths, ModelSpec
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.data.settings import FileData, TokenizerSpec
from tldr.stages.judge.settings import JudgeSettings
from tldr.stages.labels.settings import LabelsSettings
from tldr.stages.pairs.settings import PairsSettings
from tldr.stages.ppo.settings import PPOSettings
from tldr.stages.pretrain.settings import PretrainSettings
from tldr.stages.ratings.settings import RatingsSettings
from tldr.stages.reward.settings import RewardSettings
from tldr.stages.sft.settings import SFTSettings
from tldr.stages.shared.settings import EvaluationSettings
from tldr.toy.settings import ToyData

SettingsT = TypeVar("SettingsT", SFTSettings, LabelsSettings, RewardSettings, PPOSettings)


class RewardVariant(Settings):
    """Reward models with other settings, for example on fewer labels (Fig. 6)."""

    kind: Literal["reward"] = "reward"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """None: the whole ladder."""
    set: RewardSettings
    """Settings that differ from the study's `reward`."""


class LabelsVariant(Settings):
    """The last round's labels asked for in another way (`labels.choose_by`), and reward models on them. These
    select and report on the study's own labels, so that all accuracies are of the same pairs. No policy is
    trained against them."""

    kind: Literal["labels"] = "labels"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """Sizes of the reward models; None: the whole ladder."""
    set: LabelsSettings
    """Settings that differ from the study's `labels`."""


class SFTVariant(Settings):
    """Supervised policies with other settings, for example on fewer posts. They are sampled at the study's
    `evaluation.temperatures` and scored as the main ones are. Labels, reward models and PPO do not see
    them."""

    kind: Literal["sft"] = "sft"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """None: the whole ladder."""
    set: SFTSettings
    """Settings that differ from the study's `sft`."""


class PPOVariant(Settings):
    """Policies with other settings: another KL coefficient (Fig. 5), a shared value network (Fig. 11)."""

    kind: Literal["ppo"] = "ppo"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """None: the whole ladder."""
    set: PPOSettings
    reward: Name | None = None
    """The reward variant to train against; None: the study's main reward model."""
    temperatures: Annotated[list[NonNegative], Field(min_length=1)] = [1.0]
    """Sampling temperatures for evaluation; KL needs temperature 1."""

    _different = field_validator("temperatures")(different)


class BestOfNVariant(Settings):
    """A larger pool of samples, scored by every reward model of the study, for best-of-N (Fig. 7)."""

    kind: Literal["best_of_n"] = "best_of_n"
    """Which stage runs again."""
    sizes: list[Name] | None = None
    """None: the whole ladder."""
    set: BestOfNSettings


Variant = Annotated[
    SFTVariant | LabelsVariant | RewardVariant | PPOVariant | BestOfNVariant, Field(discriminator="kind")
]


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
    """The sizes of the ladder to use; None: all. `load_study` removes the others (`chosen`)."""
    pretrain: PretrainSettings | None = None
    sft: SFTSettings = SFTSettings()
    labels: LabelsSettings = LabelsSettings()
    reward: RewardSettings = RewardSettings()
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

    def chosen(self) -> Study:
        """The study restricted to the sizes in `sizes`: its ladder, settings and variants.

        Raises:
            ValueError: `sizes` names a size that is not in the ladder.
        """
        if self.sizes is None:
            return self
        if odd := set(self.sizes) - set(self.ladder):
            raise ValueError(f"the ladder has {_list(self.ladder)}, but not {_list(odd)}")
        changes: dict[str, object] = {
            name: value.of_sizes(self.sizes) for name, value in self if isinstance(value, Settings)
        }
        changes["ladder"] = {size: model for size, model in self.ladder.items() if size in self.sizes}
        changes["variants"] = {
            name: variant.model_copy(update={"sizes": sizes, "set": variant.set.of_sizes(self.sizes)})
            for name, variant in self.variants.items()
            if (sizes := _some(variant.sizes, self.sizes)) != []
        }
        changes["rounds"] = [
            Round(
                sizes=sizes,
                labels=each.labels,
                reward=each.reward.of_sizes(self.sizes),
                ppo=each.ppo.of_sizes(self.sizes),
            )
            for each in self.rounds
            if (sizes := _some(each.sizes, self.sizes)) != []
        ]
        return self.model_validate({**dict(self), **changes, "sizes": None})

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
    def _variants(self) -> Study:
        for name, variant in self.variants.items():
            if odd := set(variant.sizes or ()) - set(self.ladder):
                raise ValueError(f"variants.{name}.sizes: the ladder has no {_list(odd)}")
            if isinstance(variant, PPOVariant) and variant.reward is not None:
                other = self.variants.get(variant.reward)
                if not isinstance(other, RewardVariant):
                    raise ValueError(f"variants.{name}.reward: '{variant.reward}' is not a reward variant")
                if odd := set(variant.sizes or self.ladder) - set(other.sizes or self.ladder):
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
            models = len(before.sizes or self.ladder) * before.reward.seeds
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


def _some(sizes: list[str] | None, chosen: list[str]) -> list[str] | None:
    return None if sizes is None else [size for size in sizes if size in chosen]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
