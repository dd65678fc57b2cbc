"""A search without a network: accuracies and latencies that are made up, but smooth."""

from collections.abc import Callable
from itertools import pairwise
from math import prod
from random import Random

import numpy as np

from elastic_nas.budgets import Costs
from elastic_nas.genotype import Genotype, is_active
from elastic_nas.network import Network
from elastic_nas.search.driver import Evaluation
from elastic_nas.specs import BlockSpec

NETWORK = Network("tiny", classes=10)
DIMS = NETWORK.dims
IMAGES = 500_000
TIES = {"weights": "w", "split": "s", "calibration": "c"}


def summed(value: Callable[[BlockSpec], float]) -> Callable[[np.ndarray], np.ndarray]:
    """The sum of `value` over a child's blocks, for genotypes (n, genes): (n,)."""
    tables = []
    for unit in NETWORK.units:
        specs = map(unit.spec_at, np.ndindex(*unit.sizes))
        values = [0.0 if spec is None else value(spec) for spec in specs]
        assert len(values) == prod(unit.sizes)
        tables.append((list(unit.genes), np.array(values).reshape(unit.sizes)))
    return lambda g: sum(table[tuple(g[:, genes].T)] for genes, table in tables)


def latency_ms(device: str) -> Callable[[BlockSpec], float]:
    """Milliseconds of one block: devices differ in what depthwise convolutions cost."""
    dear = {"one": 4.0, "two": 20.0}[device]
    return lambda s: 1e-7 * (s.costs.macs + dear * s.costs.depthwise_macs) + 0.02


def costs(device: str = "one") -> Costs:
    predicted = summed(latency_ms(device))
    return Costs(
        predicted_ms=predicted,
        bound_ms=lambda g: 1.06 * predicted(g),
        params=summed(lambda s: s.costs.params),
        macs=summed(lambda s: s.costs.macs),
        size_bytes=summed(lambda s: 4 * s.costs.weights),
        memory_bytes=summed(lambda s: s.costs.activation_bytes),
    )


def evaluator(seed: int = 0) -> Callable[[Genotype], Evaluation]:
    """Accuracy saturates in MACs, and some genes are worth more than what they cost."""
    rng = Random(seed)
    worth = [[rng.gauss(0, 0.15) for _ in dim.choices] for dim in DIMS]

    def evaluate(genotype: Genotype) -> Evaluation:
        score = np.log2(NETWORK.macs(genotype) / 1e6) + sum(
            worth[i][gene] for i, gene in enumerate(genotype) if is_active(DIMS, genotype, i)
        )
        noise = Random(str((seed, genotype))).gauss(0, 0.002)
        right = round(IMAGES * np.clip(1 - 0.5 * 0.75**score + noise, 0, 1))
        return Evaluation(right / IMAGES, IMAGES, 0.01)

    return evaluate


def hypervolume(points: list[tuple[float, float]], worst_ms: float) -> float:
    """Area below the step line of (latency ms, accuracy), up to `worst_ms`, in log latency."""
    area, best = 0.0, 0.0
    ends = [*sorted(points), (worst_ms, 0.0)]
    for (ms, accuracy), (next_ms, _) in pairwise(ends):
        best = max(best, accuracy)
        area += best * float(np.log(next_ms / ms))
    return area
