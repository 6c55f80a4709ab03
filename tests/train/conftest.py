"""Puts `tiny_run`, which is a script of its own too, on the import path of the tests beside it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
