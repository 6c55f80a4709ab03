"""Settings of PPO."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt, model_validator

from tldr.settings.base import NonNegative, PerSize, Positive, Settings, Share, Unit
from tldr.settings.training import Finetuning, Optimizer


class EOSRule(Settings):
    """What becomes of a response without EOS. Not in the paper: off unless named."""

    missing: Literal["none", "replace", "subtract"] = "none"
    """none: nothing. replace: its score is `value` (N+, Ziegler). subtract: its score - |value| (TRL)."""
    value: float = -1.0
    """In units of the reward model's score."""


class AdaptiveKL(Settings):
    """Ziegler's controller (lm-human-preferences/train_policy.py): error clipped to 0.2."""

    target: Positive = 6.0
    """KL from the SFT policy that is aimed at, in nats a response."""
    horizon: PositiveInt = 10000
    """Episodes over which beta reacts: more is slower."""


class PPOSettings(Finetuning):
    """PPO as in the paper (3.4, B.1): beta 0.05, gamma 1, lambda 0.95, 4 epochs, linear decay.

    Clip ranges, vf_coef and whitening are lm-human-preferences' (the paper is silent). With `lora`, policy
    and value network get adapters of their own, and the reference is the policy without them where it is
    the model that the policy starts from: no second copy, whatever `frozen_dtype` and `frozen_place` are.
    """

    newer: ClassVar[tuple[str, ...]] = ("limit",)
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
    """Responses of the whole run."""
    samples_per_query: PositiveInt = 1
    """Responses to each query of a rollout."""
    limit: PositiveInt | None = None
    """Draw queries from the first `limit` of the shuffled posts alone (data scaling); None: from all. The
    episodes stay as many, so posts come back. At one seed a smaller limit is a part of a larger one, at every
    size of the ladder."""
    minibatches: PositiveInt = 1
    """Optimizer steps an epoch; a query's responses stay together."""
    epochs: PositiveInt = 4
    """Passes over the episodes of a rollout."""
    beta: PerSize[NonNegative] = 0.05
    """KL coefficient (fixed unless `adaptive_kl`)."""
    gamma: Unit = 1.0
    """Discount a token."""
    lam: Unit = 0.95
    """Lambda of generalised advantage estimation."""
    clip: Positive = 0.2
    """The policy's ratio is clipped to 1 - clip and 1 + clip."""
    value_clip: Positive = 0.2
    """A new value is clipped to this distance from the rollout's."""
    vf_coef: NonNegative = 0.1
    """Weight of the value loss."""
    temperature: Positive = 1.0
    """Of sampling, and of every log-probability in PPO."""
    sampler: Literal["own", "vllm"] = "own"
    """own: the policy, or a copy of it, through the decode loop here; resumes bit for bit. vllm: an engine
    beside the trainer (one process, no LoRA), its weights loaded anew every iteration; `sampler_gap` in the
    log says how far its log-probabilities are from the trainer's, which are the ones that count."""
    vllm_memory: Share = 0.3
    """Share of the device's memory that vLLM takes for its weights and cache."""
    whiten_rewards: bool = False
    """Scale the token rewards to variance 1 over the batch; their mean stays."""
    whiten_advantages: bool = True
    """Shift and scale the advantages to mean 0 and variance 1 over the batch."""
    eos: EOSRule = EOSRule()
    adaptive_kl: AdaptiveKL | None = None
    ptx_coef: NonNegative = 0.0
    """InstructGPT's gamma: weight of the pretraining loss in each update (27.8 there)."""
    ptx_ratio: Positive = 1.0
    """Pretraining examples per episode (InstructGPT: 8)."""
    save_every: PositiveInt = 10
    save_steps: PositiveInt | None = None
    """Also save inside an iteration: its scored episodes, then after every `save_steps` optimizer steps.
    For iterations of many minutes; a run that gets SIGTERM saves there in any case."""
    frozen_dtype: Literal["fp32", "bf16"] = "fp32"
    """Weights of the two frozen models: reference and reward model."""
    frozen_place: Literal["device", "cpu", "shard"] = "device"
    """device: whole in every process. cpu: in host memory, each on the device while it scores episodes.
    shard: spread over the processes, gathered layer by layer in every forward pass."""
    keep_rollouts: PositiveInt | None = None
    """Keep the episodes of every n-th iteration as samples; the last one's are kept in any case."""

    @model_validator(mode="after")
    def _whole_batches(self) -> PPOSettings:
        if isinstance(self.batch, int):
            if self.batch % self.samples_per_query:
                raise ValueError(
                    f"batch {self.batch} is not a multiple of samples_per_query {self.samples_per_query}"
                )
            queries = self.batch // self.samples_per_query
            if queries % self.minibatches:
                raise ValueError(f"{queries} queries do not split into {self.minibatches} minibatches")
            if self.limit is not None and self.limit < queries:
                raise ValueError(f"limit {self.limit} does not fill one rollout of {queries} queries")
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

    def packages(self) -> dict[str, str]:
        """See `Settings.packages`."""
        return super().packages() | ({"sampler": "vllm"} if self.sampler == "vllm" else {})
