"""What an experiment is: typed settings, one class a stage, one YAML file a study.

Defaults are the 2020 paper's where it states a value (App. B.1) and the named source's where it
is silent; each such gap is marked. A field typed ``PerSize[...]`` takes one value, or one for
every model of the ladder (``lr: {s: 5e-3, m: 4e-3}``); nothing is set in two places.
Loading, overriding and hashing live in `tldr.study`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

T = TypeVar("T")
PerSize: TypeAlias = T | dict[str, T]

Unit = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
"""What may stand in a folder's name."""
Precision = Literal["auto", "fp32", "bf16"]


def one(value: PerSize[T]) -> T:
    """The value of a setting whose per-size map has been resolved (`Settings.for_size`)."""
    assert not isinstance(value, dict), "settings of one size: call for_size first"
    return value


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values are never coerced in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def for_size(self, size: str) -> Self:
        """The same settings with every ``PerSize`` map replaced by this size's value.

        Raises:
            KeyError: a map lacks the size.
            ValidationError: this size's values do not go together.
        """
        changes: dict[str, object] = {}
        for name, value in self:
            if isinstance(value, dict):
                changes[name] = value[size]
            elif isinstance(value, Settings):
                changes[name] = value.for_size(size)
        return self.model_validate({**dict(self), **changes})

    def size_maps(self) -> Iterator[tuple[str, set[str]]]:
        """The dotted key of every ``PerSize`` map, and the sizes it names."""
        for name, value in self:
            if isinstance(value, dict):
                yield name, set(value)
            elif isinstance(value, Settings):
                yield from ((f"{name}.{key}", sizes) for key, sizes in value.size_maps())


class ModelSpec(Settings):
    """One rung of the ladder: a random init from a config, or a folder or hub name to load."""

    path: str | None = None
    """Local folder or hub name; when set, the fields below are not used."""
    arch: Literal["gpt_neox", "gpt2", "opt", "llama"] = "gpt_neox"
    d_model: PositiveInt = 64
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    context: PositiveInt = 256
    init: Literal["default", "mimetic"] = "default"
    """mimetic (Trockman & Kolter 2023): W_q = W_k and W_o ~ W_v^T, a copying prior for tiny models."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelSpec:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        return self


class ToyData(Settings):
    """Sizes of the generated world; its rules are in `tldr.toy`."""

    kind: Literal["toy"] = "toy"
    seed: int = 1
    corpus: PositiveInt = 24000
    """Documents of the pretraining corpus."""
    sft_posts: PositiveInt = 6000
    """Posts with a reference for SFT; they are among the PPO posts, as in the paper."""
    ppo_posts: PositiveInt = 8000
    valid1_posts: PositiveInt = 600
    """Posts for selecting models."""
    valid2_posts: PositiveInt = 1000
    """Posts for reporting; nothing is ever chosen on them."""


class FileData(Settings):
    """Post and comparison files in the project's records."""

    kind: Literal["files"] = "files"
    sft: str
    """Posts with references."""
    ppo: str | None = None
    """Body-filtered posts; when absent the SFT posts stand in, and every report says so."""
    valid1: str
    valid2: str
    comparisons: str | None = None
    """Comparisons or rankings to train the RM on, instead of simulated labels."""
    corpus: str | None = None


class TokenizerSpec(Settings):
    """A byte-level BPE trained on the corpus, or a tokenizer folder / hub name."""

    path: str | None = None
    vocab_size: PositiveInt = 768


class DataStage(Settings):
    """What the data stage makes: post files and a tokenizer in one folder."""

    data: Annotated[ToyData | FileData, Field(discriminator="kind")]
    tokenizer: TokenizerSpec = TokenizerSpec()


class Lengths(Settings):
    """Windows in tokens (P Table of formats): query 512, policy response 48, RM response 128."""

    query: PositiveInt = 512
    response: PositiveInt = 48
    """Response length of the policy, EOS included."""
    rm_response: PositiveInt = 128

    @model_validator(mode="after")
    def _rm_sees_all(self) -> Lengths:
        if self.rm_response < self.response:
            raise ValueError(
                "rm_response is shorter than response: the RM could not read what the policy writes"
            )
        return self


class Optimizer(Settings):
    """AdamW and its schedule. Betas, eps, decay and warm-up are not stated by the paper."""

    lr: PerSize[Positive] = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    clip: Positive = 1.0
    """Gradient norm limit."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: NonNegative = 0.0
    """Below 1 a share of all updates, from 1 on a number of updates."""
    final: Unit = 0.0
    """Learning rate at the end, as a share of the peak."""


class Training(Settings):
    """What every stage on the training loop has."""

    optimizer: Optimizer = Optimizer()
    batch: PerSize[PositiveInt] = 128
    """Examples an update (prompts, for the reward model)."""
    micro_batch: PerSize[PositiveInt] | None = None
    """Examples a forward pass; gradients are accumulated. None: the whole batch at once."""
    save_every: PositiveInt = 200
    """Updates between resumable checkpoints."""
    seed_offset: int = 0
    """Added to the run's seed: another draw of this stage alone."""


class Pretrain(Training):
    """Next-token training from scratch (toy ladder only)."""

    optimizer: Optimizer = Optimizer(warmup=0.05, final=0.1)
    batch: PerSize[PositiveInt] = 16
    steps: PerSize[PositiveInt] = 1500
    query_weight: Unit = 1.0
    """Weight of the loss on a document's post tokens, against its comments and TL;DR."""


class SFT(Training):
    """Supervised fine-tuning on the references (P App. B.1): 1 epoch, batch 128, cosine to 0."""

    optimizer: Optimizer = Optimizer(lr=6.35e-5)
    epochs: PerSize[Positive] = 1.0
    query_loss: bool = False
    """Also train on the query tokens, as Huang et al. (2024) do."""
    dropout: Unit = 0.0
    """Residual dropout; InstructGPT uses 0.2."""
    select: Literal["last", "valid_loss"] = "last"


class Labels(Settings):
    """The shared comparison pool: samples of the SFT policies, references and writers, labelled."""

    pairs: PositiveInt = 8000
    valid_pairs: PositiveInt = 2000
    k: tuple[PositiveInt, PositiveInt] = (2, 2)
    """Smallest and largest number of summaries ranked at once; (4, 9) is InstructGPT's."""
    temperature: Positive = 0.85
    reference_share: Unit = 0.25
    """Share of shown summaries that are the author's reference."""
    writer_share: Unit = 0.25
    """Share that comes from the toy world's scripted writers (planted errors)."""

    @model_validator(mode="after")
    def _at_least_two(self) -> Labels:
        if self.k[0] < 2 or self.k[1] < self.k[0]:
            raise ValueError(f"k {self.k}: a ranking needs at least 2 summaries, smallest first")
        return self


class Reward(Training):
    """Reward model (P App. B.1, 3.4): one epoch, batch 64, loss -log sigma(difference)."""

    optimizer: Optimizer = Optimizer(lr=1.5e-5)
    batch: PerSize[PositiveInt] = 64
    epochs: PerSize[Positive] = 1.0
    seeds: PositiveInt = 1
    """RMs trained a size, best on valid1 kept (the paper: 3-10)."""
    limit: PositiveInt | None = None
    """Use only the first so many training rankings (data scaling)."""


class EOSRule(Settings):
    """What becomes of a response without EOS. Not in the paper: off unless named."""

    missing: Literal["none", "replace", "subtract"] = "none"
    """none: nothing. replace: its score is `value` (N+, Ziegler). subtract: its score - |value| (TRL)."""
    value: float = -1.0


class AdaptiveKL(Settings):
    """Ziegler's controller (lm-human-preferences/train_policy.py): error clipped to 0.2."""

    target: Positive = 6.0
    horizon: PositiveInt = 10000


class PPO(Training):
    """PPO as in the paper (3.4, B.1): beta 0.05, gamma 1, lambda 0.95, 4 epochs, linear decay.

    Clip ranges, vf_coef and whitening are lm-human-preferences' (the paper is silent).
    """

    optimizer: Optimizer = Optimizer(lr=1.5e-5, schedule="linear")
    value_lr: PerSize[Positive] | None = None
    """None: the policy's."""
    value_network: Literal["separate", "shared"] = "separate"
    """separate: a network of its own, started from the RM (the paper's). shared: a head on the policy,
    started from 0 (Fig. 11's comparison)."""
    save_value: bool = True
    """Keep the separate value network beside the policy, for reports that show values."""
    algorithm: Literal["ppo", "reinforce", "rloo"] = "ppo"
    """reinforce and rloo are baselines to compare with: no value network, `epochs` must be 1."""
    batch: PerSize[PositiveInt] = 512
    """Episodes a rollout."""
    episodes: PerSize[PositiveInt] = 1_000_000
    samples_per_query: PositiveInt = 1
    minibatches: PositiveInt = 1
    epochs: PositiveInt = 4
    beta: PerSize[NonNegative] = 0.05
    """KL coefficient (fixed unless `adaptive_kl`)."""
    gamma: Unit = 1.0
    lam: Unit = 0.95
    clip: Positive = 0.2
    value_clip: Positive = 0.2
    vf_coef: NonNegative = 0.1
    temperature: Positive = 1.0
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    eos: EOSRule = EOSRule()
    adaptive_kl: AdaptiveKL | None = None
    ptx_coef: NonNegative = 0.0
    """InstructGPT's gamma: weight of the pretraining loss in each update (27.8 there)."""
    ptx_ratio: Positive = 1.0
    """Pretraining examples per episode (InstructGPT: 8)."""
    rounds: PositiveInt = 1
    """Fresh-label rounds: after each, sample the policy, label, retrain the RM, go on."""
    save_every: PositiveInt = 10
    keep_rollouts: PositiveInt | None = None
    """Keep every so-manieth iteration's episodes as samples; the last one's are kept in any case."""

    @model_validator(mode="after")
    def _whole_batches(self) -> PPO:
        if isinstance(self.batch, int):
            if self.batch % self.samples_per_query:
                raise ValueError(
                    f"batch {self.batch} is not a multiple of samples_per_query {self.samples_per_query}"
                )
            queries = self.batch // self.samples_per_query
            if queries % self.minibatches:
                raise ValueError(f"{queries} queries do not split into {self.minibatches} minibatches")
        if self.algorithm != "ppo" and self.epochs > 1:
            raise ValueError(
                f"{self.algorithm} has no ratio to clip: set epochs to 1, each sample is used once"
            )
        if self.value_network == "shared" and (self.algorithm != "ppo" or self.value_lr is not None):
            raise ValueError("value_network shared is ppo's, and learns at the policy's rate: drop value_lr")
        if self.algorithm == "rloo" and self.samples_per_query < 2:
            raise ValueError("rloo needs samples_per_query >= 2")
        return self


class BestOfN(Settings):
    """Best of N SFT samples by a scorer (P 4.3: T = 0.7)."""

    n: PositiveInt = 16
    temperature: Positive = 0.7
    scorers: list[Literal["rm", "gold", "rouge"]] = ["rm"]
    posts: PositiveInt | None = None
    """None: all of valid2."""


class Evaluation(Settings):
    """Which policies are sampled how, on valid2."""

    temperatures: Annotated[list[NonNegative], Field(min_length=1)] = [0.0]
    """0 is greedy; the first one is the headline."""
    sft_temperatures: list[NonNegative] = []
    """Further ones for the SFT policies alone (Fig. 8)."""
    sft_top_ps: list[Unit] = []
    """Nucleus sampling of the SFT policies at temperature 1 (Fig. 8)."""
    posts: PositiveInt | None = None
    """None: all of valid2."""
    batch: PositiveInt = 64
    bootstrap: PositiveInt = 2000


class Pairs(Settings):
    """Pairs that every reward model and SFT policy of the study scores: what agreement is measured on."""

    posts: PositiveInt = 300
    """Posts whose two samples of one policy are labelled (toy world only), and posts probed."""
    temperature: Positive = 0.7
    workers: Annotated[int, Field(ge=2, le=11)] = 5
    """Labelers of each same-policy pair."""


class Ratings(Settings):
    """Summaries rated 1-7 on the paper's four axes by simulated labelers (toy world only)."""

    posts: PositiveInt = 300


class RewardVariant(Settings):
    """Reward models trained otherwise: on fewer labels (Fig. 6), say."""

    kind: Literal["reward"] = "reward"
    sizes: list[Name] | None = None
    """None: the whole ladder."""
    set: Reward
    """What differs from the study's `reward`; the rest is taken from there."""


class PPOVariant(Settings):
    """Policies trained otherwise: another KL coefficient (Fig. 5), a shared value network (Fig. 11)."""

    kind: Literal["ppo"] = "ppo"
    sizes: list[Name] | None = None
    set: PPO
    reward: Name | None = None
    """The reward variant to train against; None: the study's own reward model."""
    temperatures: Annotated[list[NonNegative], Field(min_length=1)] = [1.0]
    """At which the policy is sampled: 1 for a KL axis."""


class BestOfNVariant(Settings):
    """A larger pool, scored by every reward model of the study and chosen from by N (Fig. 7)."""

    kind: Literal["best_of_n"] = "best_of_n"
    sizes: list[Name] | None = None
    set: BestOfN


Variant = Annotated[RewardVariant | PPOVariant | BestOfNVariant, Field(discriminator="kind")]


class Study(Settings):
    """One experiment: data, ladder, seeds, stages, evaluation."""

    name: Name
    description: str = ""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    precision: Precision = "auto"
    data: Annotated[ToyData | FileData, Field(discriminator="kind")]
    tokenizer: TokenizerSpec = TokenizerSpec()
    lengths: Lengths = Lengths()
    ladder: Annotated[dict[Name, ModelSpec], Field(min_length=1)]
    pretrain: Pretrain | None = None
    sft: SFT = SFT()
    labels: Labels = Labels()
    reward: Reward = Reward()
    ppo: PPO = PPO()
    best_of_n: BestOfN | None = BestOfN()
    evaluation: Evaluation = Evaluation()
    pairs: Pairs | None = None
    ratings: Ratings | None = None
    variants: dict[Name, Variant] = {}
    """Stages run again with other settings: scaling, ablations. In a study file a variant may hold
    ``sweep: {beta: [0.1, 0]}``; it stands for one variant a value (``kl-0.1``, ``kl-0``)."""

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for size, model in self.ladder.items():
            if model.path is None and self.pretrain is None:
                raise ValueError(
                    f"ladder.{size} starts from a random init but the study has no pretrain stage"
                )
            room = self.lengths.query + self.lengths.response
            if model.path is None and model.context < room:
                raise ValueError(
                    f"ladder.{size}.context {model.context} is shorter than query + response = {room}"
                )
        return self

    @model_validator(mode="after")
    def _names(self) -> Study:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: one is named twice")
        for stage, settings in self:
            for key, sizes in settings.size_maps() if isinstance(settings, Settings) else ():
                if odd := sizes ^ set(self.ladder):
                    raise ValueError(
                        f"{stage}.{key} names {_list(sizes)}, the ladder {_list(self.ladder)}: "
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
                    raise ValueError(f"variants.{name}.reward: '{variant.reward}' is no reward variant")
                if odd := set(variant.sizes or self.ladder) - set(other.sizes or self.ladder):
                    raise ValueError(f"variants.{name}: {variant.reward} is not trained at size {_list(odd)}")
        return self

    @model_validator(mode="after")
    def _labelers(self) -> Study:
        """Only the toy world can label what a policy writes."""
        if isinstance(self.data, FileData):
            if self.data.comparisons is None:
                raise ValueError("data.comparisons is missing: files bring no labelers, so give their labels")
            if self.ppo.rounds > 1:
                raise ValueError(f"ppo.rounds {self.ppo.rounds} needs fresh labels, which files cannot give")
            if self.best_of_n and "gold" in self.best_of_n.scorers:
                raise ValueError("best_of_n.scorers: gold is known in the toy world only")
            if self.ratings:
                raise ValueError("ratings: only the toy world has labelers to rate what a policy writes")
        return self


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
