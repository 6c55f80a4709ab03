from __future__ import annotations

from pathlib import Path

import pytest

from tests.stages import lab as laboratory


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of every stage; tests must not write into it."""
    return laboratory.build(tmp_path_factory.mktemp("lab"))
