from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, GPT2Config, GPT2LMHeadModel

from tldr.errors import CheckpointError, UsageError
from tldr.models.attention import BLOCKED
from tldr.models.ladder import (
    ARCHITECTURES,
    build_policy,
    choose_attention,
    disable_dropout,
    load_policy,
    parameter_count,
    save_policy,
    set_dropout,
)
from tldr.models.mimetic import OUTPUT_SCALE
from tldr.models.packed import response_logprobs
from tldr.models.reward import reward_from_policy, save_reward
from tldr.models.vocabulary import mask_ids
from tldr.settings.models import ModelSpec

EOS, PAD = 0, 1


def build(seed=0, **changes):
    spec = ModelSpec(**{"d_model": 16, "layers": 2, "heads": 2, "context": 32} | changes)
    return build_policy(spec, vocab_size=40, eos_id=EOS, pad_id=PAD, seed=seed)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_built_from_the_spec(arch):
    state = torch.get_rng_state()
    model, same, other = build(arch=arch), build(arch=arch), build(1, arch=arch)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's draws depend on it
    config = model.config
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == (arch, 16, 2)
    assert (config.pad_token_id, config.eos_token_id, config.max_position_embeddings) == (PAD, EOS, 32)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert not torch.equal(model.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_build_refuses_what_cannot_be_learnt():
    with pytest.raises(UsageError, match="pad and EOS are both token 0"):
        build_policy(ModelSpec(), vocab_size=40, eos_id=0, pad_id=0, seed=0)
    with pytest.raises(UsageError, match="outside the vocabulary of 40"):
        build_policy(ModelSpec(), vocab_size=40, eos_id=0, pad_id=40, seed=0)
    with pytest.raises(UsageError, match="load_policy"):
        build_policy(ModelSpec(path="somewhere"), vocab_size=40, eos_id=0, pad_id=1, seed=0)


def projections(model, layer):
    """W_q, W_k, W_v, W_o of a layer as (out, in), from each class's documented layout."""
    body, d = model.base_model, model.config.hidden_size
    match model.config.model_type:
        case "gpt_neox":
            attention = body.layers[layer].attention
            heads = model.config.num_attention_heads
            q, k, v = attention.query_key_value.weight.view(heads, 3, d // heads, d).transpose(0, 1)
            return *(w.reshape(d, d) for w in (q, k, v)), attention.dense.weight
        case "gpt2":
            attention = body.h[layer].attn
            return *(w.T for w in attention.c_attn.weight.split(d, dim=1)), attention.c_proj.weight.T
        case "opt":
            a = body.decoder.layers[layer].self_attn
            return a.q_proj.weight, a.k_proj.weight, a.v_proj.weight, a.out_proj.weight
        case _:
            a = body.layers[layer].self_attn
            return a.q_proj.weight, a.k_proj.weight, a.v_proj.weight, a.o_proj.weight


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_mimetic_init(arch):
    model = build(arch=arch, init="mimetic")
    q, k, v, o = projections(model, 1)
    torch.testing.assert_close(q, k)
    torch.testing.assert_close(q @ q.T, torch.eye(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(o, OUTPUT_SCALE * v.T)
    torch.testing.assert_close(o @ v, OUTPUT_SCALE * torch.eye(16), atol=1e-5, rtol=0)
    q, k, *_ = projections(model, 0)
    assert not torch.allclose(q, k, atol=1e-3)
    with pytest.raises(UsageError, match="second layer"):
        build(arch=arch, init="mimetic", layers=1)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_save_and_reload(arch, make_policy, batch, tokenizer, tmp_path):
    policy = make_policy(arch)
    folder = save_policy(policy, tokenizer, tmp_path / "run" / "checkpoint", "# card")
    assert (folder / "README.md").read_text().startswith("# card")
    assert (folder / "model.safetensors").is_file()
    assert not [p for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pkl")]
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]  # nothing beside it
    plain = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(response_logprobs(plain, batch), response_logprobs(policy, batch))
    mask_ids(policy, [PAD])  # as the tokenizer beside the weights says
    expected = response_logprobs(policy, batch)
    torch.testing.assert_close(response_logprobs(load_policy(folder), batch), expected)
    torch.testing.assert_close(response_logprobs(load_policy(str(folder)), batch), expected)
    assert AutoTokenizer.from_pretrained(folder).pad_token_id == PAD
    assert load_policy(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_an_interrupted_save_leaves_the_last_one(make_policy, tokenizer, tmp_path, monkeypatch):
    first, second = make_policy(seed=0), make_policy(seed=1)
    folder = save_policy(first, tokenizer, tmp_path / "checkpoint", "first")

    def interrupt(_folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "save_pretrained", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_policy(second, tokenizer, folder, "second")
    assert (folder / "README.md").read_text().startswith("first")
    weight = load_policy(folder).get_input_embeddings().weight
    assert torch.equal(weight, first.get_input_embeddings().weight)
    save_policy(second, tokenizer, folder, "second")
    weight = load_policy(folder).get_input_embeddings().weight
    assert torch.equal(weight, second.get_input_embeddings().weight)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


@pytest.fixture
def folder(make_policy, tokenizer, tmp_path):
    return save_policy(make_policy(), tokenizer, tmp_path / "checkpoint", "card")


def truncate(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def drop_a_tensor(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["gpt_neox.layers.1.attention.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def only_pickle(folder):
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


BROKEN = {
    "missing folder": (shutil.rmtree, "no such checkpoint folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot be loaded"),
    "broken config": (lambda folder: (folder / "config.json").write_text('{"model_'), "cannot be loaded"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
    "truncated weights": (truncate, "cannot be loaded"),
    "a tensor missing": (drop_a_tensor, "layers.1.attention.dense.weight is missing"),
    "pickle only": (only_pickle, "cannot be loaded"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_half_written_or_pickled_checkpoints_are_refused(case, folder):
    breaks, message = BROKEN[case]
    breaks(folder)
    for name in (folder, str(folder)):
        with pytest.raises(CheckpointError, match=message) as caught:
            load_policy(name)
        assert caught.value.where == str(folder) and caught.value.remedy


def test_a_reward_model_is_not_a_policy(make_policy, tokenizer, tmp_path):
    save_reward(reward_from_policy(make_policy(), seed=0), tokenizer, tmp_path / "rm", "card")
    with pytest.raises(CheckpointError, match=r"score\.weight is missing or out of place"):
        load_policy(tmp_path / "rm")


def test_untested_architectures_are_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="architecture bert"):
        load_policy(tmp_path)


@pytest.mark.parametrize("arch", ["opt", "llama"])
def test_trap_eos_as_padding_index_is_never_learnt(arch, make_policy, tokenizer, batch, tmp_path):
    folder = save_policy(make_policy(arch), tokenizer, tmp_path / "checkpoint", "card")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": EOS, "eos_token_id": [EOS, 3]}))
    policy = load_policy(folder)
    assert policy.config.pad_token_id is None
    embedding = policy.get_input_embeddings()
    embedding(torch.tensor([EOS])).sum().backward()
    assert embedding.weight.grad[EOS].abs().sum() > 0


def hub_gpt2(tmp_path):
    """A checkpoint as the hub has it: dropout 0.1 three times."""
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32, eos_token_id=EOS)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_trap_dropout_stays_on(tmp_path, batch):
    policy = load_policy(hub_gpt2(tmp_path)).train()
    assert torch.equal(response_logprobs(policy, batch), response_logprobs(policy, batch))
    assert policy.config.resid_pdrop == policy.config.embd_pdrop == policy.config.attn_pdrop == 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_residual_dropout_only(arch, make_policy, batch):
    policy = make_policy(arch).train()

    def noisy():
        return not torch.equal(response_logprobs(policy, batch), response_logprobs(policy, batch))

    assert not noisy()
    keys = list(policy.state_dict())
    set_dropout(policy, 0.2)
    assert list(policy.state_dict()) == keys, "what is saved has the dropout"
    assert noisy()
    rates = [m.p for m in policy.modules() if isinstance(m, torch.nn.Dropout)]
    rates += [m.dropout for m in policy.modules() if isinstance(getattr(m, "dropout", None), float)]
    # two in each of two layers, of which opt holds one number
    assert rates.count(0.2) == (2 if arch == "opt" else 4) and set(rates) <= {0.0, 0.2}
    policy.eval()
    assert not noisy()
    policy.train()
    disable_dropout(policy)
    assert not noisy()
    with pytest.raises(UsageError, match="not in"):
        set_dropout(policy, 1.0)


def test_llama_has_the_dropout_of_other_architectures_on_what_a_layer_adds(make_policy):
    """With all of it dropped, no layer adds anything."""
    policy = make_policy("llama").train()
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    set_dropout(policy, 0.1)
    set_dropout(policy, 0.0)
    plain = policy(ids).logits
    for part in policy.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 1.0
    embedded = policy.get_input_embeddings()(ids)
    assert torch.allclose(policy(ids).logits, policy.lm_head(policy.model.norm(embedded)))
    set_dropout(policy, 0.0)
    assert torch.equal(policy(ids).logits, plain)


def test_parameter_count_by_hand():
    model, d = build(arch="gpt2"), 16
    attention = d * 3 * d + 3 * d + d * d + d
    mlp = d * 4 * d + 4 * d + 4 * d * d + d
    body = 2 * (attention + mlp + 2 * 2 * d) + 2 * d
    assert parameter_count(model) == body
    assert parameter_count(model, embeddings=True) == body + 40 * d + 32 * d  # the tied matrix once
    untied = GPT2LMHeadModel(GPT2Config(**model.config.to_dict() | {"tie_word_embeddings": False}))
    assert parameter_count(untied) == body
    assert parameter_count(untied, embeddings=True) == body + 2 * 40 * d + 32 * d


def test_attention_by_device():
    assert choose_attention("cpu") == choose_attention(torch.device("cpu")) == BLOCKED
    assert choose_attention("cuda") == "sdpa"
