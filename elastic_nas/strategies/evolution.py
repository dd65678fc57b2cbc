"""Multi-objective evolution: NSGA-II with one child a generation.

Non-dominated sorting, crowding distance, constrained domination and the binary tournament are
those of Deb, Pratap, Agarwal and Meyarivan, IEEE Transactions on Evolutionary Computation 6(2),
2002, sections III and VI; replacing one child at a time follows Durillo, Nebro, Luna and Alba,
EMO 2009.
"""

from dataclasses import dataclass, field
from math import inf
from random import Random

from elastic_nas.errors import ConfigError
from elastic_nas.genotype import Dims, Genotype, Score, crossover, mutate, sample

Member = tuple[Genotype, Score]


@dataclass
class Search:
    """Minimises all objectives at once; what it asks depends on what it was told and on `rng`.

    Attributes:
        population_size: Children kept, at least 4; as many random ones come first.
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
        if self.population_size < 4:
            raise ConfigError(f"population_size must be at least 4, got {self.population_size}.")
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


def fronts(members: list[Member]) -> list[list[Member]]:
    """The members in layers: each is dominated only by members of earlier ones."""
    layers: list[list[Member]] = []
    left = members
    while left:
        layer = [m for m in left if not any(dominates(other[1], m[1]) for other in left)]
        left = [m for m in left if any(dominates(other[1], m[1]) for other in left)]
        layers.append(layer)
    return layers


def dominates(one: Score, other: Score) -> bool:
    """Constrained domination: less violation wins; else no objective worse and one better."""
    if one.violation != other.violation:
        return one.violation < other.violation
    pairs = list(zip(one.objectives, other.objectives, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


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
