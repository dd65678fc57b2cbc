"""Which children to measure: spread for the fit, uniform for the bound."""

from collections.abc import Callable, Collection
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from elastic_nas.additive import AdditiveCost
from elastic_nas.genotype import Genotype, sample, sample_genes
from elastic_nas.specs import BlockSpec

if TYPE_CHECKING:
    from elastic_nas.network import Network

POOL = 1000
TRIES_PER_CHILD = 100


def fit_children(
    network: "Network", entry_ms: Callable[[BlockSpec], float], n: int, seed: int
) -> list[Genotype]:
    """The smallest child, the largest, and others spread over latency and resolution.

    Args:
        network: Whose children.
        entry_ms: A block's entry in the latency table; strata are quantiles of their sum.
        n: Number of children; a small space may have fewer.
        seed: Of the draw.
    """
    rng = Random(f"fit {seed}")
    ends = list(dict.fromkeys([network.smallest, network.largest]))[:n]
    pool = sorted({sample_genes(network.dims, rng) for _ in range(POOL)} - set(ends))
    if n <= len(ends) or not pool:
        return ends
    sums = AdditiveCost(network, entry_ms)(np.array(pool))
    strata = np.array_split(np.argsort(sums, kind="stable"), n - len(ends))
    resolutions = sorted({network.resolution(genotype) for genotype in pool})
    chosen = []
    for number, stratum in enumerate(strata):
        wanted = resolutions[number % len(resolutions)]
        children = [pool[i] for i in stratum]
        fitting = [child for child in children if network.resolution(child) == wanted]
        if children:
            chosen.append(rng.choice(fitting or children))
    return ends + chosen


def calibration_children(
    network: "Network", n: int, seed: int | str, exclude: Collection[Genotype]
) -> list[Genotype]:
    """Distinct children drawn uniformly from the whole space.

    Args:
        network: Whose children.
        n: Number of children; a small space may have fewer.
        seed: Of the draw.
        exclude: Children that were used for something else.
    """
    rng = Random(f"calibrate {seed}")
    drawn: dict[Genotype, None] = {}
    for _ in range(TRIES_PER_CHILD * n):
        if len(drawn) == n:
            break
        genotype = sample(network.dims, rng)
        if genotype not in exclude:
            drawn[genotype] = None
    return list(drawn)
