"""Shared by the TRL workers: tokenizer, models, arguments, and rounds of several steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rounds import EOS, PAD, Rounds
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)


def tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """A tokenizer with ids as words; the texts are already tokens."""
    words = {"<eos>": EOS, "<pad>": PAD} | {str(i): i for i in range(2, vocab)}
    made = Tokenizer(WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<eos>", pad_token="<pad>", padding_side="left"
    )


def config(rounds: Rounds, **changes: Any) -> Any:
    shape = AutoConfig.for_model(**rounds.spec["model"])
    shape.eos_token_id, shape.pad_token_id = EOS, PAD
    for name, value in changes.items():
        setattr(shape, name, value)
    return shape


def policy(rounds: Rounds) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(rounds), dtype=torch.float32)


def classifier(rounds: Rounds) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config(rounds, num_labels=1), dtype=torch.float32)


def arguments(rounds: Rounds, micro_batch: int | None = None) -> dict[str, Any]:
    """Settings of every trainer; all others are TRL's defaults. By default the micro-batch is the batch.

    The comparison is in fp32 on the CPU (TRL's default is bf16). Nothing is logged or saved in a round.
    """
    chosen: dict[str, Any] = {
        "output_dir": str(Path(rounds.spec["data"]).with_name("trl")),
        "per_device_train_batch_size": micro_batch or rounds.spec["batch"],
        "learning_rate": 1e-5,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 10**6,
        "disable_tqdm": True,
    }
    if not rounds.spec["checkpointing"]:
        chosen["gradient_checkpointing"] = False
    return chosen


class Steps(TrainerCallback):
    """Divides training into rounds of `updates` steps; everything between two steps counts."""

    def __init__(self, rounds: Rounds):
        self._rounds = rounds
        self.counts = dict.fromkeys(("tokens", "things"), 0.0)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._rounds.wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._rounds.spec["updates"]:
            return
        self._rounds.tell(**self.counts)
        self.counts.update(tokens=0.0, things=0.0)
        self._rounds.wait()
