"""Latency tables from start to end: measure, check, import, and the kit for other machines."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_nas.errors import ConfigError, TableError
from elastic_nas.files import locked, sha256_of, user_folder
from elastic_nas.latency.devices import Device, find_table, load_device
from elastic_nas.latency.table import LatencyTable
from elastic_nas.network import Network
from elastic_nas.runs import RunFolder
from elastic_nas.targets import runtime_of

if TYPE_CHECKING:
    from elastic_nas.latency.plan import Draw


@dataclass(frozen=True)
class Scope:
    """What shall be predicted, and where its table is kept.

    For a space of one child this is the whole space: no bound could be stated from one child.

    Attributes:
        run: Take space and classes from this run, and keep the table in it.
        space: Else, the space.
        classes: Outputs of the measured children; by default the run's, or 1000.
        out: Where to write the table; by default the run folder or the per-user folder.
    """

    run: RunFolder | None = None
    space: str | None = None
    classes: int | None = None
    out: Path | None = None

    @property
    def network(self) -> Network:
        """The network.

        Raises:
            ConfigError: Both run and space are given, or neither is.
        """
        if (self.run is None) == (self.space is None):
            raise ConfigError("profile needs --space NAME or --run DIR to know what to measure.")
        own = None if self.run is None else self.run.network
        classes = (1000 if own is None else own.classes) if self.classes is None else self.classes
        return Network(str(self.space) if own is None else own.space_name, classes).whole

    def place(self, device: Device) -> Path:
        """The table's file."""
        users = user_folder() / "latency_tables" / f"{device.name}.json"
        return self.out or (users if self.run is None else self.run.table(device.name))

    def known(self, device: Device) -> LatencyTable | None:
        """The table that is there already.

        Raises:
            TableError: It is of another device, or cannot be trusted.
        """
        path = self.place(device)
        table = LatencyTable.read(path) if path.exists() else None
        if table is not None:
            table.check_fits(device)
        return table

    def locked(self) -> AbstractContextManager[None]:
        """Keep others out of the run folder meanwhile."""
        return nullcontext() if self.run is None else locked(self.run.path)


def profile(device_name: str, scope: Scope, draw: "Draw | None" = None) -> tuple[Path, str]:
    """Measure this machine for all children of a space; what a table has already is kept.

    A picture, predicted against measured, is left beside the table.

    Args:
        device_name: A hardware profile's name or path.
        scope: What to measure, and where to keep it.
        draw: How many children to measure, and which.

    Returns:
        The table's path, and the report for a person.

    Raises:
        MeasurementRefused: The machine is too busy.
        TableError: There is a table of another device or machine at the place to write to.
    """
    from elastic_nas.latency.profile import profile as measure_all

    device = load_device(device_name)
    network, path = scope.network, scope.place(device)
    with scope.locked():
        table = measure_all(
            network,
            runtime_of(device),
            device,
            scope.known(device),
            save=lambda table: table.write(path),
            draw=draw,
        )
        return path, _finish(table, network, path)


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
    from elastic_nas.latency.imports import import_table, model_for
    from elastic_nas.latency.kit_result import is_result, read_result
    from elastic_nas.latency.kit_table import table_from

    device = load_device(device_name)
    network, path = scope.network, scope.place(device)
    notes = ""
    if is_result(source):
        table = table_from(read_result(source), network, device)
    elif source.suffix == ".json":
        table = LatencyTable.read(source)
        table.check_fits(device)
    else:
        table, notes = import_table(source, network, device, expand=expand, children=children)
    with scope.locked():
        known = scope.known(device)
        if known is not None:
            table = _merged(known, table, path)
            table.models[network.identity] = model_for(network, table)
        table.write(path)
        report = _finish(table, network, path)
    return path, f"{notes}\n{report}" if notes else report


def check(
    device_name: str,
    *,
    run: RunFolder | None = None,
    space: str | None = None,
    table: Path | None = None,
) -> dict[str, Any]:
    """Time the anchors of the device's table again: does it still hold on this machine?

    Where it does, later predictions from it are told at the speed that was found.

    Args:
        device_name: A hardware profile's name or path.
        run: A run folder that may hold a table.
        space: Whose anchors; by default those of any space that the table knows by name.
        table: A table to check whatever else exists.

    Returns:
        ``device``, ``table``, ``space``, ``factor``, ``low``, ``high``, ``n``, ``holds`` and
        ``why`` (empty where it holds).

    Raises:
        MeasurementRefused: The machine is too busy.
        TableError: There is no table, or it has no anchors.
    """
    from elastic_nas.latency.drift import check_drift, verdict
    from elastic_nas.latency.profile import check_here
    from elastic_nas.latency.speed_file import forget_speed, write_speed
    from elastic_nas.machine import environment

    device = load_device(device_name)
    facts = environment()
    check_here(device, facts)
    path = find_table(device, table=table, run=None if run is None else run.path)
    content = LatencyTable.read(path)
    content.check_fits(device)
    runtime = runtime_of(device)
    network = _anchored(content, run, space)
    speed = check_drift(network, runtime, content)
    why = content.stale(runtime.version, facts) or verdict(speed)
    digest = sha256_of(path)
    if why:
        forget_speed(device.name, digest)
    else:
        write_speed(device.name, digest, speed)
    return {
        "device": device.name,
        "table": str(path),
        "space": network.space_name,
        "factor": speed.factor,
        "low": speed.low,
        "high": speed.high,
        "n": speed.n,
        "holds": not why,
        "why": why,
    }


def make_kit(
    device_name: str, space: str, out: Path, *, classes: int | None = None
) -> dict[str, Any]:
    """Write a zip that measures a device on which this package is not installed.

    Raises:
        ConfigError: The device's runtime cannot be carried in a kit.
    """
    from elastic_nas.latency.kit import write_kit
    from elastic_nas.latency.plan import Draw

    device = load_device(device_name)
    network = Scope(space=space, classes=classes).network
    facts: dict[str, Any] = write_kit(network, device, runtime_of(device), out, Draw())
    return facts


def _merged(known: LatencyTable, table: LatencyTable, path: Path) -> LatencyTable:
    """Both tables in one.

    Raises:
        TableError: They cannot stand beside each other; the message says where else to write.
    """
    try:
        return known.merge(table)
    except TableError as error:
        raise TableError(
            f"{path} is there already: {error}\nName another place with --out FILE, or move that "
            "table away."
        ) from error


def _finish(table: LatencyTable, network: Network, path: Path) -> str:
    """Report and picture of the table's model of this network."""
    from elastic_nas.latency.picture import picture_of, plot_profile
    from elastic_nas.latency.report import report

    picture = picture_of(path, network)
    drawn = plot_profile(picture, table, network)
    return report(table, network) + (f"\npicture: {picture}" if drawn else "")


def _anchored(table: LatencyTable, run: RunFolder | None, space: str | None) -> Network:
    """A network whose anchors the table has."""
    if run is not None or space is not None:
        return Scope(run, space).network
    for identity, name in table.provenance.get("spaces", {}).items():
        if ".py" not in name:  # a table's word is no reason to execute a file
            network = Network(name, 1000)
            if network.identity == identity and table.provenance["anchors"].get(identity):
                return network
    raise TableError(
        f"the latency table of {table.device['name']} names no space whose anchors could be timed."
        "\nName one: --space SPACE"
    )
