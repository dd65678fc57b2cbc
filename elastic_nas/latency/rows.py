"""Rows of a latency table: the figures of one block or one whole child."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from elastic_nas.errors import TableError
from elastic_nas.genotype import Genotype
from elastic_nas.measure import Timing
from elastic_nas.specs import BlockSpec, spec_from_key

MAX_MS = 1e6
MAX_DIMENSION = 1_000_000
MAX_BYTES = 10**12
MAX_CHOICES = 1000
ROLES = ("fit", "calibrate", "verify")


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


BLOCK_KEYS = {"key", *(f.name for f in fields(BlockRow))}
CHILD_KEYS = {f.name for f in fields(ChildRow)}


def block_row(row: Any) -> tuple[BlockSpec, BlockRow]:
    """A block and its figures from their JSON form.

    Raises:
        TableError: A field is missing, unknown, or not a sensible value.
    """
    if not isinstance(row, dict) or row.keys() != BLOCK_KEYS or not isinstance(row["key"], dict):
        raise TableError(f"a block's row has exactly the fields {', '.join(sorted(BLOCK_KEYS))}.")
    spec = spec_from_key(row["key"])
    for value in row["key"].values():
        if type(value) is int and not 0 <= value <= MAX_DIMENSION:
            raise TableError(f"a block's key holds {value}, which cannot be.")
    _check_figures(row)
    memory = row["memory_bytes"]
    if memory is not None and (type(memory) is not int or not 0 < memory < MAX_BYTES):
        raise TableError("memory_bytes must be a whole number of 1 or more, or null.")
    figures = {key: value for key, value in row.items() if key != "key"}
    return spec, BlockRow(**figures)


def child_row(row: Any) -> ChildRow:
    """A child's row from its JSON form.

    Raises:
        TableError: A field is missing, unknown, or not a sensible value.
    """
    if not isinstance(row, dict) or row.keys() != CHILD_KEYS:
        raise TableError(f"a child's row has exactly the fields {', '.join(sorted(CHILD_KEYS))}.")
    genotype, rounds = row["genotype"], row["round_ms"]
    _check_genotype(genotype)
    if not isinstance(rounds, list):
        raise TableError("round_ms must be a list.")
    if type(row["space"]) is not str or row["role"] not in ROLES or type(row["classes"]) is not int:
        raise TableError("space must be a hash, classes a number, role fit, calibrate or verify.")
    for ms in rounds:
        _check_ms(ms)
    _check_figures(row)
    return ChildRow(**{**row, "genotype": tuple(genotype), "round_ms": tuple(rounds)})


def check_record(provenance: dict[str, Any]) -> None:
    """Refuse a provenance whose anchors, spaces, visits or energy are not what they must be.

    Raises:
        TableError: One is something else.
    """
    _check_anchors(provenance["anchors"])
    spaces, visits = provenance.get("spaces", {}), provenance.get("visits", [])
    if not isinstance(spaces, dict) or any(type(name) is not str for name in spaces.values()):
        raise TableError("spaces must name a space for each hash.")
    if not isinstance(visits, list) or not all(map(_is_visit, visits)):
        raise TableError("visits must be records of profiling runs: date, device_s, speed, ...")
    energy = provenance.get("energy", {})
    if not isinstance(energy, dict) or not all(map(_is_energy, energy.values())):
        raise TableError("energy must be a rule and millijoules for each hash.")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < MAX_BYTES  # type: ignore[arg-type]


def _is_visit(visit: Any) -> bool:
    return (
        isinstance(visit, dict)
        and {"date", "device_s", "speed", "stolen_share"} <= visit.keys()
        and type(visit["date"]) is str
        and _is_number(visit["device_s"])
        and isinstance(visit["speed"], list)
        and all(map(_is_number, visit["speed"]))
        and (visit["stolen_share"] is None or _is_number(visit["stolen_share"]))
    )


def _is_energy(energy: Any) -> bool:
    return (
        isinstance(energy, dict)
        and energy.keys() == {"rule", "millijoules"}
        and type(energy["rule"]) is str
        and isinstance(energy["millijoules"], dict)
        and all(mj is None or _is_number(mj) for mj in energy["millijoules"].values())
    )


def _check_anchors(anchors: dict[str, Any]) -> None:
    for rows in anchors.values():
        for row in rows if isinstance(rows, list) else [None]:
            if not isinstance(row, dict) or row.keys() != {"classes", "genotype", "ms"}:
                raise TableError("anchors must be lists of children: classes, genotype, ms.")
            if type(row["classes"]) is not int:
                raise TableError("classes of an anchor must be a whole number.")
            _check_genotype(row["genotype"])
            _check_ms(row["ms"])


def _check_genotype(genotype: object) -> None:
    if not isinstance(genotype, list) or any(
        type(gene) is not int or not 0 <= gene < MAX_CHOICES for gene in genotype
    ):
        raise TableError("a child's genotype must be a list of choice indices.")


def _check_figures(row: dict[str, Any]) -> None:
    _check_ms(row["ms"])
    for key in ("p10", "p90", "contended_p90"):
        if row[key] is not None:
            _check_ms(row[key])
    accept, n, p10, p90 = (row[key] for key in ("accept", "n", "p10", "p90"))
    if n is not None and (type(n) is not int or not 1 <= n < MAX_DIMENSION):
        raise TableError("n must be a whole number of 1 or more, or null.")
    if accept is not None and (type(accept) not in (int, float) or not 0 < accept <= 1):
        raise TableError("accept must be more than 0 and at most 1, or null.")
    if p10 is not None and p90 is not None and p10 > p90:
        raise TableError("p10 is larger than p90.")


def _check_ms(ms: object) -> None:
    if type(ms) not in (int, float) or not 0 < ms < MAX_MS:  # type: ignore[operator]
        raise TableError(f"{str(ms)[:40]} is no latency: ms must lie between 0 and {MAX_MS:g}.")
