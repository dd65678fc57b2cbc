"""The search loop: ask, repair, evaluate, remember, tell.

Strategies see neither budgets nor files: here children are repaired into the budgets, equal
children are evaluated once, and every evaluation is on disk before the next begins.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, log
from numbers import Integral
from random import Random
from typing import Any, Protocol

from elastic_nas.budgets import Budgets, Costs, check_feasible, format_duration
from elastic_nas.errors import ConfigError, ElasticNasError, GenotypeError
from elastic_nas.genotype import Dims, Genotype, Score, canonical, check, largest, smallest
from elastic_nas.progress import say, track
from elastic_nas.search.history import History, Row
from elastic_nas.search.repair import Region
from elastic_nas.strict import shown

__all__ = ["Costs", "Evaluation", "Strategy", "check_feasible", "search"]

ASKS = 20
"""How often a strategy is asked again when it names a child that is known already."""

MOST_GENES = 1000
MOST_EVALUATIONS = 10_000_000


class Strategy(Protocol):
    """What proposes children: `elastic_nas/strategies/*.py`.

    A strategy to which many children may be told at once, such as those of a long history, has
    ``tell_all(members)`` besides, which does what one `tell` a pair in that order would.
    """

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
        ConfigError: `evaluations` is not positive, or beyond what a search can do.
        InfeasibleBudget: The smallest child breaks a budget.
        RunFolderError: The history cannot be written.
    """
    if not 1 <= evaluations <= MOST_EVALUATIONS:
        raise ConfigError(
            f"a search needs at least 1 evaluation, and at most {MOST_EVALUATIONS:,}, got "
            f"{shown(evaluations)}."
        )
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


def asked(strategy: Strategy, dims: Dims) -> Genotype:
    """The child that a strategy names, canonical.

    Raises:
        ConfigError: The strategy fails, or names what is no child of the space.
    """
    with _blaming(strategy, "ask"):
        found: Any = strategy.ask()
    if not _is_genotype(found):
        raise ConfigError(
            f"the strategy {_name(strategy)} asked for {shown(found)}, which is no genotype: it "
            f"must be {len(dims)} whole numbers."
        )
    try:
        return canonical(dims, check(dims, tuple(int(gene) for gene in found)))
    except GenotypeError as error:
        raise ConfigError(
            f"the strategy {_name(strategy)} asked for a child that this space lacks: {error}"
        ) from error


def _is_genotype(found: object) -> bool:
    """Whether it is a short list of whole numbers, perhaps numpy's."""
    return (
        isinstance(found, tuple | list)
        and len(found) <= MOST_GENES
        and all(isinstance(gene, Integral) and not isinstance(gene, bool) for gene in found)
    )


def tell(strategy: Strategy, members: list[tuple[Genotype, Score]]) -> None:
    """Tell a strategy what children scored, all at once where it can take them so.

    Raises:
        ConfigError: The strategy fails.
    """
    all_at_once = getattr(strategy, "tell_all", None)
    with _blaming(strategy, "tell"):
        if all_at_once is not None:
            all_at_once(members)
            return
        for genotype, score in members:
            strategy.tell(genotype, score)


@contextmanager
def _blaming(strategy: Strategy, what: str) -> Iterator[None]:
    """Name the strategy where its code fails."""
    try:
        yield
    except ElasticNasError:
        raise
    except Exception as error:  # of somebody's code
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"the strategy {_name(strategy)} fails when its `{what}` is called ({reason:.300})."
        ) from error


def _name(strategy: Strategy) -> str:
    """Where a strategy stands: the file of its code."""
    module = sys.modules.get(type(strategy).__module__)
    return repr(getattr(module, "__file__", None) or type(strategy).__module__)


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
        inside = [
            (row, bound_ms)
            for row, bound_ms, overrun in zip(rows, bounds_ms, overruns, strict=True)
            if overrun == 0
        ]
        self.told += len(inside)
        tell(self.strategy, [(r.genotype, Score((1 - r.accuracy, ms))) for r, ms in inside])
        for row, bound_ms in inside:
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
            child = self._aimed(asked(self.strategy, self.region.dims))
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
