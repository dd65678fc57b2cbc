"""Finalists: the children that a search would deliver, measured on the device it searched for."""

from typing import TYPE_CHECKING

import numpy as np

from elastic_nas.errors import ElasticNasError
from elastic_nas.latency.measured import Measured
from elastic_nas.measure import Protocol
from elastic_nas.progress import say
from elastic_nas.runs import RunFolder
from elastic_nas.targets import Target, runtime_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from elastic_nas.genotype import Genotype


def measure_finalists(
    run: RunFolder, target: Target, genotypes: "Iterable[Genotype]"
) -> "list[Genotype]":
    """Measure those that have not been measured yet, and keep the figures beside the front.

    Only on the device itself. What cannot be measured is said, and its bound stays what it is;
    what was measured before that, or before an interruption, is kept.

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
    known, place = target.measured, run.measured(target.device.name)
    todo = [g for g in genotypes if g not in known.ms]
    if not todo:
        return []
    ms: dict[Genotype, float] = {}
    try:
        for group, _ in time_children(run, target, todo):
            ms |= group
            Measured(known.digest, {**known.ms, **ms}).write(place)
    except ElasticNasError as error:
        say(f"note: {len(todo) - len(ms)} of {len(todo)} finalists were not measured. {error}")
    broken = _broken(target, ms)
    if broken:
        say(
            f"{len(ms)} finalists measured: {len(ms) - len(broken)} keep their bound, "
            f"{len(broken)} broke it and joined its calibration."
        )
    elif ms:
        kept = ": all keep their bound" if target.predictor.promise else ""
        say(f"{len(ms)} finalists measured{kept}.")
    return broken


def _broken(target: Target, ms: "dict[Genotype, float]") -> "list[Genotype]":
    """The children that took longer than what was promised of them."""
    if not ms or not target.predictor.promise:
        return []
    bounds = target.predictor.bound_ms(np.array(list(ms))) / target.predictor.speed
    return [g for g, bound in zip(ms, bounds, strict=True) if ms[g] > bound]


def time_children(
    run: RunFolder, target: Target, genotypes: "Sequence[Genotype]"
) -> "Iterator[tuple[dict[Genotype, float], float]]":
    """Time children of a run on this machine, with the table's anchors between them.

    Yields:
        Group by group: milliseconds at the table's speed, and the machine's speed in multiples of
        it.

    Raises:
        MeasurementRefused: The machine is too busy, or its speed has moved too far.
        TableError: The table has no anchors of this space.
    """
    from elastic_nas.latency.bench import Bench
    from elastic_nas.latency.drift import anchors_in
    from elastic_nas.latency.profile import child_job, for_children

    network = run.network
    by_name = {str(number): genotype for number, genotype in enumerate(genotypes)}
    jobs = [child_job(network, genotype, name, 0) for name, genotype in by_name.items()]
    anchors = anchors_in(target.table, network.whole)
    mean_ms = float(target.predictor.predict_ms(np.array(genotypes)).mean())
    bench = Bench(runtime_of(target.device), for_children(Protocol(), mean_ms))
    for group in bench.time(f"measuring {len(jobs)} children", jobs, anchors):
        yield {by_name[name]: t.ms for name, t in group.items()}, anchors.speeds[-1].factor
