"""The answer to "which is the best child under these budgets?", from a history alone.

Nothing is evaluated and nothing heavy is imported: a new budget costs no more than the costs of
the children that are known.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from elastic_nas.budgets import Budgets, Costs, check_feasible, violations
from elastic_nas.errors import InfeasibleBudget, RunFolderError
from elastic_nas.genotype import Genotype, format_genotype
from elastic_nas.intervals import wilson
from elastic_nas.network import Network

NEAREST = 3
"""How many children the error names when none keeps the budgets."""


class Evaluated(Protocol):
    """A row of the history."""

    @property
    def genotype(self) -> Genotype:
        """Canonical."""

    @property
    def accuracy(self) -> float:
        """Share of right answers on the search-validation split, 0 to 1."""

    @property
    def n(self) -> int:
        """Number of images that this was measured on."""


@dataclass(frozen=True)
class Answer:
    """A child that keeps the budgets.

    Attributes:
        genotype: Canonical.
        settings: The genotype spelled out.
        accuracy: Share of right answers on the search-validation split, 0 to 1.
        n: Number of images that this was measured on.
        interval: 95 % Wilson interval of the accuracy, two fractions.
        predicted_ms: Predicted latency, milliseconds.
        bound_ms: Bound of the latency, milliseconds: what the budget was held against.
        measured_ms: Measured latency, milliseconds, if it was measured.
        params: Number of learned numbers.
        macs: Multiply-accumulates at batch 1.
        size_bytes: Bytes of the file in the device's precision, at most.
        memory_bytes: Bytes of the activations that it needs at one time.
        notes: What weakens the latency figures, e.g. that the table is stale; often empty.
    """

    genotype: Genotype
    settings: dict[str, Any]
    accuracy: float
    n: int
    interval: tuple[float, float]
    predicted_ms: float
    bound_ms: float
    measured_ms: float | None
    params: int
    macs: int
    size_bytes: int
    memory_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def promise(self) -> bool:
        """Whether nothing weakens the latency bound."""
        return not self.notes

    def plain(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "genotype": format_genotype(self.genotype), "promise": self.promise}


def _no_notes(genotype: Genotype) -> tuple[str, ...]:
    return ()


def _not_measured(genotype: Genotype) -> None:
    return None


class Answers(Sequence[Answer]):
    """The children that keep the budgets, the best first; each is described when it is asked for.

    Of a hundred thousand children one is shown: the others cost two numbers each.

    Attributes:
        accuracy: Of each child, (n,); never rises.
        bound_ms: Latency bound of each child, (n,), milliseconds.
    """

    def __init__(
        self,
        rows: Sequence[Evaluated],
        bound_ms: NDArray[np.float64],
        network: Network,
        costs: Costs,
        notes: Callable[[Genotype], tuple[str, ...]] = _no_notes,
        measured_ms: Callable[[Genotype], float | None] = _not_measured,
    ) -> None:
        self._rows, self.bound_ms = rows, bound_ms
        self.accuracy = np.array([row.accuracy for row in rows])
        self._network, self._costs, self._notes, self._measured_ms = (
            network, costs, notes, measured_ms,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Answer]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Answer: ...

    @overload
    def __getitem__(self, index: slice) -> list[Answer]: ...

    def __getitem__(self, index: int | slice) -> Answer | list[Answer]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, costs = self._rows[index], self._costs
        genotypes = np.array([row.genotype], dtype=np.int64)
        return Answer(
            genotype=row.genotype,
            settings=self._network.settings(row.genotype),
            accuracy=row.accuracy,
            n=row.n,
            interval=wilson(row.accuracy * row.n, row.n),
            predicted_ms=float(costs.predicted_ms(genotypes)[0]),
            bound_ms=float(self.bound_ms[index]),
            measured_ms=self._measured_ms(row.genotype),
            params=round(costs.params(genotypes)[0]),
            macs=round(costs.macs(genotypes)[0]),
            size_bytes=round(costs.size_bytes(genotypes)[0]),
            memory_bytes=round(costs.memory_bytes(genotypes)[0]),
            notes=self._notes(row.genotype),
        )


def query(
    rows: Iterable[Evaluated],
    network: Network,
    costs: Costs,
    budgets: Budgets,
    notes: Callable[[Genotype], tuple[str, ...]] = _no_notes,
    measured_ms: Callable[[Genotype], float | None] = _not_measured,
) -> Answers:
    """All evaluated children within all budgets, best accuracy first, then lower bound.

    Latency is held against the bound. The next child on the front is the next answer with a
    lower bound.

    Args:
        rows: Evaluated children, e.g. those of a history.
        network: What the children are children of.
        costs: What children cost on the device.
        budgets: Upper limits.
        notes: What weakens the latency figures of a child; called once an answer.
        measured_ms: What a child was measured at, if it was.

    Raises:
        RunFolderError: There are no rows.
        InfeasibleBudget: No row keeps the budgets: because the smallest child does not, or
            because no such child has been evaluated.
    """
    rows = list(rows)
    if not rows:
        raise RunFolderError("no child has been evaluated yet: run elastic-nas search first.")
    genes = chain.from_iterable(row.genotype for row in rows)
    genotypes = np.fromiter(genes, np.int64).reshape(len(rows), -1)
    overruns = violations(costs, budgets, genotypes)
    inside = np.flatnonzero(overruns == 0)
    if not len(inside):
        check_feasible(network.dims, costs, budgets)
        raise _nothing_near(rows, genotypes, overruns, costs, budgets)
    accuracy = np.array([row.accuracy for row in rows])[inside]
    bound_ms = np.asarray(costs.bound_ms(genotypes[inside]), dtype=np.float64)
    order = np.lexsort((bound_ms, -accuracy))
    chosen = [rows[i] for i in inside[order]]
    return Answers(chosen, bound_ms[order], network, costs, notes, measured_ms)


def _nothing_near(
    rows: Sequence[Evaluated],
    genotypes: NDArray[np.int64],
    overruns: NDArray[np.float64],
    costs: Costs,
    budgets: Budgets,
) -> InfeasibleBudget:
    nearest = np.argsort(overruns, kind="stable")[:NEAREST]
    limits = budgets.limits()
    columns = [costs.of(kind, genotypes[nearest]) for kind, _ in limits]
    lines = []
    for place, i in enumerate(nearest):
        has = ", ".join(
            f"{kind.noun} {kind.show(float(column[place]))}"
            for (kind, _), column in zip(limits, columns, strict=True)
        )
        lines.append(
            f"  {has}, accuracy {rows[i].accuracy:.2%}: {format_genotype(rows[i].genotype)}"
        )
    options = " ".join(
        f"{kind.option} {kind.show(limit).replace(' ', '')}" for kind, limit in limits
    )
    return InfeasibleBudget(
        f"no evaluated child of {len(rows)} keeps {budgets}. The nearest:\n"
        + "\n".join(lines)
        + f"\nSmaller children exist: run elastic-nas search {options} to evaluate some, or raise "
        "the budget."
    )
