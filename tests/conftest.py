"""How the suite is run: one thread a test process, the longest test first."""

from __future__ import annotations

import os

# Before torch is loaded, and for the processes of a test, as in `make test`: last bits depend on the number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

# By default an example may take 200 ms, and drawing them a few seconds.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The README's test takes minutes: at the end it would run alone."""
    items.sort(key=lambda item: "test_readme.py" not in item.nodeid)
