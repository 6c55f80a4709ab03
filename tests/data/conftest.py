"""Shared by the data tests: a small BPE, GPT-2's tokenizer, and the real rows where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub import constants
from transformers import PreTrainedTokenizerBase

from tldr.data.tokenizer import load_tokenizer, train_bpe

SHARED = Path(os.environ.get("TLDR_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))

TEXTS = [
    "SUBREDDIT: r/dogs\n\nTITLE: My dog ate the sofa\n\nPOST: We went out for an hour.\nThe sofa is gone."
    "\n\nTL;DR: dog ate sofa, what now?",
    "SUBREDDIT: r/jobs\n\nTITLE: New boss\n\nPOST: My boss wants me to work on Sundays.\n\nI said no."
    "\n\nTL;DR: boss wants Sundays, I said no.",
] * 3


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test` runs offline; the hub of these tests is a server on this machine."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture(scope="session")
def bpe() -> PreTrainedTokenizerBase:
    return train_bpe(TEXTS, 320)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real rows (`TLDR_SHARED_DATA` overrides); its README says what they are."""
    if not (SHARED / "tldr_posts.jsonl").is_file():
        pytest.skip(f"no real data in {SHARED}; set TLDR_SHARED_DATA")
    return SHARED


@pytest.fixture(scope="session")
def gpt2(shared: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(shared / "gpt2-tokenizer")
