"""How the suite is run: one thread a test process, the longest test first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is loaded, and for the processes of a test, as in `make test`: last bits depend on the number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

# By default an example may take 200 ms, and drawing them a few seconds.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test of the documented commands takes minutes: at the end it would run alone."""
    items.sort(key=lambda item: "docs/test_commands.py" not in item.nodeid)


SHARED = Path(os.environ.get("TLDR_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def bpe() -> PreTrainedTokenizerBase:
    from tests.texts import TEXTS
    from tldr.queries.tokenizer import train_bpe

    return train_bpe(TEXTS, 320)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real rows (`TLDR_SHARED_DATA` overrides); its README says what they are."""
    if not (SHARED / "tldr_posts.jsonl").is_file():
        pytest.skip(f"no real data in {SHARED}; set TLDR_SHARED_DATA")
    return SHARED


@pytest.fixture(scope="session")
def gpt2(shared: Path) -> PreTrainedTokenizerBase:
    from tldr.queries.tokenizer import load_tokenizer

    return load_tokenizer(shared / "gpt2-tokenizer")
