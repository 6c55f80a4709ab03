"""Policies: build them from a config, load and save them. All are plain transformers causal LMs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tldr.errors import CheckpointError, UsageError
from tldr.files import replacing_folder
from tldr.models.attention import BLOCKED
from tldr.models.mimetic import mimetic_
from tldr.models.vocabulary import card_note, logit_rows, mask_unwritable, suppress, unwritable_ids
from tldr.pinned import fetch
from tldr.queries.tokenizer import load_tokenizer
from tldr.settings.models import ModelSpec

ARCHITECTURES = ("gpt_neox", "gpt2", "opt", "llama")
"""Supported architectures: tests show that their packed forward equals the plain one. Others are refused."""


def choose_attention(device: torch.device | str) -> str:
    """The faster attention on a device: ours on a CPU (`tldr.models.attention`), torch's fused one elsewhere.

    Seconds per training step of a small model (d 256, 3 layers, 4 heads, two threads), plain / fused / ours:
    0.19 / 0.20 / 0.18 at 4 x 380 tokens, 0.30 / 0.34 / 0.28 at 4 x 560, 0.39 / 0.40 / 0.32 at 2 x 1100;
    in bf16 0.126 / 0.138 / 0.110, 0.20 / 0.23 / 0.17 and 0.26 / 0.29 / 0.20.
    """
    return BLOCKED if torch.device(device).type == "cpu" else "sdpa"


def _fastest_here() -> str:
    return choose_attention("cuda" if torch.cuda.is_available() else "cpu")


def _config(spec: ModelSpec, vocab_size: int, eos_id: int, pad_id: int) -> PreTrainedConfig:
    ids = {"vocab_size": vocab_size, "eos_token_id": eos_id, "bos_token_id": eos_id, "pad_token_id": pad_id}
    common: dict[str, Any] = {
        **ids,
        "hidden_size": spec.d_model,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "max_position_embeddings": spec.context,
        "tie_word_embeddings": True,
    }
    inner = 4 * spec.d_model
    if spec.arch == "gpt_neox":
        # A model (d 64, 2 layers, mimetic init, embedding std 0.02) learnt to copy spans after 450 updates
        # with full rotary embeddings and after 750 with Pythia's quarter. With a sequential residual it did
        # not learn it within the 650 to 1,200 updates tried.
        rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
        return GPTNeoXConfig(
            **common, intermediate_size=inner, use_parallel_residual=True, rope_parameters=rotary
        )
    if spec.arch == "gpt2":
        return GPT2Config(**common, n_inner=inner)
    if spec.arch == "opt":
        return OPTConfig(**common, ffn_dim=inner, word_embed_proj_dim=spec.d_model)
    # Three matrices of 8/3 d hold as many weights as two of 4 d (Touvron et al. 2023).
    return LlamaConfig(**common, intermediate_size=8 * spec.d_model // 3)


def build_policy(spec: ModelSpec, *, vocab_size: int, eos_id: int, pad_id: int, seed: int) -> PreTrainedModel:
    """A randomly initialised causal LM of one size of the ladder: fp32, CPU, no dropout.

    The global random state does not change.

    Args:
        spec: the model's shape; `spec.path` must be unset.
        pad_id: inside the vocabulary and different from EOS; otherwise EOS would never be learnt.

    Raises:
        UsageError: pad equals EOS, an id is outside the vocabulary, or the spec names a checkpoint.
    """
    if spec.path is not None:
        raise UsageError(f"the spec names the checkpoint {spec.path}", remedy="load it with load_policy")
    if pad_id == eos_id:
        raise UsageError(
            f"pad and EOS are both token {eos_id}", remedy="give the tokenizer its own pad token"
        )
    if not (0 <= eos_id < vocab_size and 0 <= pad_id < vocab_size):
        raise UsageError(f"EOS {eos_id} or pad {pad_id} is outside the vocabulary of {vocab_size}")
    config = _config(spec, vocab_size, eos_id, pad_id)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        auto: Any = AutoModelForCausalLM
        model: PreTrainedModel = auto.from_config(
            config, dtype=torch.float32, attn_implementation=_fastest_here()
        )
        if spec.init == "mimetic":
            mimetic_(model)
    disable_dropout(model)
    return model


def _is_local(path: str | Path) -> bool:
    """Whether a name is a local folder, not ``owner/name`` on the hub."""
    text = str(path)
    return isinstance(path, Path) or Path(path).exists() or text[:1] in "./~" or text.count("/") > 1


def load_checkpoint(auto: Any, path: str | Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """Load safetensors weights into the class that `auto` picks; no pickle, no remote code.

    Raises:
        CheckpointError: the checkpoint is missing, incomplete, not in safetensors, of an unsupported
            architecture, or of the wrong kind.
    """
    local = _is_local(path)
    if local and not Path(path).is_dir():
        raise CheckpointError(
            "no such checkpoint folder", where=path, remedy="check the path, or run its stage"
        )
    try:
        place = path if local else fetch(str(path))
        config = AutoConfig.from_pretrained(place)
        if config.model_type not in ARCHITECTURES:
            raise CheckpointError(
                f"architecture {config.model_type} is not among {', '.join(ARCHITECTURES)}", where=path
            )
        model: PreTrainedModel
        model, info = auto.from_pretrained(
            place,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation=_fastest_here(),
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"cannot be loaded: {reason}",
            where=path,
            remedy="it may be incomplete or contain only pickled weights: save it again, as safetensors"
            if local
            else "check the name and the network connection, or give a local folder",
        ) from error
    wrong = sorted(info["missing_keys"]) + [key for key in info["unexpected_keys"] if key == "score.weight"]
    if wrong:
        raise CheckpointError(
            f"is not a checkpoint for {type(model).__name__}: {wrong[0]} is missing or out of place",
            where=path,
            remedy="a policy is a causal LM, a reward model is a sequence classifier: "
            "check which stage made the checkpoint",
        )
    disable_dropout(model)
    return model


def load_policy(
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """Load a causal LM from a local folder or the hub, without dropout and without resizing.

    A pad equal to EOS is removed from the config: as the embedding's padding index it would
    prevent EOS from being learnt. The forward passes of this package need no pad in the model.

    Args:
        tokenizer: what it cannot write (pad, ids that it does not own) is masked in all logits
            (`tldr.models.vocabulary`). None: the one saved beside the weights. Without
            one nothing is masked.
        dtype: of the weights.

    Raises:
        CheckpointError: see `load_checkpoint`.
    """
    model = load_checkpoint(AutoModelForCausalLM, path, dtype=dtype)
    if model.config.pad_token_id is not None and model.config.pad_token_id in eos_ids(model.config):
        model.config.pad_token_id = None
        embedding: Any = model.get_input_embeddings()
        embedding.padding_idx = None
    if tokenizer is None:
        tokenizer = _tokenizer_beside(path)
    if tokenizer is not None:
        mask_unwritable(model, tokenizer)
    return model


def _tokenizer_beside(path: str | Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a checkpoint's folder or hub name, if there is one."""
    if _is_local(path):
        names = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
        return load_tokenizer(path) if any((Path(path) / name).exists() for name in names) else None
    try:
        return load_tokenizer(path)
    except UsageError:
        return None


def eos_ids(config: PreTrainedConfig) -> set[int]:
    """The EOS ids of a config; some hub models have several."""
    eos = config.eos_token_id
    return set(eos) if isinstance(eos, list) else {eos} - {None}


def save_policy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, card: str
) -> Path:
    """Save a model (policy, reward or value) with its tokenizer and card; on failure keep the old folder.

    The files are first written to a sibling folder, which is then renamed. A policy's generation config
    and its card also tell others which ids are never written (`tldr.models.vocabulary`).

    Args:
        card: the model card, written as README.md.
    """
    folder = Path(folder)
    if model.can_generate():
        unwritable = unwritable_ids(tokenizer, logit_rows(model))
        suppress(model, unwritable)
        card += card_note(unwritable)
    with replacing_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(card, encoding="utf-8")
    return folder


def disable_dropout(model: PreTrainedModel) -> None:
    """Turn off every dropout, in the modules and in the saved config."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "layerdrop"):  # plain numbers in some classes
            if isinstance(getattr(module, name, None), float | int):
                setattr(module, name, 0.0)
    for name, value in model.config.to_dict().items():
        if "drop" in name and isinstance(value, float | int):
            setattr(model.config, name, 0.0)


_RESIDUAL_DROPOUTS = {
    "gpt_neox": ("post_attention_dropout", "post_mlp_dropout"),
    "gpt2": ("resid_dropout", "mlp.dropout"),
}


def set_dropout(model: PreTrainedModel, p: float) -> None:
    """Set only the residual dropouts (InstructGPT C.1: 0.2); the saved config stays at 0.

    Raises:
        UsageError: `p` is outside [0, 1).
    """
    if not 0 <= p < 1:
        raise UsageError(f"dropout {p} is not in [0, 1)", where="sft.dropout")
    kind, body = model.config.model_type, cast(Any, model.base_model)
    if kind == "opt":
        for layer in body.decoder.layers:
            layer.dropout = p
    elif kind == "llama":  # the class has none
        for layer in body.layers:
            for part in (layer.self_attn, layer.mlp):
                _drop_output(part, p)
    else:
        for name, module in model.named_modules():
            if name.endswith(_RESIDUAL_DROPOUTS[kind]):
                module.p = p


def _drop_output(part: nn.Module, p: float) -> None:
    """Set the dropout of a module's output, or of the first of its outputs."""
    if not hasattr(part, "residual_dropout"):

        def drop(module: nn.Module, _: Any, out: Any) -> Any:
            dropout = module.get_submodule("residual_dropout")
            return (dropout(out[0]), *out[1:]) if isinstance(out, tuple) else dropout(out)

        part.add_module("residual_dropout", nn.Dropout(0.0))
        part.register_forward_hook(drop)
    part.get_submodule("residual_dropout").p = p  # type: ignore[assignment]


def parameter_count(model: PreTrainedModel, embeddings: bool = False) -> int:
    """Number of parameters, counting shared ones once; by default without token and position embeddings.

    An untied output matrix counts as an embedding (Kaplan et al. 2020 exclude both).
    """
    output = cast(Any, model).get_output_embeddings()
    left_out = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding) or module is output
        for parameter in module.parameters()
    }
    return sum(p.numel() for p in model.parameters() if embeddings or id(p) not in left_out)
