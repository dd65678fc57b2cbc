"""Rows of a latency table: the figures of one block or one whole child."""

from dataclasses import dataclass, fields, replace
from math import isclose
from statistics import median
from typing import Any, TypeVar

from elastic_nas.errors import TableError
from elastic_nas.genotype import Genotype
from elastic_nas.latency.table_parts import (
    MAX_CHOICES,
    MAX_MS,
    BlockColumns,
    ChildColumns,
    FigureColumns,
    columns,
)
from elastic_nas.measure import Timing
from elastic_nas.specs import BlockSpec, spec_from_key
from elastic_nas.specs.block import MAX_SIZE as MAX_DIMENSION
from elastic_nas.strict import checked

__all__ = ["MAX_CHOICES", "MAX_DIMENSION", "MAX_MS", "BlockRow", "ChildRow"]

CLOSE = 1e-4
"""Relative: figures are stored with six digits."""
FAR = 5.0
"""How far a figure may lie outside of its samples' quantiles; few samples a round make some do."""


@dataclass(frozen=True, slots=True)
class BlockRow:
    """What a block takes alone; most fields are those of `measure.Timing`, in milliseconds.

    All but `ms` may be None: a table that was imported does not tell them.

    Attributes:
        memory_bytes: Its peak activations, where the runtime counts them.
    """

    ms: float
    p10: float | None
    p90: float | None
    contended_p90: float | None
    n: int | None
    accept: float | None
    memory_bytes: int | None = None

    @staticmethod
    def of(timing: Timing) -> "BlockRow":
        """The row of an accepted timing."""
        return BlockRow(**_figures(timing))


@dataclass(frozen=True, slots=True)
class ChildRow:
    """What a whole child takes; what an imported table does not tell is None.

    Attributes:
        space: `Network.identity`.
        classes: Outputs of the child that was measured.
        genotype: The child.
        role: What it is for: ``fit``, ``calibrate`` or ``verify``.
        round_ms: Medians of the rounds.
    """

    space: str
    classes: int
    genotype: Genotype
    role: str
    ms: float
    p10: float | None
    p90: float | None
    contended_p90: float | None
    n: int | None
    accept: float | None
    round_ms: tuple[float, ...]

    @staticmethod
    def of(space: str, classes: int, genotype: Genotype, role: str, timing: Timing) -> "ChildRow":
        """The row of an accepted timing."""
        rounds = tuple(_short(ms) for ms in timing.round_ms)
        figures = _figures(timing)
        return ChildRow(space, classes, genotype, role, **figures, round_ms=rounds)

    @property
    def timing(self) -> Timing:
        """The timing that the row was made of, as far as it is kept."""
        return Timing(
            ms=self.ms,
            p10=self.p10 or self.ms,
            p50=self.ms,
            p90=self.p90 or self.ms,
            contended_p90=self.contended_p90 or self.ms,
            n=self.n or 0,
            accept=self.accept or 0.0,
            round_ms=list(self.round_ms),
        )


def _figures(timing: Timing) -> dict[str, Any]:
    return {
        "ms": _short(timing.ms),
        "p10": _short(timing.p10),
        "p90": _short(timing.p90),
        "contended_p90": _short(timing.contended_p90),
        "n": timing.n,
        "accept": _short(timing.accept),
    }


Row = TypeVar("Row", BlockRow, ChildRow)


def row_at_speed(row: Row, factor: float) -> Row:
    """The row as it would have been on a machine `factor` times as quick: all ms over `factor`."""
    told = ("ms", "p10", "p90", "contended_p90")
    changed: dict[str, Any] = {
        name: None if getattr(row, name) is None else _short(getattr(row, name) / factor)
        for name in told
    }
    if isinstance(row, ChildRow):
        changed["round_ms"] = tuple(_short(ms / factor) for ms in row.round_ms)
    return replace(row, **changed)


def _short(value: float) -> float:
    """Six significant digits: more than any clock gives."""
    return float(f"{value:.6g}")


def block_rows(rows: list[Any]) -> dict[BlockSpec, BlockRow]:
    """Blocks and their figures from their JSON form.

    Raises:
        TableError: A field is missing, unknown, or not a sensible value; a block stands there
            twice.
    """
    told = columns(rows, {"key": 0, **BlockColumns.model_fields}, "blocks")
    specs = [spec_from_key(key) for key in told.pop("key")]
    found = checked(BlockColumns, told, _blocks_error)
    _check_order(found, "blocks")
    made = [
        BlockRow(*figures)
        for figures in zip(*(getattr(found, f.name) for f in fields(BlockRow)), strict=True)
    ]
    blocks = dict(zip(specs, made, strict=True))
    if len(blocks) < len(rows):
        raise TableError("a block stands there twice.")
    return blocks


def child_rows(rows: list[Any]) -> list[ChildRow]:
    """Children and their figures from their JSON form.

    Raises:
        TableError: A field is missing, unknown, or not a sensible value; a child stands there
            twice.
    """
    told = columns(rows, {f.name: 0 for f in fields(ChildRow)}, "children")
    found = checked(ChildColumns, told, _children_error)
    _check_order(found, "children")
    genotypes, rounds = map(tuple, found.genotype), map(tuple, found.round_ms)
    own = {**dict(found), "genotype": genotypes, "round_ms": rounds}
    made = [
        ChildRow(*figures) for figures in zip(*(own[f.name] for f in fields(ChildRow)), strict=True)
    ]
    for place, row in enumerate(made):
        if row.round_ms and not isclose(median(row.round_ms), row.ms, rel_tol=CLOSE):
            raise TableError(
                f"children.{place}.ms is {row.ms:g}, but the median of its rounds is "
                f"{median(row.round_ms):g}."
            )
    if len({(row.space, row.genotype, row.role) for row in made}) < len(made):
        raise TableError("a child stands there twice.")
    return made


def _blocks_error(text: str) -> TableError:
    return TableError(f"its blocks, column by column: {text}.")


def _children_error(text: str) -> TableError:
    return TableError(f"its children, column by column: {text}.")


def _check_order(found: FigureColumns, what: str) -> None:
    """Refuse quantiles that are out of order, or far from the figure that they belong to."""
    for place, (ms, p10, p90) in enumerate(zip(found.ms, found.p10, found.p90, strict=True)):
        if p10 is None or p90 is None:
            continue
        if p10 > p90:
            raise TableError(f"{what}.{place}: p10 is larger than p90.")
        if not p10 / FAR < ms < p90 * FAR:
            raise TableError(
                f"{what}.{place}: ms is {ms:g}, far from the 10th and 90th percentile of its "
                f"samples, {p10:g} and {p90:g}."
            )
