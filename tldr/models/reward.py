"""Reward models: transformers sequence classifiers with one label.

`AutoModelForSequenceClassification.from_pretrained(folder)` in plain transformers gives the same
scores on right-padded query + response rows: it reads the last token that is not pad, the EOS.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from tldr.errors import CheckpointError, NonFiniteError, UsageError
from tldr.models.ladder import disable_dropout, eos_ids, load_checkpoint, load_policy, save_policy

save_reward = save_policy


def reward_from_policy(
    policy: PreTrainedModel | str | Path, seed: int, *, pad_id: int | None = None
) -> PreTrainedModel:
    """A reward model: a copy of the policy's body and a new head, N(0, std 1/sqrt(d+1)), no bias.

    Source: OAI query_response_model.py; the paper prints the variance 1/(d+1) (P App. B.1). The
    global random state does not change.

    Args:
        policy: a causal LM (SFT), or its path.
        seed: initialises the head.
        pad_id: the tokenizer's pad; by default the policy's. If it is outside the embedding, the
            embedding is extended, because plain transformers looks it up.

    Raises:
        UsageError: there is no pad id, or pad is an EOS: the score would not be read at the EOS.
    """
    if not isinstance(policy, PreTrainedModel):
        policy = load_policy(policy)
    pad = policy.config.pad_token_id if pad_id is None else pad_id
    if pad is None or pad in eos_ids(policy.config):
        raise UsageError(
            f"a reward model needs a pad token that is not the EOS, not {pad}",
            remedy="load the tokenizer with tldr.queries.tokenizer.load_tokenizer and pass its pad id",
        )
    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    config.pad_token_id = None  # it may still be outside the embedding, and so invalid as a padding index
    with torch.random.fork_rng(devices=[]):
        auto: Any = AutoModelForSequenceClassification
        model = auto.from_config(
            config, dtype=policy.dtype, attn_implementation=policy.config._attn_implementation
        )
        model.base_model.load_state_dict(policy.base_model.state_dict())
        if pad >= model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(pad + 1, mean_resizing=False)
    model.config.pad_token_id = pad
    width = model.score.in_features
    head = torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) / math.sqrt(width + 1)
    with torch.no_grad():
        model.score.weight.copy_(head)
    disable_dropout(model)
    reward: PreTrainedModel = model.to(policy.device)
    return reward


def load_reward(path: str | Path, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a reward or value model; arguments as for `tldr.models.ladder.load_policy`.

    `tldr.models.packed.response_scores` applies the shift exactly once, wherever it is stored.

    Raises:
        CheckpointError: as for `load_checkpoint`; several labels; no pad, or pad is an EOS.
    """
    model = load_checkpoint(AutoModelForSequenceClassification, path, dtype=dtype)
    if model.config.num_labels != 1:
        raise CheckpointError(f"has {model.config.num_labels} labels, a reward model has one", where=path)
    if model.config.pad_token_id is None or model.config.pad_token_id in eos_ids(model.config):
        raise CheckpointError(
            f"its pad token is {model.config.pad_token_id}: missing, or the EOS, where the score is read",
            where=path,
            remedy="train the reward model again with a tokenizer that has its own pad token",
        )
    return model


def _final_norm_bias(model: PreTrainedModel) -> nn.Parameter | None:
    """The bias of the norm whose output the head reads, if it has one."""
    body: Any = model.base_model
    if model.config.model_type == "opt":  # OPT-350m ends in a projection instead
        norm = None if body.decoder.project_out is not None else body.decoder.final_layer_norm
    else:
        norm = getattr(
            body, {"gpt_neox": "final_layer_norm", "gpt2": "ln_f"}.get(model.config.model_type, ""), None
        )
    return getattr(norm, "bias", None)


@torch.no_grad()
def apply_shift(model: PreTrainedModel, shift: float) -> Literal["norm_bias", "config"]:
    """Subtract `shift` from every score, so that the train references average 0 (P App. B.1: mean only).

    The classes' heads have no bias. The score is linear in the last norm's output, so the norm's
    bias b can hold the shift exactly: b - shift * w / |w|^2, with the head's weight w. Without such
    a bias (llama's RMSNorm) `config.reward_shift` holds it, which plain transformers ignores.

    Args:
        shift: mean score of the train references; shifts of several calls add up.

    Returns:
        Where the shift is stored, for the model card.

    Raises:
        NonFiniteError: the shift is NaN or infinite.
    """
    if not math.isfinite(shift):
        raise NonFiniteError(f"the mean score of the references is {shift}", remedy="check the training loss")
    bias = _final_norm_bias(model)
    if bias is None:
        model.config.reward_shift = getattr(model.config, "reward_shift", 0.0) + shift
        return "config"
    head: Tensor = cast(Any, model.score).weight[0].double()
    bias.copy_(bias.double() - shift * head / head.dot(head))
    return "norm_bias"


def value_from_reward(reward_model: PreTrainedModel) -> PreTrainedModel:
    """The initial value network: a separate copy of the reward model (P B.1, Fig. 11)."""
    value = copy.deepcopy(reward_model)
    return value.requires_grad_(True)
