from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tldr.errors import CheckpointError, NonFiniteError, UsageError
from tldr.models.ladder import ARCHITECTURES, build_policy, save_policy
from tldr.models.packed import collate, response_scores, response_values
from tldr.models.reward import apply_shift, load_reward, reward_from_policy, save_reward, value_from_reward
from tldr.settings.models import ModelSpec

EOS, PAD = 0, 1


def right_padded(rows, pad):
    """Query + response rows as plain transformers takes them, with their (b, k)."""
    places, runs = [], []
    for b, (query, answers) in enumerate(zip(*rows, strict=True)):
        for k, answer in enumerate(answers):
            if answer:
                places.append((b, k))
                runs.append(query + answer)
    width = max(map(len, runs))
    ids = torch.tensor([run + [pad] * (width - len(run)) for run in runs])
    return places, ids, (ids != pad).long()


@pytest.mark.parametrize("pad", [PAD, 40])  # 40: a pad added to the tokenizer, outside the embedding
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_plain_transformers_gives_the_same_scores(arch, pad, make_policy, rows, tokenizer, tmp_path):
    reward = reward_from_policy(make_policy(arch), seed=3, pad_id=pad)
    batch = collate(*rows, pad_id=pad)
    unshifted = response_scores(reward, batch)
    where = apply_shift(reward, 1.75)
    assert where == ("config" if arch == "llama" else "norm_bias")
    save_reward(reward, tokenizer, tmp_path / "rm", "card")

    ours = response_scores(load_reward(tmp_path / "rm"), batch)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    places, ids, mask = right_padded(rows, pad)
    for attention_mask in (mask, None):
        theirs = plain(ids, attention_mask=attention_mask).logits[:, 0]
        if where == "config":  # nothing in llama's class can hold it
            theirs = theirs - plain.config.reward_shift
        for (b, k), score in zip(places, theirs, strict=True):
            torch.testing.assert_close(ours[b, k], score, atol=1e-5, rtol=0)
            torch.testing.assert_close(ours[b, k], unshifted[b, k] - 1.75, atol=1e-5, rtol=0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_trap_shift_lost_or_applied_twice(arch, make_policy, batch, rows, tokenizer, tmp_path):
    """After the shift references average 0, also after a reload, and shifts add up."""
    reward = reward_from_policy(make_policy(arch), seed=1)
    real = batch.response_mask.any(-1)
    spread = response_scores(reward, batch)[real].std()
    apply_shift(reward, 0.5)
    apply_shift(reward, response_scores(reward, batch)[real].mean().item())
    save_reward(reward, tokenizer, tmp_path / "rm", "card")
    loaded = load_reward(tmp_path / "rm")
    for model in (reward, loaded, value_from_reward(loaded)):
        scores = response_scores(model, batch)[real]
        assert abs(scores.mean().item()) < 1e-5
        torch.testing.assert_close(scores.std(), spread)  # the mean only, no scaling


def test_opt_that_ends_in_a_projection_keeps_its_shift_in_the_config(batch):
    """OPT-350m's shape: the last norm is not what the head reads."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=40,
        hidden_size=16,
        word_embed_proj_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=32,
        max_position_embeddings=32,
        do_layer_norm_before=False,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    reward = reward_from_policy(OPTForCausalLM(config), seed=0)
    before = response_scores(reward, batch)
    assert apply_shift(reward, -2.0) == "config"
    real = batch.response_mask.any(-1)
    torch.testing.assert_close(response_scores(reward, batch)[real], before[real] + 2.0)


def test_a_shift_must_be_finite(make_policy):
    with pytest.raises(NonFiniteError, match="nan"):
        apply_shift(reward_from_policy(make_policy(), seed=0), math.nan)


def test_trap_head_std():
    """1/sqrt(d+1), not the printed 1/(d+1): 0.031 against 0.00098 at d = 1024."""
    spec = ModelSpec(arch="llama", d_model=1024, layers=1, heads=8, context=8)
    policy = build_policy(spec, vocab_size=8, eos_id=0, pad_id=1, seed=0)
    head = reward_from_policy(policy, seed=5).score.weight
    assert head.shape == (1, 1024)
    assert head.std().item() == pytest.approx(1 / math.sqrt(1025), rel=0.1)
    assert abs(head.mean().item()) < 4 / 1025
    assert not torch.equal(head, reward_from_policy(policy, seed=6).score.weight)
    assert torch.equal(head, reward_from_policy(policy, seed=5).score.weight)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_body_is_a_copy_of_the_policy(arch, make_policy, tokenizer, tmp_path):
    policy = make_policy(arch)
    state = torch.get_rng_state()
    reward = reward_from_policy(policy, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    ours, theirs = reward.base_model.state_dict(), policy.base_model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) and ours[k].data_ptr() != theirs[k].data_ptr() for k in ours)
    assert policy.config.pad_token_id == PAD and not hasattr(policy.config, "reward_shift")
    save_policy(policy, tokenizer, tmp_path / "policy", "card")
    from_folder = reward_from_policy(tmp_path / "policy", seed=0)
    assert all(torch.equal(a, b) for a, b in zip(from_folder.parameters(), reward.parameters(), strict=True))


@pytest.mark.parametrize("pad_id", [EOS, None])
def test_trap_pad_equals_eos(pad_id, make_policy):
    policy = make_policy()
    policy.config.pad_token_id = None
    with pytest.raises(UsageError, match="pad token that is not the EOS"):
        reward_from_policy(policy, seed=0, pad_id=pad_id)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"pad_token_id": EOS}, "pad token is 0"), ({"pad_token_id": None}, "pad token is None")],
)
def test_load_refuses_a_model_whose_eos_is_lost(change, message, make_policy, tokenizer, tmp_path):
    folder = save_reward(reward_from_policy(make_policy(), seed=0), tokenizer, tmp_path / "rm", "card")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        load_reward(folder)


def test_load_refuses_a_policy_and_several_labels(make_policy, tokenizer, tmp_path):
    save_policy(make_policy(), tokenizer, tmp_path / "policy", "card")
    with pytest.raises(CheckpointError, match="score"):
        load_reward(tmp_path / "policy")
    policy = make_policy()
    policy.config.num_labels = 3
    three = AutoModelForSequenceClassification.from_config(policy.config)
    save_reward(three, tokenizer, tmp_path / "three", "card")
    with pytest.raises(CheckpointError, match="3 labels"):
        load_reward(tmp_path / "three")


def test_trap_value_network_shares_the_reward_models_weights(make_policy, batch):
    reward = reward_from_policy(make_policy(), seed=0).requires_grad_(False)
    before = response_scores(reward, batch)
    value = value_from_reward(reward)
    torch.testing.assert_close(response_scores(value, batch), before)
    optimizer = torch.optim.SGD(value.parameters(), lr=0.1)
    response_values(value, batch).square().sum().backward()
    optimizer.step()
    assert torch.equal(response_scores(reward, batch), before)
    assert not torch.allclose(response_scores(value, batch), before)
