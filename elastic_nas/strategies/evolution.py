"""Multi-objective evolution: NSGA-II with one child a generation.

Non-dominated sorting, crowding distance, constrained domination and the binary tournament are
those of Deb, Pratap, Agarwal and Meyarivan, IEEE Transactions on Evolutionary Computation 6(2),
2002, sections III and VI; replacing one child at a time follows Durillo, Nebro, Luna and Alba,
EMO 2009.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import ConfigError
from elastic_nas.genotype import Dims, Genotype, Score, crossover, mutate, sample

Member = tuple[Genotype, Score]

BLOCK = 32
"""Children that are held against the last front at first; then twice as many, and so on."""
MOST_POPULATION = 1_000


@dataclass
class Search:
    """Minimises all objectives at once; what it asks depends on what it was told and on `rng`.

    Attributes:
        population_size: Children kept, 4 to 1,000; as many random ones come first.
        mutation_rate: Chance of each gene to be redrawn, 0 to 1; at least one gene changes.
        crossover_rate: Chance that a child has two parents, 0 to 1.

    Raises:
        ConfigError: An option is out of range.
    """

    dims: Dims
    rng: Random
    population_size: int = 24
    mutation_rate: float = 0.05
    crossover_rate: float = 0.5
    _population: list[Member] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 4 <= self.population_size <= MOST_POPULATION:
            raise ConfigError(
                f"population_size must be 4 to {MOST_POPULATION:,}, got {self.population_size}."
            )
        for name in ("mutation_rate", "crossover_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be 0 to 1, got {getattr(self, name)}.")

    def ask(self) -> Genotype:
        """The next child to evaluate."""
        if len(self._population) < self.population_size:
            return sample(self.dims, self.rng)
        child = self._parent()
        if self.rng.random() < self.crossover_rate:
            child = crossover(self.dims, child, self._parent(), self.rng)
        return mutate(self.dims, child, self.rng, self.mutation_rate)

    def tell(self, genotype: Genotype, score: Score) -> None:
        """What that child scored: the population, best first, loses its last if it is full."""
        self._population = ranked([*self._population, (genotype, score)])[: self.population_size]

    def tell_all(self, members: Sequence[Member]) -> None:
        """What many children scored: as one `tell` each, in this order, but fast.

        A child that a member of the last front dominates comes behind all others and goes at once;
        the others are only ranked once more. Nearly all children of a long history are such.
        """
        scores = np.array([score.objectives for _, score in members])
        feasible = all(score.violation == 0 for _, score in members)
        at = 0
        while at < len(members):
            if feasible and len(self._population) == self.population_size:
                first, at = at, self._next_to_tell(scores, at)
                self._population = ranked_often(self._population, at - first)
            if at < len(members):
                self.tell(*members[at])
            at += 1

    def _next_to_tell(self, scores: NDArray[np.float64], first: int) -> int:
        """The next child from `first` on that might change the population."""
        last = np.array([score.objectives for _, score in fronts(self._population)[-1]])
        start, size = first, BLOCK
        while start < len(scores):
            block = scores[start : start + size, None]
            better = (last <= block).all(axis=2) & (last < block).any(axis=2)
            dominated: NDArray[np.bool_] = np.any(better, axis=1)
            if not dominated.all():
                return start + int(np.argmin(dominated))
            start, size = start + size, 2 * size
        return len(scores)

    def _parent(self) -> Genotype:
        """The better of two; the population is kept in order, so the one that stands first."""
        one, other = self.rng.sample(range(len(self._population)), 2)
        return self._population[min(one, other)][0]


def ranked(members: list[Member]) -> list[Member]:
    """The members front by front, in each front the loneliest first."""
    order: list[Member] = []
    for front in fronts(members):
        distances = crowding([score for _, score in front])
        lonely = sorted(range(len(front)), key=lambda i: -distances[i])
        order += [front[i] for i in lonely]
    return order


def ranked_often(members: list[Member], times: int) -> list[Member]:
    """The members ranked so many times in a row, which may move children of equal scores.

    The orders soon repeat, so that thousands of times cost a few.
    """
    orders = [members]
    seen = {tuple(map(id, members)): 0}
    while len(orders) <= times:
        following = ranked(orders[-1])
        first = seen.setdefault(tuple(map(id, following)), len(orders))
        if first < len(orders):
            return orders[first + (times - first) % (len(orders) - first)]
        orders.append(following)
    return orders[times]


def fronts(members: list[Member]) -> list[list[Member]]:
    """The members in layers: each is dominated only by members of earlier ones."""
    dominated = domination([score for _, score in members])
    layers: list[list[Member]] = []
    left = np.arange(len(members))
    while len(left):
        beaten = dominated[np.ix_(left, left)].any(axis=0)
        layers.append([members[i] for i in left[~beaten]])
        left = left[beaten]
    return layers


def domination(scores: Sequence[Score]) -> NDArray[np.bool_]:
    """Which score dominates which, (n, n): whether that of the row dominates that of the column.

    Constrained domination: less violation wins; else no objective worse and one better.
    """
    objectives = np.array([score.objectives for score in scores])
    violation = np.array([score.violation for score in scores])
    one, other = objectives[:, None], objectives[None]
    better = (one <= other).all(axis=2) & (one < other).any(axis=2)
    less, equal = violation[:, None] < violation, violation[:, None] == violation
    found: NDArray[np.bool_] = less | (equal & better)
    return found


def crowding(scores: list[Score]) -> list[float]:
    """Crowding distance of each score in one front; the ends of each objective are infinite."""
    distances = [0.0] * len(scores)
    for values in zip(*(score.objectives for score in scores), strict=True):
        order = sorted(range(len(values)), key=values.__getitem__)
        span = values[order[-1]] - values[order[0]]
        distances[order[0]] = distances[order[-1]] = inf
        for before, this, after in zip(order, order[1:], order[2:], strict=False):
            distances[this] += (values[after] - values[before]) / span if span else 0.0
    return distances
