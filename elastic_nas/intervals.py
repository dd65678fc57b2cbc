"""Confidence intervals of proportions, in plain Python."""

from math import sqrt

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion, `successes` out of `n`, as two fractions.

    Source: Wilson, 1927; method 3 of Newcombe, Statistics in Medicine 17, 1998.
    """
    share, z2 = successes / n, Z_95**2
    centre = share + z2 / (2 * n)
    half = Z_95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
