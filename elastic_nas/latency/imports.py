"""Latency tables that others measured, as tables of ours: usable for search, promising nothing.

What the figures were taken with is unknown, so such a table is stale on every machine. Where whole
children were measured too, a model is fitted to them; otherwise children are bare sums of blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from elastic_nas._version import __version__
from elastic_nas.errors import ConfigError, GenotypeError, TableError, printable
from elastic_nas.files import sha256_of
from elastic_nas.genotype import parse_genotype
from elastic_nas.latency.devices import Device
from elastic_nas.latency.fitting import fit_model
from elastic_nas.latency.foreign import (
    MAX_ROWS,
    Figure,
    Foreign,
    Part,
    Row,
    cell_count,
    cell_ms,
    checked_ms,
    csv_rows,
    read_blocks,
)
from elastic_nas.latency.foreign_nn_meter import read_kernels
from elastic_nas.latency.foreign_ofa import read_ofa
from elastic_nas.latency.model import FittedModel, raw_model
from elastic_nas.latency.plan import wanted_blocks
from elastic_nas.latency.rows import BlockRow, ChildRow
from elastic_nas.latency.table import LatencyTable
from elastic_nas.specs import BlockSpec

if TYPE_CHECKING:
    from elastic_nas.network import Network

IMPORTED = "imported"
"""What a table says where the file that it came from says nothing."""
YAML = (".yaml", ".yml")
LEAST_TO_FIT = 3
MAX_FILES = 100
"""Of a folder of tables, one for each resolution."""
ROLES = ("fit", "calibrate")


def import_table(
    path: Path,
    network: "Network",
    device: Device,
    *,
    expand: str | None = None,
    children: Path | None = None,
) -> tuple[LatencyTable, str]:
    """A table of figures that others measured.

    Formats: OFA-style YAML (`foreign_ofa`), and CSV, of nn-Meter's kernels (`foreign_nn_meter`) or
    of blocks of ours (`foreign.read_blocks`).

    Args:
        path: The file, or a folder of such files, as of one resolution each.
        network: Whose blocks are looked for.
        device: Whose table it becomes.
        expand: What ``expand`` means in OFA-style keys: ``channels`` or ``ratio``.
        children: A CSV file of whole children of `network`: the columns ``genotype``, ``ms``, and
            perhaps ``n`` and ``role``: ``fit`` (the default) or ``calibrate``, for children drawn
            at random, on which a bound is taken.

    Returns:
        The table, and what was imported and what not, for a person.

    Raises:
        ConfigError: A YAML file cannot be read, or `expand` is needed, not needed or impossible.
        TableError: A file cannot be read, holds no latency, or none of this network's blocks.
        MissingEntries: The table lacks blocks of the children to fit on.
    """
    files = _files(path)
    content = _read(files, expand)
    found = _assemble(content, wanted_blocks(network))
    if not found.blocks:
        raise TableError(
            f"{path} has no figure of any block of {network.space_name}.{_unused_text(found)}"
        )
    table = _empty_table(device, [_origin(file, content.format) for file in files])
    for spec, figure in found.blocks.items():
        table.add_block(spec, _block_row(figure))
    if children is not None:
        table.children = _read_children(children, network)
        table.provenance[IMPORTED].append(_origin(children, "CSV of children"))
    table.models[network.identity] = model_for(network, table)
    return table, _text(table, network, found)


def model_for(network: "Network", table: LatencyTable) -> FittedModel:
    """The network's model, fitted to its children in the table where these are enough.

    Returns:
        With fewer than three children to fit on, the bare sum of blocks.

    Raises:
        MissingEntries: The table lacks blocks of the children to fit on.
    """
    rows = [row for row in table.children if row.space == network.identity]
    enough = sum(row.role == "fit" for row in rows) >= LEAST_TO_FIT
    return fit_model(network, table) if enough else raw_model()


@dataclass(frozen=True)
class _Found:
    """Blocks with their figures, and names of rows that went into none of them."""

    blocks: dict[BlockSpec, Figure]
    rows: int
    unused: list[str]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(f for f in path.iterdir() if f.suffix in (".csv", *YAML))
    if not files:
        raise TableError(f"{path} holds no file ending in .yaml or .csv.")
    if len(files) > MAX_FILES:
        raise TableError(f"{path} holds {len(files)} tables; {MAX_FILES} are read at most.")
    return files


def _read(files: Sequence[Path], expand: str | None) -> Foreign:
    """All files, which must be of one format."""
    of_yaml = [file for file in files if file.suffix in YAML]
    if len(of_yaml) == len(files):
        return read_ofa(files, expand)
    if of_yaml:
        raise TableError(f"{files[0].parent} holds tables of two formats; import each by itself.")
    if expand is not None:
        raise ConfigError(f"{files[0]} is no YAML file, and expand is about OFA-style tables.")
    rows: list[Row] = []
    for file in files:
        rows += csv_rows(file)
        if len(rows) > MAX_ROWS:
            raise TableError(f"{files[0].parent} has more than {MAX_ROWS:,} rows in all.")
    columns = {column for _, row in rows for column in row}
    if {"kind", "ms"} <= columns:
        return read_blocks(rows)
    if {"CIN", "latency"} <= columns:
        return read_kernels(rows)
    raise TableError(
        f"{files[0]} has no rows of a known form. Their columns must be kind, ms and the fields of "
        "the blocks, or nn-Meter's: model_path, HW, CIN, COUT, KERNEL_SIZE, STRIDES, latency."
    )


def _origin(path: Path, form: str) -> str:
    name = printable(path.name, 200).replace("\n", " ")
    return f"imported from {name} ({form}, sha256 {sha256_of(path)})"


def _assemble(content: Foreign, wanted: Sequence[BlockSpec]) -> _Found:
    """Each block that has a figure for each of its parts."""
    parts = {spec: content.parts_of(spec) for spec in wanted}
    blocks = {
        spec: _summed([content.figures[part] for part in mine])
        for spec, mine in parts.items()
        if mine and all(part in content.figures for part in mine)
    }
    used = {part for spec in blocks for part in parts[spec]}
    unused = list(content.unread.elements())
    unused += [_name(part) for part in content.figures if part not in used]
    return _Found(blocks, len(content.figures) + content.unread.total(), unused)


def _name(part: Part) -> str:
    if isinstance(part, BlockSpec):
        return ", ".join(f"{key} {value}" for key, value in part.key.items())
    return " ".join(map(str, part)) if isinstance(part, tuple) else str(part)


def _summed(figures: Sequence[Figure]) -> Figure:
    known = [figure.n for figure in figures if figure.n is not None]
    n = min(known) if len(known) == len(figures) else None
    return Figure(checked_ms(sum(figure.ms for figure in figures), "what makes a block"), n)


def _block_row(figure: Figure) -> BlockRow:
    return BlockRow(figure.ms, None, None, None, figure.n, None)


def _read_children(path: Path, network: "Network") -> list[ChildRow]:
    rows = []
    for place, row in csv_rows(path):
        role, ms = row.get("role", ROLES[0]), cell_ms(row, "ms", place)
        if role not in ROLES:
            raise TableError(f"{place}: the role of a child is {' or '.join(ROLES)}, not {role!r}.")
        try:
            genotype = parse_genotype(network.dims, row.get("genotype", ""))
        except GenotypeError as error:
            raise TableError(f"{place}: {error}") from error
        n = cell_count(row, "n", place) if "n" in row else None
        figures = (ms, None, None, None, n, None)
        rows.append(ChildRow(network.identity, network.classes, genotype, role, *figures, (ms,)))
    if len({row.genotype for row in rows}) < len(rows):
        raise TableError(f"{path}: a child stands there twice.")
    return rows


def _empty_table(device: Device, origins: list[str]) -> LatencyTable:
    unknown = dict.fromkeys(("arch", "cpu", "os"), IMPORTED)
    return LatencyTable(
        device={"name": device.name, **unknown, "cores": 0, "flags": []},
        runtime={
            **dict.fromkeys(("name", "version", "provider", "graph_optimization"), IMPORTED),
            "threads": device.threads,
        },
        precision=device.precision,
        protocol={"warmup": 0, "rounds": 0, "filter": IMPORTED, "statistic": IMPORTED, "seed": 0},
        provenance={
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": "",
            "version": __version__,
            "null_ms": 0.0,
            "anchors": {},
            IMPORTED: origins,
        },
    )


def _text(table: LatencyTable, network: "Network", found: _Found) -> str:
    lacking = table.missing(spec for unit in network.units for spec in unit.specs())
    lines = list(table.provenance[IMPORTED])
    lines.append(
        f"{found.rows - len(found.unused)} of {found.rows} figures make {len(found.blocks)} blocks "
        f"of {network.space_name}.{_unused_text(found)}"
    )
    if lacking:
        lines.append(f"{table.missing_error(lacking, network.space_name)}")
    model = table.models[network.identity]
    if not model.n_fit:
        lines.append(
            f"no model is fitted: {len(table.children)} children, but it takes {LEAST_TO_FIT}; "
            "predictions are bare sums of blocks, often 10 to 20 % off, without a bound."
        )
    return "\n".join(lines)


def _unused_text(found: _Found) -> str:
    if not found.unused:
        return ""
    shown = "; ".join(list(dict.fromkeys(found.unused))[:3])
    return f"\nNot used, as no such block is made of them: {len(found.unused)}, such as {shown}"
