"""What a profile is worth, in a few lines for people."""

from statistics import fmean
from typing import TYPE_CHECKING

from elastic_nas.errors import TableError
from elastic_nas.latency.bound import LEVEL, coverage_range, least_children
from elastic_nas.latency.model import FittedModel
from elastic_nas.latency.table import LatencyTable

if TYPE_CHECKING:
    from elastic_nas.network import Network


def report(table: LatencyTable, network: "Network") -> str:
    """What the table covers of this network, and what its model of it is worth.

    Raises:
        TableError: The table has no model of this network.
    """
    if network.identity not in table.models:
        raise TableError(
            f"the latency table of {table.device['name']} has no fitted model of "
            f"{network.space_name}.\nMake one: elastic-nas profile {table.device['name']} --space "
            f"{network.space_name}"
        )
    model = table.models[network.identity]
    children = [row for row in table.children if row.space == network.identity]
    told = [r.accept for r in table.blocks.values()] + [r.accept for r in children]
    accepts = [share for share in told if share is not None]
    undisturbed = f"{fmean(accepts):.0%}" if accepts else "an unknown share"
    runtime = table.runtime
    wanted = dict.fromkeys(spec for unit in network.units for spec in unit.specs())
    covered = len(wanted) - len(table.missing(wanted))
    lines = [
        f"{table.device['name']}: {runtime['name']} {runtime['version']}, {table.precision}, "
        f"{runtime['threads']} thread(s), on {table.device['cpu']}",
        f"{network.space_name}: {covered} of {len(wanted)} blocks covered; {len(children)} "
        f"children ({model.n_fit} to fit, {model.n_calibrate} to calibrate)",
        f"{undisturbed} of samples undisturbed; "
        f"{table.provenance.get('device_s', 0):.0f} s of timing{_speed_text(table)}",
        f"model: {model.kind}; call overhead {table.provenance['null_ms'] * 1e3:.1f} us",
        *_quality_lines(model),
        bound_text(model),
        *(f"imported from {origin}" for origin in table.provenance.get("imported", [])),
        *_energy_lines(table, network.identity),
    ]
    return "\n".join(lines)


def _speed_text(table: LatencyTable) -> str:
    """How much the machine's speed moved while the table was measured, and what was stolen."""
    visits = table.provenance.get("visits", [])
    factors = [factor for visit in visits for factor in visit["speed"]]
    stolen = [visit["stolen_share"] for visit in visits if visit["stolen_share"] is not None]
    text = (
        f"; speed moved between {min(factors):.3f} and {max(factors):.3f}"
        if len(set(factors)) > 1
        else ""
    )
    return text + (f"; {max(stolen):.1%} stolen by the hypervisor" if stolen else "")


def _quality_lines(model: FittedModel) -> list[str]:
    if model.mape is None:
        return []
    floor = "unknown" if model.noise_floor is None else f"{model.noise_floor:.1%}"
    return [
        f"error on {model.n_calibrate} children it was not fitted on: {model.mape:.1%} on average "
        f"(measurement noise {floor}); {model.within_5:.0%} within 5 %, "
        f"{model.within_10:.0%} within 10 %; Kendall's tau {model.kendall_tau:.3f}"
    ]


def _energy_lines(table: LatencyTable, identity: str) -> list[str]:
    """What the anchors took, where the platform counts energy."""
    energy = table.provenance.get("energy", {}).get(identity)
    known = [mj for mj in energy["millijoules"].values() if mj is not None] if energy else []
    if not energy or not known:
        return []
    return [
        f"energy: {min(known):.3g} to {max(known):.3g} mJ a run of {len(known)} children "
        f"({energy['rule']})"
    ]


def bound_text(model: FittedModel) -> str:
    """The bound, and what its number of children gives."""
    factor, n = model.bound_factor(), model.n_calibrate
    if factor is None:
        return (
            f"no bound: {n} calibration children; a bound of {LEVEL:.0%} takes "
            f"{least_children(LEVEL)} or more"
        )
    low, high = coverage_range(n)
    return (
        f"{LEVEL:.0%} bound: prediction times {factor:.3f} (margin {factor - 1:.1%}); from {n} "
        f"children, 9 of 10 such profiles cover {low:.0%} to {high:.0%} of random children"
    )
