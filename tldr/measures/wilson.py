"""Wilson's score interval of a share."""

from __future__ import annotations

import math

from scipy.special import ndtri


def wilson_interval(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Bounds of the share ``successes / n`` of independent outcomes (Wilson 1927), within 0..1.

    Args:
        successes: 0..n; ties may count as halves.
        n: outcomes; an effective number of outcomes may be fractional.
    """
    share = successes / n
    z = float(-ndtri((1 - level) / 2))
    scale = 1 + z**2 / n
    center = (share + z**2 / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / scale
    return max(center - half, 0.0), min(center + half, 1.0)
