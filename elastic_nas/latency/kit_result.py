"""What came back from a device: a kit's result, all of it checked."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elastic_nas.errors import TableError
from elastic_nas.genotype import Genotype
from elastic_nas.kit_figures import RESULT, digest, merged
from elastic_nas.latency.perf_output import content_of, is_output
from elastic_nas.latency.rows import MAX_CHOICES, MAX_DIMENSION, MAX_MS
from elastic_nas.latency.table_parts import MAX_BYTES
from elastic_nas.measure import Protocol, Timing
from elastic_nas.outside import read_json
from elastic_nas.specs import BlockSpec, spec_from_key

Check = Callable[[Any], bool]


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
    try:
        with path.open("rb") as file:
            head = file.read(4096).decode(errors="replace")
    except OSError:
        return False
    return f'"{RESULT}"' in head or is_output(head)


def read_result(path: Path) -> KitResult:
    """The result in a file.

    Raises:
        TableError: It is missing, too large, truncated, edited, or holds what cannot be.
    """
    try:
        return _result(_content(path))
    except TableError as error:
        raise TableError(f"{path} is no usable result of a kit: {str(error)[:500]}") from error


def _content(path: Path) -> dict[str, Any]:
    """The result as a JSON object of the right hash, or made of a benchmark program's output."""
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise TableError(f"it is larger than {MAX_BYTES // 2**20} MB.")
    if is_result(path) and is_output(text := path.read_text(encoding="utf-8", errors="replace")):
        return content_of(text)
    content = read_json(path, TableError)
    if not isinstance(content, dict) or content.get("schema") != RESULT:
        raise TableError(f"its schema is not {RESULT!r}.")
    if content.get("sha256") != digest(content):
        raise TableError("its hash is wrong: it was edited, or not copied whole. Copy it again.")
    return content


def _is_text(value: Any) -> bool:
    return type(value) is str and len(value) <= 500 and (value.isprintable() or not value)


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**15


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15


def _is_ms(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < MAX_MS


def _is_list_of(check: Check) -> Check:
    return lambda value: type(value) is list and len(value) <= 10_000 and all(map(check, value))


STATE: dict[str, Check] = {
    "load": _is_list_of(_is_number),
    "freq_khz": _is_list_of(_is_whole),
    "thermal_c": _is_list_of(_is_number),
    "governor": _is_text,
    "stolen_ticks": _is_whole,
}
MACHINE: dict[str, Check] = {
    "arch": _is_text,
    "cpu": _is_text,
    "flags": _is_list_of(_is_text),
    "cores": _is_whole,
    "os": _is_text,
}
MAYBE: dict[str, Check] = {"memory_mb": _is_whole, "cpu_limit": _is_text, **STATE}
RUNTIME: dict[str, Check] = {
    **dict.fromkeys(("name", "version", "provider", "graph_optimization"), _is_text),
    "threads": _is_whole,
}
NETWORK: dict[str, Check] = {"space": _is_text, "classes": _is_whole, "identity": _is_text}
VISIT: dict[str, Check] = {"date": _is_text, "device_s": _is_number, "seconds": _is_number}


def _part(
    content: Any, name: str, needed: Mapping[str, Check], optional: Mapping[str, Check]
) -> dict[str, Any]:
    """The known fields of a part of the result; unknown ones are left out.

    Raises:
        TableError: One is missing, or is not what it must be.
    """
    part = content.get(name) if isinstance(content, dict) else None
    if not isinstance(part, dict):
        raise TableError(f"its {name} is missing.")
    for key, check in {**needed, **optional}.items():
        if (key in needed or key in part) and not check(part.get(key)):
            raise TableError(f"its {name} has no sound {key!r}: {str(part.get(key))[:40]!r}.")
    return {key: part[key] for key in (*needed, *optional) if key in part}


def _result(content: dict[str, Any]) -> KitResult:
    words = _part({"result": content}, "result", dict.fromkeys(WORDS, _is_text), {})
    groups, visits = content.get("groups"), content.get("visits")
    if type(groups) is not list or type(visits) is not list or not groups:
        raise TableError("its groups or visits are missing.")
    return KitResult(
        plan=words["plan"],
        device=words["device"],
        network=_part(content, "network", NETWORK, {}),
        precision=words["precision"],
        runtime=_part(content, "runtime", RUNTIME, {}),
        environment=_part(content, "environment", MACHINE, MAYBE),
        protocol=_protocol(content),
        rule=words["filter"],
        visits=tuple(_visit({"visit": visit}) for visit in visits),
        groups=tuple(_group(group) for group in groups),
        complete=content.get("complete") is True,
    )


WORDS = ("plan", "device", "precision", "filter")


def _visit(content: dict[str, Any]) -> dict[str, Any]:
    visit = _part(content, "visit", VISIT, {"stolen_share": _is_number})
    for key in ("before", "after"):
        visit[key] = _part(content["visit"], key, {}, STATE)
    return visit


def _protocol(content: dict[str, Any]) -> Protocol:
    checks: dict[str, Check] = dict.fromkeys(asdict(Protocol()), _is_number)
    return Protocol(**_part(content.get("protocol"), "blocks", checks, {}))


def _group(group: Any) -> tuple[Row, ...]:
    rows = group.get("rows") if isinstance(group, dict) else None
    if type(rows) is not list or not rows:
        raise TableError("a group has no rows.")
    return tuple(map(_row, rows))


def _row(row: Any) -> Row:
    """A model's row; its figures are taken from its rounds, by our own limits."""
    what = row.get("is") if isinstance(row, dict) else None
    if not isinstance(what, dict) or not _is_text(row.get("name")):
        raise TableError("a row does not say what it is.")
    rounds = row.get("rounds")
    if not _is_list_of(_is_round)(rounds):
        raise TableError(f"the rounds of {row['name']} hold numbers that cannot be.")
    genotype, role = what.get("genotype", []), what.get("role", "")
    if not _is_list_of(lambda gene: _is_whole(gene) and gene < MAX_CHOICES)(genotype):
        raise TableError(f"the genotype of {row['name']} is no list of choice indices.")
    if role not in ("", "fit", "calibrate", "anchor") or (role == "") != (genotype == []):
        raise TableError(f"the role of {row['name']} is unknown.")
    timing = merged(rounds, Protocol())
    return Row(row["name"], _block(what.get("block")), tuple(genotype), role, timing)


def _block(key: Any) -> BlockSpec | None:
    if not isinstance(key, dict):
        return None
    if any(type(value) is int and not 0 <= value <= MAX_DIMENSION for value in key.values()):
        raise TableError(f"a block's key holds a size that cannot be: {str(key)[:200]}.")
    return spec_from_key(key)


def _is_round(figures: Any) -> bool:
    """Whether a round's figures can be; see `kit_figures.round_of`."""
    if type(figures) is not list or len(figures) != 7 or not all(map(_is_whole, figures[5:])):
        return False
    accepted, tried = figures[5:]
    if not accepted:
        return figures[:4] == [None] * 4 and tried > 0
    sound = accepted <= tried and all(map(_is_ms, figures[:5]))
    return sound and figures[1] <= figures[2] <= figures[3]
