"""PPO that samples with vLLM, by a double that takes what vLLM 0.33 takes and no more.

The double draws with the weights it was handed, so a trainer that hands over none, or too late, is found out.
Whether vLLM itself does as its interface says cannot be tested without a GPU: the log's `sampler_gap` tells.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import AutoModelForCausalLM

from tests.stages import lab as laboratory
from tldr.errors import UsageError
from tldr.models.generate import generate
from tldr.models.vocabulary import mask_ids
from tldr.records import Sample, iter_records
from tldr.stages.ppo.settings import PPOSettings
from tldr.train.checkpoint import hash_folder
from tldr.train.metrics import read_metrics


@dataclass
class SamplingParams:
    temperature: float
    max_tokens: int
    seed: int
    logprobs: int
    stop_token_ids: list[int]
    ignore_eos: bool
    detokenize: bool
    allowed_token_ids: list[int] | None


@dataclass
class Logprob:
    logprob: float


@dataclass
class Completion:
    token_ids: Sequence[int]
    logprobs: list[dict[int, Logprob]]
    finish_reason: str


@dataclass
class Request:
    outputs: list[Completion]


class LLM:
    """The parts of vLLM's class of that name that are used; every engine that was made, in order."""

    engines: list[LLM] = []  # noqa: RUF012

    def __init__(
        self,
        model: str,
        *,
        skip_tokenizer_init: bool,
        dtype: str,
        max_model_len: int,
        gpu_memory_utilization: float,
        logprobs_mode: str,
    ):
        assert (
            skip_tokenizer_init and logprobs_mode == "processed_logprobs" and 0 < gpu_memory_utilization < 1
        )
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self._window, self._cached = max_model_len, False
        self.loads, self.seeds = 0, list[int]()
        type(self).engines.append(self)

    def apply_model(self, func: Callable[[nn.Module], Any]) -> list[Any]:
        def load_weights(weights: Sequence[tuple[str, torch.Tensor]]) -> set[str]:
            own = dict(self._model.named_parameters())
            assert set(own) == {name for name, _ in weights}
            with torch.no_grad():
                for name, tensor in weights:
                    own[name].copy_(tensor)
            self.loads += 1
            return set(own)

        self._model.load_weights = load_weights
        return [func(self._model)]

    def reset_prefix_cache(self) -> bool:
        self._cached = False
        return True

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: list[SamplingParams], *, use_tqdm: bool
    ) -> list[Request]:
        assert len(prompts) == len(sampling_params) and not use_tqdm
        assert not self._cached, "keys and values of the weights before"
        self._cached = True
        return [self._one(p["prompt_token_ids"], s) for p, s in zip(prompts, sampling_params, strict=True)]

    def _one(self, ids: list[int], settings: SamplingParams) -> Request:
        assert len(ids) + settings.max_tokens <= self._window
        assert settings.ignore_eos and not settings.detokenize and settings.logprobs == 0
        self.seeds.append(settings.seed)
        rows = range(self._model.config.vocab_size)
        mask_ids(self._model, set(rows) - set(settings.allowed_token_ids or rows))
        (eos,) = settings.stop_token_ids
        drawn = generate(
            self._model,
            torch.tensor([ids]),
            torch.ones(1, len(ids), dtype=torch.bool),
            n=1,
            max_new_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=1.0,
            eos_id=eos,
            pad_id=0,
            generator=torch.Generator().manual_seed(settings.seed),
        )
        tokens = drawn.response[drawn.mask].tolist()
        told = [{t: Logprob(p)} for t, p in zip(tokens, drawn.logprobs[drawn.mask].tolist(), strict=True)]
        return Request([Completion(tuple(tokens), told, "stop" if bool(drawn.stopped) else "length")])


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    module: Any = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(LLM, "engines", [])
    return LLM


def run(lab: Path, folder: Path, **changes: Any) -> Path:
    settings = laboratory.changed("ppo", {"sampler": "vllm", "temperature": 0.7} | changes)
    return laboratory.run(laboratory.context("ppo", lab, folder, settings=settings), "ppo")


@pytest.mark.parametrize("value_network", ["separate", "shared"])
def test_episodes_are_drawn_from_the_policy_as_it_is_now(
    lab: Path, tmp_path: Path, vllm: type[LLM], value_network: str
) -> None:
    rows = read_metrics(run(lab, tmp_path / "ppo", value_network=value_network) / "metrics.jsonl")
    assert len(rows) > 1 and hash_folder(tmp_path / "ppo" / "checkpoint") != hash_folder(
        lab / "sft" / "checkpoint"
    )
    assert max(row["sampler_gap"] for row in rows) < 1e-5
    assert max(abs(row["first_ratio"] - 1) for row in rows) < 1e-5
    (engine,) = vllm.engines
    assert engine.loads == len(rows)
    assert len(set(engine.seeds)) == len(engine.seeds), "every episode has a seed of its own"


def test_an_engine_that_keeps_old_weights_shows_in_the_log(
    lab: Path, tmp_path: Path, vllm: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "apply_model", lambda *_: [None])
    rows = read_metrics(run(lab, tmp_path / "ppo", optimizer={"lr": 0.01}) / "metrics.jsonl")
    gaps = [row["sampler_gap"] for row in rows]
    assert gaps[0] < 1e-5 and gaps[-1] > 0.01
    assert max(abs(row["first_ratio"] - 1) for row in rows) < 1e-5, (
        "the trainer's own figures are what counts"
    )


def test_episodes_end_at_eos_or_at_the_window(lab: Path, tmp_path: Path, vllm: type[LLM]) -> None:
    folder = run(lab, tmp_path / "ppo", temperature=2.0)  # so hot that some never end
    samples = list(iter_records(folder / "rollouts.jsonl", Sample))
    assert samples and {sample.stopped for sample in samples} == {True, False}


def test_a_response_that_ends_by_something_else_is_refused(
    lab: Path, tmp_path: Path, vllm: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = vllm._one

    def cut(self: LLM, ids: list[int], settings: SamplingParams) -> Request:
        request = plain(self, ids, settings)
        one = request.outputs[0]
        return Request([Completion(one.token_ids[:1], one.logprobs[:1], "abort")])

    monkeypatch.setattr(vllm, "_one", cut)
    with pytest.raises(UsageError, match="ended a response by 'abort'"):
        run(lab, tmp_path / "ppo")


def test_what_cannot_be_is_refused(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="loads whole weights, not adapters"):
        PPOSettings.model_validate({"sampler": "vllm", "lora": {"rank": 4}})
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UsageError, match="needs the package vllm") as caught:
        run(lab, tmp_path / "ppo")
    assert caught.value.remedy == "pip install vllm tldr-feedback"


def test_the_double_takes_what_vllm_takes() -> None:
    """Where the real one is installed; elsewhere this says that nobody looked."""
    real = pytest.importorskip("vllm", reason="vLLM, which needs a GPU, is not installed")
    for ours, theirs in ((LLM.generate, real.LLM.generate), (LLM.__init__, real.LLM.__init__)):
        names = set(inspect.signature(ours).parameters)
        accepted = inspect.signature(theirs).parameters
        assert names <= set(accepted) or any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    for name in SamplingParams.__dataclass_fields__:
        assert hasattr(real.SamplingParams(), name)
