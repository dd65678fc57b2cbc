"""The search loop: ask, repair, evaluate, remember, tell.

Strategies see neither budgets nor files: here children are repaired into the budgets, equal
children are evaluated once, and every evaluation is on disk before the next begins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from random import Random
from typing import Protocol

from elastic_nas.budgets import Budgets, Costs, check_feasible, format_duration
from elastic_nas.errors import ConfigError
from elastic_nas.genotype import Dims, Genotype, Score, largest, smallest
from elastic_nas.progress import say, track
from elastic_nas.search.history import History, Row
from elastic_nas.search.repair import Region

__all__ = ["Costs", "Evaluation", "Strategy", "check_feasible", "search"]

ASKS = 20
"""How often a strategy is asked again when it names a child that is known already."""


class Strategy(Protocol):
    """What proposes children: `elastic_nas/strategies/*.py`."""

    rng: Random

    def ask(self) -> Genotype:
        """The next child to evaluate."""

    def tell(self, genotype: Genotype, score: Score) -> None:
        """What a child scored."""


@dataclass(frozen=True)
class Evaluation:
    """What evaluating a child gave.

    Attributes:
        accuracy: Share of right answers on the search-validation split, 0 to 1.
        n: Number of images that this was measured on.
        seconds: What it took.
    """

    accuracy: float
    n: int
    seconds: float


def search(
    dims: Dims,
    strategy: Strategy,
    evaluate: Callable[[Genotype], Evaluation],
    costs: Costs,
    budgets: Budgets,
    history: History,
    evaluations: int,
    rng: Random,
) -> None:
    """Evaluate children within the budgets until the history holds `evaluations` of them.

    Rows that are in the history count, whoever made them and on whatever device, if they keep
    these budgets on these costs. Both generators are seeded anew from `rng` and the number of
    known children before each child, so that an interrupted search goes on exactly as if it had
    not been interrupted. The smallest child and one of the largest within the budgets come
    first. The search ends early when all children within the budgets are known.

    Raises:
        ConfigError: `evaluations` is not positive.
        InfeasibleBudget: The smallest child breaks a budget.
        RunFolderError: The history cannot be written.
    """
    if evaluations < 1:
        raise ConfigError(f"a search needs at least 1 evaluation, got {evaluations}.")
    check_feasible(dims, costs, budgets)
    loop = _Loop(Region(dims, costs, budgets), strategy, history, rng)
    with track("search", evaluations, min(loop.told, evaluations)) as tracker:
        while loop.told < evaluations:
            child = loop.next_child()
            if child is None:
                say(f"search: all {loop.told} children within the budgets ({budgets}) are known.")
                return
            result = evaluate(child)
            row = Row(child, result.accuracy, result.n, result.seconds)
            history.add(row)
            loop.tell([row])
            tracker.advance(note=loop.best)


class _Loop:
    """What the loop knows between two evaluations."""

    def __init__(self, region: Region, strategy: Strategy, history: History, rng: Random) -> None:
        self.region, self.strategy, self.history, self.rng = region, strategy, history, rng
        self.seed = rng.getrandbits(64)
        self.anchors = (smallest(region.dims), region.repair(largest(region.dims), Random(0)))
        self.range_ms = region.bounds_ms(self.anchors).tolist()
        self.told, self.best, self._best_accuracy = 0, "", -1.0
        self.tell(list(history))

    def tell(self, rows: list[Row]) -> None:
        """Tell the strategy those of the rows that keep the budgets."""
        genotypes = [row.genotype for row in rows]
        bounds_ms = self.region.bounds_ms(genotypes).tolist()
        overruns = self.region.violations(genotypes).tolist()
        for row, bound_ms, overrun in zip(rows, bounds_ms, overruns, strict=True):
            if overrun == 0:
                self.strategy.tell(row.genotype, Score((1 - row.accuracy, bound_ms), overrun))
                self.told += 1
                if row.accuracy > self._best_accuracy:
                    self._best_accuracy = row.accuracy
                    self.best = f"best {row.accuracy:.2%} within {format_duration(bound_ms)}"

    def next_child(self) -> Genotype | None:
        """A child within the budgets that is not known yet, or None."""
        self.rng.seed(f"{self.seed}/{self.told}/driver")
        self.strategy.rng.seed(f"{self.seed}/{self.told}/strategy")
        for anchor in self.anchors:
            if anchor not in self.history:
                return anchor
        for _ in range(ASKS):
            child = self._aimed(self.strategy.ask())
            if child not in self.history:
                return child
        return self._neighbour()

    def _aimed(self, genotype: Genotype) -> Genotype:
        """The genotype, shrunk into the budgets and to a latency at which children are wanted.

        Under a latency budget that is the budget itself. Without one it is drawn log-uniformly
        between the smallest and the largest child: queries come at any latency, and random
        children crowd the middle.
        """
        if self.region.budgets.latency_ms is not None:
            return self.region.shrink(genotype, self.rng)
        low, high = (log(bound_ms) for bound_ms in self.range_ms)
        return self.region.under(exp(self.rng.uniform(low, high))).shrink(genotype, self.rng)

    def _neighbour(self) -> Genotype | None:
        """An unknown child next to a known one; None where there is none.

        Costs rise with every gene, so single steps lead from the smallest child to every child
        within the budgets: none left means that all are known.
        """
        known = [row.genotype for row in self.history]
        for genotype in self.rng.sample(known, len(known)):
            fresh = [g for g in self.region.neighbours(genotype) if g not in self.history]
            if fresh:
                return self.rng.choice(fresh)
        return None
