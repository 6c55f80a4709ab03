"""Pure functions on numbers and texts that both `tldr` and `eval` call; no torch, no pandas."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
