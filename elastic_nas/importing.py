"""Figures that were measured elsewhere, into a device's latency table."""

from pathlib import Path

from elastic_nas.errors import TableError
from elastic_nas.latency.devices import load_device
from elastic_nas.latency.imports import import_table, model_for
from elastic_nas.latency.kit_result import is_result, read_result
from elastic_nas.latency.kit_table import table_from
from elastic_nas.latency.merge import merge
from elastic_nas.latency.self_check import check_model
from elastic_nas.latency.table import LatencyTable
from elastic_nas.network import Network
from elastic_nas.profiling import Scope, finish, networks_of

WAIT_S = 10.0
"""How long an import waits for another process that writes the same table."""


def import_file(
    source: Path,
    device_name: str,
    scope: Scope,
    *,
    expand: str | None = None,
    children: Path | None = None,
) -> tuple[Path, str]:
    """Take figures that were measured elsewhere into the device's table.

    What the file is shows in itself: a kit's result, another table of the same device, or a table
    of another project (see `latency.imports`).

    Args:
        source: The file.
        device_name: A hardware profile's name or path.
        scope: What it shall predict, and where to keep it.
        expand: What ``expand`` means in an OFA-style table: ``channels`` or ``ratio``.
        children: A CSV file of whole children to fit on.

    Returns:
        The table's path, and the report for a person.

    Raises:
        TableError: The file cannot be trusted, or is of another device or space.
    """
    device = load_device(device_name)
    network, path = scope.network, scope.place(device)
    notes: list[str] = []
    if is_result(source):
        table = table_from(read_result(source), network, device)
    elif source.suffix == ".json":
        table = LatencyTable.read(source)
        table.check_fits(device)
        _check_models(table, network)
    else:
        table, text = import_table(source, network, device, expand=expand, children=children)
        notes = [text]
    with scope.writing(device, WAIT_S):
        known = scope.known(device)
        if known is not None:
            _check_models(known, network)
            table, more = _merged(known, table, network, path)
            notes = [*notes, *more]
        if network.identity not in table.models:
            raise TableError(
                f"{source} holds no model of {network.space_name}, but of "
                f"{', '.join(_names(table)) or 'no space'}.\nName one of these with --space; or "
                f"measure it: elastic-nas profile {device.name} --space {network.space_name}"
            )
        _check_models(table, network)
        table.write(path)
        return path, "\n".join([*notes, finish(table, network, path)])


def _check_models(table: LatencyTable, network: Network) -> None:
    """Hold the table against itself, for every space of it that is known here.

    Raises:
        TableError: It contradicts itself.
    """
    for identity, known in {network.identity: network, **networks_of(table)}.items():
        if identity in table.models:
            check_model(known, table, fully=True)


def _merged(
    known: LatencyTable, table: LatencyTable, network: Network, path: Path
) -> tuple[LatencyTable, list[str]]:
    """Both tables in one, with a model of each space, and what a person must know.

    A model is fitted again where children or blocks came to it. Of a space that is not known here
    this cannot be done: of its children none are added.

    Raises:
        TableError: They cannot stand beside each other; the message says where else to write.
    """
    try:
        both, notes = merge(known, table)
    except TableError as error:
        raise TableError(
            f"{path} is there already: {error}\nName another place with --out FILE, or move that "
            "table away."
        ) from error
    networks = {network.identity: network, **networks_of(both)}
    own = set(known.children)
    both.children = [
        row
        for row in both.children
        if row in own or row.space in networks or row.space not in known.models
    ]
    for identity in {**table.models, **known.models}:
        if identity in networks:
            both.models[identity] = model_for(networks[identity], both)
        elif identity not in both.models:
            name = table.provenance.get("spaces", {}).get(identity, identity)
            notes.append(f"no model of {name} is made; import the file again with --space {name}")
    return both, [f"note: {note}." for note in notes]


def _names(table: LatencyTable) -> list[str]:
    """The spaces of which the table has a model."""
    names = table.provenance.get("spaces", {})
    return [names.get(identity, identity) for identity in table.models]
