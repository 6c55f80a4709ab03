"""Settings of the stages, one class each.

Defaults are the 2020 paper's where it states a value (App. B.1) and the named source's where it is
silent; each such gap is marked.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tldr.config.base import NonNegative, PerSize, Positive, Settings, Share, Unit


class Optimizer(Settings):
    """AdamW and its schedule. Betas, eps, decay and warm-up are not stated by the paper."""

    kind: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit: its two moments in 8 bits, in blocks with a scale each (Dettmers et al. 2022, arXiv
    2110.02861), 2 bytes a weight in place of 8; needs the extra `8bit`. Not sharded."""
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
    gradient_checkpointing: bool = False
    """Keep no activations inside a layer: the backward pass computes them again. Less memory, a third
    more compute."""
    save_every: PositiveInt = 200
    """Updates between resumable checkpoints."""
    keep_states: PositiveInt = 2
    """Resumable checkpoints kept while the stage runs: more than one in case the newest is damaged."""
    seed_offset: int = 0
    """Added to the run's seed: another draw of this stage alone."""


class Lora(Settings):
    """Low-rank adapters on linear layers (Hu et al. 2021): only they and a scalar head are trained. Not the
    paper's; needs the extra `lora`. What a stage saves is the merged model, in plain form."""

    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    """What the adapter adds is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On the adapters' inputs."""
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    """Linear layers of the body by the names that the model's class has for them; None: all."""


class Finetuning(Training):
    """What the stages that start from a trained model have."""

    lora: Lora | None = None
    """None: every weight is trained."""


class Pretrain(Training):
    """Next-token training from scratch (toy ladder only)."""

    optimizer: Optimizer = Optimizer(warmup=0.05, final=0.1)
    batch: PerSize[PositiveInt] = 16
    steps: PerSize[PositiveInt] = 1500
    query_weight: Unit = 1.0
    """Weight of the loss on a document's post tokens, against its comments and TL;DR."""


class SFT(Finetuning):
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
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validation of given labels: all are pooled, whatever their split, and each post is held
    out once; for labels too few to hold a part out. A reward model names its `fold`."""

    @model_validator(mode="after")
    def _at_least_two(self) -> Labels:
        if self.k[0] < 2 or self.k[1] < self.k[0]:
            raise ValueError(f"k {self.k}: a ranking needs at least 2 summaries, smallest first")
        return self


class Reward(Finetuning):
    """Reward model (P App. B.1, 3.4): one epoch, batch 64, loss -log sigma(difference)."""

    optimizer: Optimizer = Optimizer(lr=1.5e-5)
    batch: PerSize[PositiveInt] = 64
    epochs: PerSize[Positive] = 1.0
    seeds: PositiveInt = 1
    """RMs trained a size, best on valid1 kept (the paper: 3-10)."""
    limit: PositiveInt | None = None
    """Use only the first so many training rankings (data scaling)."""
    frozen_layers: Unit = 0.0
    """Share of the layers, the lowest ones with the embeddings, that stay as SFT left them. Not the
    paper's: trlx freezes 0.7 (examples/summarize_rlhf), which halves a step and its memory."""
    shift_posts: PositiveInt | None = None
    """Training references whose mean score becomes 0; None: all of them, as in the paper."""
    fold: NonNegativeInt | None = None
    """Train on the labels without this fold of `labels.folds`, and report on it."""


class EOSRule(Settings):
    """What becomes of a response without EOS. Not in the paper: off unless named."""

    missing: Literal["none", "replace", "subtract"] = "none"
    """none: nothing. replace: its score is `value` (N+, Ziegler). subtract: its score - |value| (TRL)."""
    value: float = -1.0


class AdaptiveKL(Settings):
    """Ziegler's controller (lm-human-preferences/train_policy.py): error clipped to 0.2."""

    target: Positive = 6.0
    horizon: PositiveInt = 10000


class PPO(Finetuning):
    """PPO as in the paper (3.4, B.1): beta 0.05, gamma 1, lambda 0.95, 4 epochs, linear decay.

    Clip ranges, vf_coef and whitening are lm-human-preferences' (the paper is silent). With `lora`, policy
    and value network get adapters of their own, and the reference is the policy without them where it is
    the model that the policy starts from: no second copy, whatever `frozen_dtype` and `frozen_place` are.
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
    sampler: Literal["own", "vllm"] = "own"
    """own: the policy, or a copy of it, through the decode loop here; resumes bit for bit. vllm: an engine
    beside the trainer (one process, no LoRA), its weights loaded anew every iteration; `sampler_gap` in the
    log says how far its log-probabilities are from the trainer's, which are the ones that count."""
    vllm_memory: Share = 0.3
    """Share of the device's memory that vLLM takes for its weights and cache."""
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
    save_steps: PositiveInt | None = None
    """Also save inside an iteration: its episodes once they are scored, then after so many optimizer
    steps. For iterations of many minutes; a run told to end (SIGTERM) saves there in any case."""
    frozen_dtype: Literal["fp32", "bf16"] = "fp32"
    """Weights of the two models that do not learn: reference and reward model."""
    frozen_place: Literal["device", "cpu", "shard"] = "device"
    """device: whole in every process. cpu: in host memory, each on the device while it scores episodes.
    shard: spread over the processes, gathered layer by layer in every forward pass."""
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
        if self.lora is not None and self.lora.dropout:
            raise ValueError("lora: dropout is off in RL, set it to 0")
        if self.lora is not None and self.sampler == "vllm":
            raise ValueError("sampler vllm loads whole weights, not adapters: use own with lora")
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


class ZeroShot(Settings):
    """In-context examples for the pretrained policies (P 3.2; OAI experiment_helpers.py)."""

    examples: PositiveInt = 13
    """SFT posts with their references, drawn by a hash of their ids; the released code has 13. What does
    not fit into the window is cut from the left."""
    query_tokens: PositiveInt = 1999
    """The whole window, examples and post; `lengths.response` comes on top."""


class Evaluation(Settings):
    """Which policies are sampled how, on valid2."""

    temperatures: Annotated[list[NonNegative], Field(min_length=1)] = [0.0]
    """0 is greedy; the first one is the headline."""
    sft_temperatures: list[NonNegative] = []
    """Further ones for the SFT policies alone (Fig. 8)."""
    sft_top_ps: list[Unit] = []
    """Nucleus sampling of the SFT policies at temperature 1 (Fig. 8)."""
    zero_shot: ZeroShot | None = None
    """How pretrained policies are asked; None: in the TL;DR format, without examples."""
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
