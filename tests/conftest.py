"""One thread a test process, as in `make test`: with another number of threads the last bits differ."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, and for the processes of a test
