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
        the others are only ranked once more. Most children of a long history are such.
        """
        if any(len(s.objectives) != 2 or s.violation for _, s in [*self._population, *members]):
            for genotype, score in members:
                self.tell(genotype, score)
            return
        last: list[Member] = []
        passed = 0
        for genotype, score in members:
            if _is_behind(score.objectives, last):
                passed += 1
                continue
            self._rank_again(passed, last)
            self.tell(genotype, score)
            full = len(self._population) == self.population_size
            passed, last = 0, fronts(self._population)[-1] if full else []
        self._rank_again(passed, last)

    def _rank_again(self, times: int, last: list[Member]) -> None:
        """Rank the population so many times, as children that came behind all have left it.

        Only in the last front, which has lost a member before, can that move anything, and only
        once; but where scores are equal, their order may move every time.
        """
        if times and len({score.objectives for _, score in self._population}) == len(
            self._population
        ):
            self._population[-len(last) :] = lonely_first(last)
        elif times:
            self._population = ranked_often(self._population, times)

    def _parent(self) -> Genotype:
        """The better of two; the population is kept in order, so the one that stands first."""
        one, other = self.rng.sample(range(len(self._population)), 2)
        return self._population[min(one, other)][0]


def _is_behind(point: tuple[float, ...], front: list[Member]) -> bool:
    """Whether a member of the front dominates a point of two objectives."""
    return any(
        o[0] <= point[0] and o[1] <= point[1] and o != point
        for o in (score.objectives for _, score in front)
    )


def ranked(members: list[Member]) -> list[Member]:
    """The members front by front, in each front the loneliest first."""
    return [member for front in fronts(members) for member in lonely_first(front)]


def lonely_first(front: list[Member]) -> list[Member]:
    """The members of one front by their crowding distance."""
    distances = crowding([score for _, score in front])
    return [front[i] for i in sorted(range(len(front)), key=lambda i: -distances[i])]


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
    if all(len(score.objectives) == 2 and score.violation == 0 for _, score in members):
        return _fronts_of_two(members)
    dominated = domination([score for _, score in members])
    layers: list[list[Member]] = []
    left = np.arange(len(members))
    while len(left):
        beaten = dominated[np.ix_(left, left)].any(axis=0)
        layers.append([members[i] for i in left[~beaten]])
        left = left[beaten]
    return layers


def _fronts_of_two(members: list[Member]) -> list[list[Member]]:
    """The layers of members that keep all budgets, by two objectives, in one sweep.

    In the order of the first objective, what dominates a member has been met before it, and the
    last of a layer has the least second objective there, so that it alone is asked (Jensen, IEEE
    Transactions on Evolutionary Computation 7(5), 2003).
    """
    points = [score.objectives for _, score in members]
    last: list[tuple[float, ...]] = []
    layer_of = [0] * len(points)
    for i in sorted(range(len(points)), key=points.__getitem__):
        point, layer = points[i], 0
        while layer < len(last) and last[layer][1] <= point[1] and last[layer] != point:
            layer += 1
        last[layer : layer + 1] = [point]
        layer_of[i] = layer
    layers: list[list[Member]] = [[] for _ in last]
    for member, layer in zip(members, layer_of, strict=True):
        layers[layer].append(member)
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
