"""Finalists: the children that a search would deliver, measured on the device it searched for."""

from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from elastic_nas.errors import MeasurementRefused
from elastic_nas.latency.measured import Measured
from elastic_nas.measure import Protocol
from elastic_nas.progress import say
from elastic_nas.runs import RunFolder
from elastic_nas.targets import Target, runtime_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elastic_nas.genotype import Genotype

MOST = 30
"""Finalists that are measured at a time: the best of the front."""


def measure_finalists(
    run: RunFolder, target: Target, genotypes: "Iterable[Genotype]"
) -> "list[Genotype]":
    """Measure those that have not been measured yet, and keep the figures beside the front.

    Only on the device itself; a machine too busy is said, and the bounds stay what they are.

    Args:
        run: The searched run.
        target: The device.
        genotypes: The finalists, the best first.

    Returns:
        Those that took longer than their bound.
    """
    anchored = target.table.provenance["anchors"].get(run.network.whole.identity)
    if not target.is_here or not anchored:
        return []
    known = target.measured
    todo = [g for g in genotypes if g not in known.ms][:MOST]
    if not todo:
        return []
    try:
        ms = dict(zip(todo, time_children(run, target, todo)[0], strict=True))
    except MeasurementRefused as error:
        say(f"note: the finalists were not measured. {error}")
        return []
    Measured(known.table_sha256, {**known.ms, **ms}).write(run.measured(target.device.name))
    bounds = target.predictor.bound_ms(np.array(todo)) / target.predictor.speed
    broken = [g for g, bound in zip(todo, bounds, strict=True) if ms[g] > bound]
    say(
        f"{len(todo)} finalists measured: {len(todo) - len(broken)} keep their bound"
        + (f", {len(broken)} broke it and joined its calibration." if broken else ".")
    )
    return broken


def time_children(
    run: RunFolder, target: Target, genotypes: "Sequence[Genotype]"
) -> tuple[list[float], float]:
    """Time children of a run on this machine, with the table's anchors between them.

    Returns:
        Milliseconds at the table's speed, and the machine's speed in multiples of it.

    Raises:
        MeasurementRefused: The machine is too busy, or its speed has moved too far.
        TableError: The table has no anchors of this space.
    """
    from elastic_nas.latency.bench import Bench
    from elastic_nas.latency.drift import anchors_in
    from elastic_nas.latency.profile import child_job, for_children

    network = run.network
    jobs = [
        child_job(network, genotype, str(number), 0) for number, genotype in enumerate(genotypes)
    ]
    anchors = anchors_in(target.table, network.whole)
    mean_ms = float(target.predictor.predict_ms(np.array(genotypes)).mean())
    bench = Bench(runtime_of(target.device), for_children(Protocol(), mean_ms))
    timings = {
        name: timing.ms
        for group in bench.time(f"measuring {len(jobs)} children", jobs, anchors)
        for name, timing in group.items()
    }
    factor = fmean(speed.factor for speed in anchors.speeds)
    return [timings[job.name] for job in jobs], factor
