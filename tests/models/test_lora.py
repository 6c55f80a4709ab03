"""Low-rank adapters: nothing at first, alone in being trained, out of use and merged without a trace."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tldr.errors import UsageError
from tldr.models.ladder import ARCHITECTURES
from tldr.models.lora import add_lora, lora_off, merge_lora
from tldr.models.packed import PackedBatch, response_logprobs
from tldr.models.reward import reward_from_policy
from tldr.settings.training import Lora

IDS = torch.arange(2, 20)[None]


def trained(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def disturb(model: PreTrainedModel) -> None:
    """Stand in for training: what may be trained gets other values."""
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trained(model).values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=noise))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_adapters_start_as_nothing_and_merge_into_a_plain_checkpoint(
    make_policy: Callable[..., PreTrainedModel], batch: PackedBatch, tmp_path: Path, arch: str
) -> None:
    policy = make_policy(arch)
    before, names = copy.deepcopy(policy), [name for name, _ in policy.named_parameters()]
    random = torch.get_rng_state()
    add_lora(policy, Lora(rank=3, alpha=5), seed=1)
    assert torch.equal(random, torch.get_rng_state())
    plain, start = before(IDS).logits, policy(IDS).logits
    assert torch.equal(start, plain)
    disturb(policy)
    logits, logprobs = policy(IDS).logits, response_logprobs(policy, batch)
    assert (logits - plain).abs().max() > 0.05
    with torch.no_grad(), lora_off(policy):
        assert torch.equal(response_logprobs(policy, batch), response_logprobs(before, batch))
    assert torch.equal(policy(IDS).logits, logits), "back in use"
    assert sum(p.numel() for p in trained(policy).values()) == sum(
        3 * sum(part.weight.shape)
        for part in before.base_model.modules()
        if hasattr(part, "weight") and part.weight.ndim == 2 and not isinstance(part, nn.Embedding)
    )
    merge_lora(policy)
    assert [name for name, _ in policy.named_parameters()] == names
    policy.save_pretrained(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert torch.allclose(saved(IDS).logits, logits, atol=1e-5, rtol=0)
    assert torch.allclose(response_logprobs(saved, batch), logprobs, atol=1e-5, rtol=0)


def test_the_scale_is_alpha_over_rank(make_policy: Callable[..., PreTrainedModel]) -> None:
    policy = make_policy()
    layer = policy.base_model.layers[1].attention.dense
    weight = layer.weight.clone()
    add_lora(policy, Lora(rank=2, alpha=6, targets=["dense"]), seed=1)
    disturb(policy)
    a, b = (p for name, p in trained(policy).items() if ".1.attention.dense." in name)
    merge_lora(policy)
    assert torch.allclose(layer.weight - weight, 3.0 * b @ a, atol=1e-6)


def test_the_same_seed_gives_the_same_adapters(make_policy: Callable[..., PreTrainedModel]) -> None:
    draws = []
    for seed in (1, 1, 2):
        add_lora(policy := make_policy(), Lora(), seed)
        draws.append(torch.cat([p.detach().flatten() for p in trained(policy).values()]))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_reward_models_head_is_trained_too(make_policy: Callable[..., PreTrainedModel]) -> None:
    model = reward_from_policy(make_policy(), seed=1, pad_id=1)
    add_lora(model, Lora(targets=["query_key_value"]), seed=1)
    rest = {name for name in trained(model) if "query_key_value.lora_" not in name}
    assert rest == {"score.weight"} and len(trained(model)) == 1 + 2 * 2


@pytest.mark.parametrize("target", ["q_proj", "embed_out", "embed_in", ""])
def test_targets_are_linear_layers_of_the_body(
    make_policy: Callable[..., PreTrainedModel], target: str
) -> None:
    with pytest.raises(UsageError, match=r"is not a linear layer of GPTNeoX.*\n.*dense_4h_to_h") as caught:
        add_lora(make_policy(), Lora(targets=["dense", target]), seed=1)
    assert caught.value.where == "lora.targets"


def test_without_peft_the_error_says_what_to_install(
    make_policy: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    add_lora(policy := make_policy(), None, seed=1)
    merge_lora(policy)
    with pytest.raises(UsageError, match="needs the package peft") as caught:
        add_lora(policy, Lora(), seed=1)
    assert caught.value.remedy == "pip install 'tldr-feedback[lora]'"
