"""The proof: children that no fit and no bound has seen, drawn anew, measured and compared."""

from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elastic_nas.latency.bench import Bench, TimedRuntime
from elastic_nas.latency.drift import anchors_in
from elastic_nas.latency.model import quality
from elastic_nas.latency.plan import calibration_children
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.profile import child_job, for_children
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Protocol, Timing, noise_floor

if TYPE_CHECKING:
    from elastic_nas.network import Network


def verify_children(
    network: "Network",
    runtime: TimedRuntime,
    table: LatencyTable,
    n: int = 100,
    seed: int = 1,
    protocol: Protocol | None = None,
) -> dict[str, Any]:
    """Measure fresh children, drawn uniformly, and compare with their predictions.

    The table's anchors are timed between them. Figures are given at the table's speed, that is,
    with what is common to all children of these minutes taken out, and as they were on the clock.

    Args:
        network: Whose children.
        runtime: What runs them.
        table: With a fitted model of the network.
        n: Number of children.
        seed: Of the draw.
        protocol: How figures are taken.

    Returns:
        ``n``, ``mape``, ``within_5``, ``within_10``, ``kendall_tau``, ``noise_floor``,
        ``met_bound`` (share; None without a bound), ``accept``; ``raw`` with the same figures as
        they were on the clock; ``speed`` (least and largest factor of the groups); and the arrays
        ``genotypes``, ``predicted_ms``, ``measured_ms``.

    Raises:
        MeasurementRefused: The machine is too busy, or its speed has moved too far.
        TableError: The table cannot predict this network's children.
    """
    predictor = Predictor(network, table)
    known = {row.genotype for row in table.children if row.space == network.identity}
    children = calibration_children(network, n, f"verify {seed}", exclude=known)
    predicted = predictor.predict_ms(np.array(children))
    jobs = [child_job(network, g, str(i), seed) for i, g in enumerate(children)]
    anchors = anchors_in(table, network, seed)
    bench = Bench(runtime, for_children(protocol or Protocol(), float(predicted.mean())))
    timings: dict[str, Timing] = {}
    factors: dict[str, float] = {}
    for group in bench.time("timing fresh children", jobs, anchors):
        timings |= group
        factors |= dict.fromkeys(group, anchors.speeds[-1].factor)
    ordered = [timings[job.name] for job in jobs]
    measured = np.array([timing.ms for timing in ordered])
    clocked = measured * np.array([factors[job.name] for job in jobs])
    bound = predictor.model.bound_factor()
    return {
        "n": len(children),
        **_compared(predicted, measured, bound),
        "raw": _compared(predicted, clocked, bound),
        "speed": (min(factors.values()), max(factors.values())),
        "noise_floor": noise_floor(ordered),
        "accept": fmean(timing.accept for timing in ordered),
        "device_s": bench.device_s,
        "genotypes": np.array(children),
        "predicted_ms": predicted,
        "measured_ms": measured,
    }


def _compared(
    predicted: NDArray[np.float64],
    measured: NDArray[np.float64],
    bound: float | None,
) -> dict[str, Any]:
    met = None if bound is None else float((measured <= predicted * bound).mean())
    return {**quality(predicted, measured), "met_bound": met}
