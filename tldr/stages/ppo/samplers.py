"""Who draws a rollout's responses: the policy itself or a copy of it (`OwnSampler`), or vLLM (`VLLMSampler`).

Every draw comes with a random number of its own, fixed before sampling begins. A sampler tells the
log-probabilities that it drew with; where they are not those of the update's forward pass (`exact`), the
trainer computes them again, and logs how far apart the two are (`sampler_gap`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from tldr.errors import UsageError
from tldr.models.generate import Generation, generate
from tldr.models.vocabulary import writable_ids
from tldr.settings.extras import need
from tldr.stages.shared.device import Device
from tldr.train.processes import copy_weights

VALUE_HEAD = "score.weight"
"""A policy's parameter under `value_network: shared`."""


class Sampler(Protocol):
    """Draws responses from the policy as of the last call of `update`.

    Attributes:
        exact: whether its log-probabilities are those of the update's forward pass (to 1e-5).
        schedules: whether it takes any number of queries and batches them by itself.
    """

    exact: bool
    schedules: bool

    def update(self, policy: PreTrainedModel) -> None:
        """Bring the sampler's weights up to date; every process must call."""

    def draw(self, query: Tensor, query_mask: Tensor, uniform: Tensor, temperature: float) -> Generation:
        """One response for each number.

        Args:
            query, query_mask: (B,Q), left-padded.
            uniform: (B,K,max_new_tokens) float64.
        """


class OwnSampler:
    """`tldr.models.generate` on the policy, or on a copy where weights are sharded or cast at every token."""

    schedules = False

    def __init__(self, policy: PreTrainedModel, accelerator: Accelerator, device: Device, eos: int, pad: int):
        half = device.precision == "bf16"
        self._model, self._device, self._eos, self._pad = policy, device, eos, pad
        self._copied = accelerator.is_fsdp2 or (half and device.device.type == "cuda")
        self.exact = not (self._copied or half)
        if self._copied:
            self._model = copy.deepcopy(policy).requires_grad_(False)
            nn.Module.to(self._model, device.device, torch.bfloat16 if half else torch.float32)

    def update(self, policy: PreTrainedModel) -> None:
        """See `Sampler`."""
        if self._copied:
            copy_weights(policy, self._model)
        else:
            self._model = policy

    def draw(self, query: Tensor, query_mask: Tensor, uniform: Tensor, temperature: float) -> Generation:
        """See `Sampler`."""
        with self._device.autocast():
            return generate(
                self._model,
                query.to(self._device.device),
                query_mask.to(self._device.device),
                n=uniform.shape[1],
                max_new_tokens=uniform.shape[2],
                temperature=temperature,
                top_p=1.0,
                eos_id=self._eos,
                pad_id=self._pad,
                uniform=uniform.to(self._device.device),
            )


class VLLMSampler:
    """vLLM in the trainer's own process and on its device, its weights loaded anew every iteration.

    Its kernels batch as they see fit, so equal seeds need not give equal samples: a run that is resumed goes
    on correctly, but not bit for bit.

    Args:
        checkpoint: of the policy that training starts from.
        window: tokens of the longest query and response together.
        memory: share of the device's memory that its weights and cache may take.

    Raises:
        UsageError: vLLM is missing.
    """

    exact = False
    schedules = True

    def __init__(
        self,
        checkpoint: Path,
        accelerator: Accelerator,
        device: Device,
        *,
        window: int,
        memory: float,
        eos: int,
        pad: int,
    ):
        need("vllm", "ppo.sampler")
        # In this process: weights are passed in memory. Read when vLLM is imported.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        self._vllm: Any = import_module("vllm")
        self._device, self._eos, self._pad = device, eos, pad
        self._writable: list[int] | None = None
        self._engine = self._vllm.LLM(
            model=str(checkpoint),
            skip_tokenizer_init=True,
            dtype="bfloat16" if device.precision == "bf16" else "float32",
            max_model_len=window,
            gpu_memory_utilization=memory,
            logprobs_mode="processed_logprobs",  # at the sampling temperature
        )

    def update(self, policy: PreTrainedModel) -> None:
        """See `Sampler`."""
        # As in a checkpoint: a tied output head has no name of its own, and a value head is not the policy's.
        named = ((name, parameter.detach()) for name, parameter in policy.named_parameters())
        weights = [(name, tensor) for name, tensor in named if name != VALUE_HEAD]
        self._writable = writable_ids(policy)
        self._engine.apply_model(lambda model: model.load_weights(weights) and None)
        self._engine.reset_prefix_cache()  # of the weights before

    def draw(self, query: Tensor, query_mask: Tensor, uniform: Tensor, temperature: float) -> Generation:
        """See `Sampler`; a draw's seed is made of its first random number.

        Raises:
            UsageError: vLLM ended a response, and not by EOS.
        """
        rows, count, length = uniform.shape
        seeds = (uniform[:, :, 0] * 2**31).long().tolist()
        prompts, settings = [], []
        for tokens, mask, row in zip(query, query_mask, seeds, strict=True):
            ids = tokens[mask].tolist()
            for seed in row:
                prompts.append({"prompt_token_ids": ids})
                settings.append(
                    self._vllm.SamplingParams(
                        temperature=temperature,
                        max_tokens=length,
                        seed=seed,
                        logprobs=0,  # of the token drawn alone
                        stop_token_ids=[self._eos],
                        ignore_eos=True,  # there is one EOS, ours
                        detokenize=False,
                        allowed_token_ids=self._writable,
                    )
                )
        answers = self._engine.generate(prompts, settings, use_tqdm=False)
        return self._generation([answer.outputs[0] for answer in answers], (rows, count))

    def _generation(self, drawn: Sequence[Any], shape: tuple[int, int]) -> Generation:
        """As `generate` gives them; (B,K,R), R the longest."""
        width = max(len(one.token_ids) for one in drawn)
        response = torch.full((len(drawn), width), self._pad)
        logprobs = torch.zeros(len(drawn), width)
        ended: list[bool] = []
        for row, one in enumerate(drawn):
            ids = list(one.token_ids)
            ended.append(ids[-1] == self._eos)
            if one.finish_reason != "length" and not ended[-1]:
                raise UsageError(
                    f"vLLM ended a response by {one.finish_reason!r} at token {ids[-1]}, EOS is {self._eos}",
                    where="ppo.sampler",
                    remedy="take `own`, or another version of vLLM",
                )
            response[row, : len(ids)] = torch.tensor(ids)
            told = [position[token].logprob for token, position in zip(ids, one.logprobs, strict=True)]
            logprobs[row, : len(ids)] = torch.tensor(told)
        lengths = torch.tensor([len(one.token_ids) for one in drawn])
        found = Generation(
            response=response.view(*shape, -1),
            mask=(torch.arange(width) < lengths[:, None]).view(*shape, -1),
            logprobs=logprobs.view(*shape, -1),
            stopped=torch.tensor(ended).view(shape),
        )
        place = self._device.device
        return Generation(*(part.to(place) for part in vars(found).values()))
