"""Repair: from any child to one within the budgets, in finitely many steps."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from elastic_nas.budgets import Budgets, Costs, violations
from elastic_nas.genotype import Dims, Genotype, canonical, is_active, largest


@dataclass(frozen=True)
class Region:
    """The children within the budgets; the smallest child must be one of them."""

    dims: Dims
    costs: Costs
    budgets: Budgets

    def under(self, latency_ms: float) -> "Region":
        """The same with another latency budget."""
        return replace(self, budgets=replace(self.budgets, latency_ms=latency_ms))

    def violations(self, genotypes: Iterable[Genotype]) -> NDArray[np.float64]:
        """Summed relative overrun of all budgets, one value a child."""
        return violations(self.costs, self.budgets, self._array(genotypes))

    def bounds_ms(self, genotypes: Iterable[Genotype]) -> NDArray[np.float64]:
        """Latency bounds, one value a child."""
        return self.costs.bound_ms(self._array(genotypes)).astype(np.float64)

    def repair(self, genotype: Genotype, rng: Random) -> Genotype:
        """A child at the edge of the region: shrunk until it is inside, then grown."""
        return self.grow(self.shrink(genotype, rng), rng)

    def shrink(self, genotype: Genotype, rng: Random) -> Genotype:
        """The first child inside on a random walk down, one gene and one choice at a time.

        The walk ends at the smallest child, so it is finite.
        """
        path = [genotype]
        while any(path[-1]):
            position = rng.choice([i for i, gene in enumerate(path[-1]) if gene])
            path.append(self._moved(path[-1], position, -1))
        inside = np.flatnonzero(self.violations(path) == 0)
        return path[inside[0]] if len(inside) else path[-1]

    def grow(self, genotype: Genotype, rng: Random) -> Genotype:
        """A child inside that no single gene can enlarge without leaving the region."""
        for _ in range(sum(largest(self.dims))):  # each step adds one to the genes' sum
            larger = self._inside(self._steps(genotype, +1))
            if not larger:
                break
            genotype = rng.choice(larger)
        return genotype

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """The children inside that differ by one gene and one choice."""
        return self._inside([*self._steps(genotype, -1), *self._steps(genotype, +1)])

    def _steps(self, genotype: Genotype, step: int) -> list[Genotype]:
        return [
            self._moved(genotype, i, step)
            for i, (dim, gene) in enumerate(zip(self.dims, genotype, strict=True))
            if 0 <= gene + step < len(dim.choices) and is_active(self.dims, genotype, i)
        ]

    def _moved(self, genotype: Genotype, position: int, step: int) -> Genotype:
        genes = list(genotype)
        genes[position] += step
        return canonical(self.dims, tuple(genes))

    def _inside(self, genotypes: list[Genotype]) -> list[Genotype]:
        fits = self.violations(genotypes) == 0
        return [genotype for genotype, fit in zip(genotypes, fits, strict=True) if fit]

    def _array(self, genotypes: Iterable[Genotype]) -> NDArray[np.int64]:
        return np.array(list(genotypes), dtype=np.int64).reshape(-1, len(self.dims))
