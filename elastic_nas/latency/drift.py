"""Does a table still hold on this machine? Seconds tell: nine anchor children, timed again."""

from statistics import fmean
from typing import TYPE_CHECKING

from elastic_nas.errors import TableError
from elastic_nas.latency.bench import Anchors, Bench, TimedRuntime
from elastic_nas.latency.profile import anchors_for, for_children
from elastic_nas.latency.self_check import check_children
from elastic_nas.latency.speed import Speed
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Protocol

if TYPE_CHECKING:
    from elastic_nas.network import Network

MAX_DRIFT = 0.05
"""How far the speed may have moved for a table to hold."""
MAX_SPREAD = 0.10
"""How far single anchors may lie from the others: beyond, the order of children has changed."""


def anchors_in(table: LatencyTable, network: "Network", seed: int = 0) -> Anchors:
    """The anchors that the table has of this network, with what they took.

    Raises:
        TableError: It has none, or some that the network has not.
    """
    check_children(network, table)
    rows = table.provenance["anchors"].get(network.identity, [])
    if not rows:
        raise TableError(
            f"the latency table of {table.device['name']} has no anchor children of "
            f"{network.space_name}.\nMake some: elastic-nas profile {table.device['name']} "
            f"--space {network.space_name}"
        )
    return anchors_for(network, rows, seed)


def check_drift(
    network: "Network",
    runtime: TimedRuntime,
    table: LatencyTable,
    protocol: Protocol | None = None,
) -> Speed:
    """The machine's speed now, against the table's.

    Raises:
        MeasurementRefused: The machine is too busy.
        TableError: The table has no anchors of this network.
    """
    anchors = anchors_in(table, network)
    whole = for_children(protocol or Protocol(), fmean(anchors.then_ms.values()))
    return Bench(runtime, whole).speed("timing the anchors", anchors)


def verdict(speed: Speed) -> str:
    """Why a table whose anchors tell this speed does not hold any more, or nothing."""
    if abs(speed.factor - 1) > MAX_DRIFT:
        return f"the machine takes {speed.factor:.2f} times as long as when it was measured"
    spread = max(speed.high / speed.factor, speed.factor / speed.low) - 1
    if spread > MAX_SPREAD:
        return (
            f"single children take {speed.low:.2f} to {speed.high:.2f} times as long as when it "
            "was measured, so their order has changed"
        )
    return ""
