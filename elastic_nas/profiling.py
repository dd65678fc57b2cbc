"""Latency tables of this machine: measure, check; and the kit that does so on another."""

from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_nas.errors import ConfigError, ElasticNasError, TableError
from elastic_nas.files import data_folder, locked, sha256_of, user_folder, write_atomic, writing
from elastic_nas.latency.devices import Device, find_table, load_device
from elastic_nas.latency.table import LatencyTable
from elastic_nas.machine import environment
from elastic_nas.network import Network
from elastic_nas.progress import say
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

    def writing(self, device: Device, wait_s: float = 0.0) -> AbstractContextManager[None]:
        """Keep others from writing the table meanwhile: whoever reads it first reads it within.

        Args:
            device: Whose table.
            wait_s: Seconds to wait for others, where the table lies in no run folder.
        """
        if self.run is not None and self.out is None:
            return locked(self.run.path)
        return writing(self.place(device), wait_s)


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
        RunFolderError: Another process is writing the table.
        TableError: There is a table of another device or machine at the place to write to.
    """
    from elastic_nas.latency.profile import not_continued
    from elastic_nas.latency.profile import profile as measure_all

    device = load_device(device_name)
    network, path, runtime = scope.network, scope.place(device), runtime_of(device)
    with scope.writing(device):
        known = scope.known(device)
        why = not_continued(known, device, runtime, environment()) if known else ""

        def save(table: LatencyTable) -> None:
            nonlocal why
            if why:
                say(f"{path} was {why}; it is kept as {_kept_aside(path)}.")
                why = ""
            table.write(path)

        table = measure_all(network, runtime, device, known, save=save, draw=draw)
        return path, finish(table, network, path)


def check(
    device_name: str,
    *,
    run: RunFolder | None = None,
    space: str | None = None,
    table: Path | None = None,
) -> dict[str, Any]:
    """Time the anchors of the device's table again: does it still hold on this machine?

    Where it does, later predictions from it are told at the speed that was found; where it does
    not, its bounds are no promise until it does.

    Args:
        device_name: A hardware profile's name or path.
        run: A run folder that may hold a table; its space's anchors are timed.
        space: Whose anchors; by default those of all spaces that the table knows by name.
        table: A table to check whatever else exists.

    Returns:
        ``device``, ``table``, ``shipped`` (whether it came with the package), ``holds``, and
        ``spaces``: a list of ``space``, ``factor``, ``low``, ``high``, ``n`` and ``why``, which is
        empty where the table holds.

    Raises:
        MeasurementRefused: The machine is too busy.
        TableError: There is no table, it has no anchors, or it is of another machine or version.
    """
    from elastic_nas.latency.drift import check_drift, verdict
    from elastic_nas.latency.predictor import Predictor
    from elastic_nas.latency.profile import check_here
    from elastic_nas.latency.speed_file import write_speed

    device = load_device(device_name)
    facts = environment()
    check_here(device, facts)
    path = find_table(device, table=table, run=None if run is None else run.path)
    content = LatencyTable.read(path)
    content.check_fits(device)
    runtime = runtime_of(device)
    stale = content.stale(runtime.version, facts)
    if stale:
        raise TableError(
            f"{path} cannot hold here: it was {stale}.\nMeasure this machine: elastic-nas profile "
            f"{device.name} --space SPACE"
        )
    found = []
    for network in _anchored(content, run, space):
        digest = Predictor(network, content).digest
        speed = check_drift(network, runtime, content)
        why = verdict(speed)
        write_speed(device.name, digest, speed, why)
        found.append({"space": network.space_name, **asdict(speed), "why": why})
    holds = not any(row["why"] for row in found)
    shipped = path.parent == data_folder("latency_tables")
    return {
        "device": device.name,
        "table": str(path),
        "shipped": shipped,
        "holds": holds,
        "spaces": found,
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


def _kept_aside(path: Path) -> Path:
    """A copy of a table that is about to be replaced."""
    copy = path.with_name(f"{path.stem}.replaced-{sha256_of(path)[:8]}.json")
    write_atomic(copy, path.read_bytes())
    return copy


def finish(table: LatencyTable, network: Network, path: Path) -> str:
    """Report and picture of the table's model of this network."""
    from elastic_nas.latency.picture import picture_of, plot_profile
    from elastic_nas.latency.report import report

    picture = picture_of(path, network)
    drawn = plot_profile(picture, table, network)
    return report(table, network) + (f"\npicture: {picture}" if drawn else "")


def networks_of(table: LatencyTable) -> dict[str, Network]:
    """The spaces that the table knows by name, as they are here; by identity.

    One in a file is left out, as a table's word is no reason to execute a file; and one that is
    not known here, or is another by now.
    """
    networks = {}
    for identity, name in table.provenance.get("spaces", {}).items():
        if ".py" not in name:
            with suppress(ElasticNasError):
                network = Network(name, 1000)
                if network.identity == identity:
                    networks[identity] = network
    return networks


def _anchored(table: LatencyTable, run: RunFolder | None, space: str | None) -> list[Network]:
    """The asked network; by default all that the table can predict and has anchors of."""
    if run is not None or space is not None:
        return [Scope(run, space).network]
    anchors, networks = table.provenance["anchors"], networks_of(table)
    known = [
        network
        for identity, network in networks.items()
        if anchors.get(identity) and identity in table.models
    ]
    if not known:
        raise TableError(
            f"the latency table of {table.device['name']} names no space whose anchors could be "
            "timed.\nName one: --space SPACE"
        )
    return known
