"""The bound: what a child takes at most, from how far other children exceeded their predictions."""

from math import ceil, exp

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
LEVELS = (0.5, 0.999)
"""Share of random children that keep the bound, by default, at least and at most."""


def conformal_bound(ratios: Floats, level: float = LEVEL) -> float | None:
    """The factor that a share `level` of fresh ratios stay below; None for too few ratios.

    One-sided split-conformal on log(measured / predicted): the ``ceil((n + 1) * level)``-th
    smallest (Lei et al., 2018, https://arxiv.org/abs/1604.04173, sec. 2.2). It holds for children
    drawn like the calibration children, on average over calibrations. It is never below 1, so that
    no bound lies below its prediction, not even where most children are quicker than predicted;
    the promise only becomes stronger by that.
    """
    scores = np.sort(np.log(ratios))
    rank = _rank(len(scores), level)
    return max(1.0, exp(scores[rank - 1])) if rank <= len(scores) else None


def _rank(n: int, level: float) -> int:
    return ceil(round((n + 1) * level, 9))


def least_children(level: float) -> int:
    """How many calibration children it takes to state a bound of this level."""
    return ceil(round(level / (1 - level), 9))


def coverage_range(n: int, level: float = LEVEL) -> tuple[float, float]:
    """What share of children a bound from `n` calibration children covers, in 9 of 10 profiles.

    The coverage of one calibration is Beta(k, n + 1 - k) distributed, k being the rank of its
    bound (Vovk, 2012, https://arxiv.org/abs/1209.2673, prop. 2a).

    Returns:
        The 5 % and the 95 % quantile.
    """
    from scipy.stats import beta

    rank = _rank(n, level)
    a, b = rank, n + 1 - rank
    return float(beta.ppf(0.05, a, b)), float(beta.ppf(0.95, a, b))
