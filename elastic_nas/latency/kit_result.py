"""What came back from a device: a kit's result, all of it checked."""

from collections import Counter
from dataclasses import dataclass
from math import isclose, isnan
from pathlib import Path
from typing import Any

from elastic_nas.errors import TableError
from elastic_nas.genotype import Genotype
from elastic_nas.kit_check import RESULT_SCHEMA
from elastic_nas.kit_figures import digest, merged
from elastic_nas.latency.kit_model import GroupPart, ResultPart, RowPart, What, checked
from elastic_nas.latency.perf_output import content_of, is_output
from elastic_nas.latency.rows import MAX_DIMENSION
from elastic_nas.measure import Protocol, Timing
from elastic_nas.outside import parse_json, read_bytes
from elastic_nas.specs import BlockSpec, spec_from_key

HEAD = 4096
"""Bytes by which a result is known from other files."""


@dataclass(frozen=True)
class Row:
    """One model that was measured.

    Attributes:
        name: In the kit.
        block: What it is, if a block.
        genotype: What it is, if a whole child.
        role: ``fit``, ``calibrate`` or ``anchor``, if a whole child.
        timing: Its figures; look at `refused`.
    """

    name: str
    block: BlockSpec | None
    genotype: Genotype
    role: str
    timing: Timing


@dataclass(frozen=True)
class KitResult:
    """A kit's result; all of it is checked, none of it is trusted.

    Attributes:
        plan: Hash of the kit's plan.
        device: The profile that the kit was made for.
        network: ``space``, ``classes`` and ``identity``.
        precision: Of the models.
        runtime: As in a table.
        environment: Of the device, see `machine.environment`.
        protocol: How figures were taken.
        rule: Which samples counted.
        visits: Each run of the kit: date, seconds, state of the machine.
        groups: What was measured together.
        complete: Whether nothing is left to measure.
    """

    plan: str
    device: str
    network: dict[str, Any]
    precision: str
    runtime: dict[str, Any]
    environment: dict[str, Any]
    protocol: Protocol
    rule: str
    visits: tuple[dict[str, Any], ...]
    groups: tuple[tuple[Row, ...], ...]
    complete: bool


def is_result(path: Path) -> bool:
    """Whether a file looks like a kit's result, or like what its scripts print."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(HEAD).decode(errors="replace")
    except OSError:
        return False
    return f'"{RESULT_SCHEMA}"' in head or is_output(head)


def read_result(path: Path) -> KitResult:
    """The result in a file.

    Raises:
        TableError: It is missing, too large, truncated, edited, or holds what cannot be.
    """
    try:
        return _result(_content(path))
    except TableError as error:
        raise TableError(f"{path} is no usable result of a kit: {str(error)[:500]}") from error


def _content(path: Path) -> Any:
    """The result as a JSON object of the right hash, or made of a benchmark program's output."""
    data = read_bytes(path, error=TableError)
    if is_output(data[:HEAD].decode(errors="replace")):
        return content_of(data.decode(errors="replace"))
    try:
        content = parse_json(data.decode())
    except ValueError as error:
        raise TableError(f"it is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("schema") != RESULT_SCHEMA:
        raise TableError(f"its schema is not {RESULT_SCHEMA!r}.")
    if content.get("sha256") != digest(content):
        raise TableError("its hash is wrong: it was edited, or not copied whole. Copy it again.")
    return content


def _result(content: Any) -> KitResult:
    part = checked(ResultPart, content)
    groups = [checked(GroupPart, group) for group in part.groups]
    rows = [[checked(RowPart, row) for row in group.rows] for group in groups]
    _check_models(rows)
    planned = all(
        len(row.rounds) >= group.rounds
        for group, mine in zip(groups, rows, strict=True)
        for row in mine
    )
    return KitResult(
        plan=part.plan,
        device=part.device,
        network=part.network.model_dump(),
        precision=part.precision,
        runtime=part.runtime.model_dump(),
        environment=part.environment.model_dump(exclude_unset=True),
        protocol=Protocol(**part.protocol.blocks.model_dump()),
        rule=part.filter,
        visits=tuple(visit.model_dump(exclude_unset=True) for visit in part.visits),
        groups=tuple(tuple(map(_row, mine)) for mine in rows),
        complete=part.complete and planned,
    )


def _check_models(groups: list[list[RowPart]]) -> None:
    """Refuse a model that stands there twice, but for anchors: the same in each of the groups."""
    rows = [row for group in groups for row in group]
    anchors = [[(r.name, r.what) for r in group if r.what.role == "anchor"] for group in groups]
    if any(sorted(names, key=_first) != sorted(anchors[0], key=_first) for names in anchors):
        raise TableError("its groups were not measured beside the same anchors.")
    models = [(row.name, row.what) for row in rows if row.what.role != "anchor"]
    names = [name for name, _ in models] + [name for name, _ in anchors[0]]
    meant = [_meaning(name, what) for name, what in models]
    for twice in (Counter(names), Counter(meant), Counter(str(what) for _, what in anchors[0])):
        (first, times), *_ = twice.most_common(1) or [("", 0)]
        if times > 1:
            raise TableError(f"{first[:200]} stands there twice.")


def _first(pair: tuple[str, What]) -> str:
    return pair[0]


def _meaning(name: str, what: What) -> str:
    """What no two models may be; a child that is fitted on is not one to calibrate on."""
    if not what.model_fields_set:
        if name != "null":
            raise TableError(f"the row of {name} does not say what it is.")
        return "the empty model"
    return f"the child {what.genotype}" if what.role else f"the block {what.block}"


def _row(row: RowPart) -> Row:
    """A model's row; its figures are taken from its rounds, by our own limits."""
    timing = merged(row.rounds, Protocol())
    if timing.n >= MAX_DIMENSION:
        raise TableError(f"{row.name} has {timing.n} samples, more than can be.")
    _check_told(row, timing)
    block = spec_from_key(dict(row.what.block)) if row.what.block else None
    return Row(row.name, block, tuple(row.what.genotype), row.what.role, timing)


def _check_told(row: RowPart, timing: Timing) -> None:
    """Refuse a row that tells other figures than those of its rounds."""
    for key in {"ms", "contended_p90", "n"} & row.model_fields_set:
        told, found = getattr(row, key), getattr(timing, key)
        if not (isnan(found) if told is None else isclose(told, found)):
            raise TableError(f"{row.name} tells {key} {told}, but its rounds come to {found:g}.")
