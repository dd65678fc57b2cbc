"""What a profile is worth: a report of its model, and a check on fresh children."""

from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from elastic_nas.latency.bench import Bench, TimedRuntime
from elastic_nas.latency.model import quality
from elastic_nas.latency.plan import calibration_children
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.profile import child_job
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Protocol, noise_floor

if TYPE_CHECKING:
    from elastic_nas.network import Network


def report(table: LatencyTable, network: "Network") -> str:
    """What the table's model of this network is worth, in a few lines for people.

    Raises:
        KeyError: The table has no model of this network.
    """
    model = table.models[network.identity]
    children = [row for row in table.children if row.space == network.identity]
    accepts = [r.accept for r in table.blocks.values()] + [r.accept for r in children]
    lines = [
        f"{table.device['name']}: {len(table.blocks)} blocks, {len(children)} children "
        f"({model.n_fit} to fit, {model.n_calibrate} to calibrate), "
        f"{fmean(accepts):.0%} of samples undisturbed, "
        f"{table.provenance.get('device_s', 0):.0f} s of timing",
        f"model: {model.kind}; call overhead {table.provenance['null_ms'] * 1e3:.1f} us",
    ]
    if model.mape is not None:
        floor = "unknown" if model.noise_floor is None else f"{model.noise_floor:.1%}"
        lines.append(
            f"error on children it was not fitted on: {model.mape:.1%} on average "
            f"(measurement noise {floor}); {model.within_5:.0%} within 5 %, "
            f"{model.within_10:.0%} within 10 %; rank correlation {model.kendall_tau:.3f}"
        )
    if model.q95 is None:
        lines.append("no bound: it takes 19 calibration children or more")
    else:
        lines.append(f"95 % bound: prediction times {model.q95:.3f}")
    return "\n".join(lines)


def verify_children(
    network: "Network",
    runtime: TimedRuntime,
    table: LatencyTable,
    n: int = 40,
    seed: int = 1,
    protocol: Protocol | None = None,
) -> dict[str, Any]:
    """Measure fresh children, drawn uniformly, and compare with their predictions.

    Args:
        network: Whose children.
        runtime: What runs them.
        table: With a fitted model of the network.
        n: Number of children.
        seed: Of the draw.
        protocol: How figures are taken.

    Returns:
        ``n``, ``mape``, ``within_5``, ``within_10``, ``kendall_tau``, ``noise_floor``,
        ``met_bound`` (share; None without a bound), ``accept``, and the arrays ``predicted_ms``,
        ``measured_ms``.

    Raises:
        MeasurementRefused: The machine is too busy.
        TableError: The table cannot predict this network's children.
    """
    predictor = Predictor(network, table)
    known = {row.genotype for row in table.children if row.space == network.identity}
    children = calibration_children(network, n, f"verify {seed}", exclude=known)
    jobs = [child_job(network, g, str(i), seed) for i, g in enumerate(children)]
    bench = Bench(
        runtime, protocol or Protocol(rounds=12, accepted_per_round=5, attempts_per_round=20)
    )
    timings = {
        k: v for group in bench.time("timing fresh children", jobs) for k, v in group.items()
    }
    ordered = [timings[job.name] for job in jobs]
    measured = np.array([timing.ms for timing in ordered])
    predicted = predictor.predict_ms(np.array(children))
    q95 = predictor.model.q95
    return {
        "n": len(children),
        **quality(predicted, measured),
        "noise_floor": noise_floor(ordered),
        "met_bound": None if q95 is None else float((measured <= predicted * q95).mean()),
        "accept": fmean(timing.accept for timing in ordered),
        "predicted_ms": predicted,
        "measured_ms": measured,
    }
