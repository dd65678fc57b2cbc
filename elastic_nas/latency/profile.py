"""Profiling: measure a device until the latency of every child of a network can be predicted."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from elastic_nas.additive import AdditiveCost
from elastic_nas.errors import ConfigError, MeasurementRefused
from elastic_nas.genotype import Genotype
from elastic_nas.latency.bench import Bench, Job, TimedRuntime
from elastic_nas.latency.devices import Device
from elastic_nas.latency.fitting import fit_model
from elastic_nas.latency.micromodels import block_model, child_model
from elastic_nas.latency.plan import ANCHORS, Draw, plan_for, wanted_blocks
from elastic_nas.latency.provenance import complete, fresh_table
from elastic_nas.latency.rows import BlockRow, ChildRow
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Protocol, environment
from elastic_nas.progress import say
from elastic_nas.specs import BlockSpec

if TYPE_CHECKING:
    from elastic_nas.network import Network

MAX_DRIFT = 0.05
CHILD_SECONDS = 0.4
MAX_ROUNDS = 30
"""Rounds over whole children: as many as take about `CHILD_SECONDS` a child, up to these."""

Save = Callable[[LatencyTable], None]


def profile(  # noqa: PLR0913
    network: "Network",
    runtime: TimedRuntime,
    device: Device,
    table: LatencyTable | None,
    *,
    save: Save,
    protocol: Protocol | None = None,
    n_fit: int = 40,
    n_calibrate: int = 60,
    seed: int = 0,
) -> LatencyTable:
    """Measure what the device's table lacks for this network, and fit its latency model.

    Args:
        network: Whose children shall be predicted.
        runtime: What runs the models.
        device: What the runtime and this machine stand for.
        table: What was measured before; of another runtime version or machine, it is left aside.
        save: Called with the table after every group of measurements, so that the same call goes
            on where an interrupted one stopped.
        protocol: How figures are taken.
        n_fit: Whole children to fit on, spread over the range of latencies and resolutions.
        n_calibrate: Other children, drawn uniformly, for the bound and the quality.
        seed: Of children and weights.

    Returns:
        The table with a fitted model of this network.

    Raises:
        ConfigError: This machine is not that device.
        MeasurementRefused: The machine is too busy, or its speed has changed since `table`.
    """
    facts = environment()
    if device.mismatch(facts):
        raise ConfigError(f"this machine is not {device.name}: {device.mismatch(facts)}.")
    bench = Bench(runtime, protocol or Protocol())
    table = _continued(table, device, runtime, facts)
    if table is None:
        table = fresh_table(device, bench, facts)
    else:
        _check_drift(network, bench, table, seed)
    extend(table, network, bench, save, Draw(n_fit, n_calibrate, seed))
    return table


def extend(table: LatencyTable, network: "Network", bench: Bench, save: Save, draw: Draw) -> None:
    """Measure what the table lacks for this network, and fit its model.

    Raises:
        MeasurementRefused: The machine is too busy.
    """
    _measure_blocks(network, bench, table, save, draw.seed)
    device_s = bench.device_s + _measure_children(network, bench, table, save, draw)
    table.models[network.identity] = fit_model(network, table)
    complete(network, table, device_s)
    save(table)


def _for_children(bench: Bench, mean_ms: float) -> Bench:
    """Half the samples a visit, and more visits where children are short."""
    protocol = bench.protocol
    accepted = -(-protocol.accepted_per_round // 2)
    rounds = int(CHILD_SECONDS / (1e-3 * mean_ms * (accepted + 1)))
    halved = replace(
        protocol,
        accepted_per_round=accepted,
        attempts_per_round=-(-protocol.attempts_per_round // 2),
        rounds=min(max(rounds, protocol.rounds), MAX_ROUNDS),
    )
    return replace(bench, protocol=halved, device_s=0.0)


def _continued(
    table: LatencyTable | None, device: Device, runtime: TimedRuntime, facts: dict[str, Any]
) -> LatencyTable | None:
    """The table, if its figures may stand beside new ones."""
    if table is None:
        return None
    table.check_fits(device)
    described = runtime.describe()
    stale = table.stale(described["version"], facts)
    if stale or table.runtime != described:
        say(f"the table of {device.name} is left aside: {stale or 'other runtime settings'}.")
        return None
    return table


def _measure_blocks(
    network: "Network", bench: Bench, table: LatencyTable, save: Save, seed: int
) -> None:
    specs = [spec for spec in wanted_blocks(network) if spec not in table.blocks]
    jobs = {str(number): spec for number, spec in enumerate(specs)}
    for timings in bench.time(
        f"timing {len(specs)} blocks", [_block_job(name, spec, seed) for name, spec in jobs.items()]
    ):
        for name, timing in timings.items():
            table.add_block(jobs[name], BlockRow.of(timing))
        save(table)


def _block_job(name: str, spec: BlockSpec, seed: int) -> Job:
    return Job(name, spec.input_shape, 4 * spec.costs.weights, lambda: block_model(spec, seed))


def child_job(network: "Network", genotype: Genotype, name: str, seed: int) -> Job:
    """A whole child to be timed, as deployed."""
    blocks = network.blocks(genotype)
    weight_bytes = 4 * sum(spec.costs.weights for spec in blocks)
    return Job(
        name, blocks[0].input_shape, weight_bytes, lambda: child_model(network, genotype, seed)
    )


def _measure_children(
    network: "Network",
    bench: Bench,
    table: LatencyTable,
    save: Save,
    draw: Draw,
) -> float:
    """Measure the fit and calibration children that the table lacks, in mixed order.

    Returns:
        Seconds spent on timing.
    """
    plan = plan_for(network, draw)
    fitted, others = plan.fit, plan.calibrate
    known = {(row.genotype, row.role) for row in table.children if row.space == network.identity}
    pairs = [(g, "fit") for g in fitted] + [(g, "calibrate") for g in others]
    order = np.random.default_rng([draw.seed, 2]).permutation(len(pairs))
    todo = {str(i): pairs[i] for i in order if pairs[i] not in known}
    jobs = [child_job(network, g, name, draw.seed) for name, (g, _) in todo.items()]
    sums = AdditiveCost(network, lambda spec: table.entry_ms(spec)[0])(np.array([*fitted, *others]))
    whole = _for_children(bench, float(sums.mean()))
    for timings in whole.time(f"timing {len(jobs)} children", jobs):
        for name, timing in timings.items():
            genotype, role = todo[name]
            row = ChildRow.of(network.identity, network.classes, genotype, role, timing)
            table.children.append(row)
        save(table)
    return whole.device_s


def _check_drift(network: "Network", bench: Bench, table: LatencyTable, seed: int) -> None:
    """Refuse to add to a table whose anchors now take another time.

    Anchors are five of this network's children; before there are any, five of its blocks.
    """
    jobs: list[tuple[Job, float]] = []
    for anchor in table.provenance["anchors"].get(network.identity, []):
        one = replace(network, classes=anchor["classes"])
        job = child_job(one, tuple(anchor["genotype"]), str(len(jobs)), seed)
        jobs.append((job, anchor["ms"]))
    if not jobs:
        known = [spec for spec in wanted_blocks(network) if spec in table.blocks]
        known.sort(key=lambda spec: table.blocks[spec].ms)
        for spec in known[len(known) // 2 :: max(1, len(known) // (2 * ANCHORS))][:ANCHORS]:
            jobs.append((_block_job(str(len(jobs)), spec, seed), table.blocks[spec].ms))
    ratios: list[float] = []
    for timings in bench.time("timing the anchors again", [job for job, _ in jobs]):
        ratios += [timings[job.name].ms / ms for job, ms in jobs if job.name in timings]
    drift = float(np.median(ratios)) if ratios else 1.0
    if abs(drift - 1) > MAX_DRIFT:
        raise MeasurementRefused(
            f"what was measured before now takes {drift:.2f} times as long, so new figures cannot "
            "stand beside the old.\nTry again when the machine is as quiet, cool and unthrottled "
            "as then, or remove the table to measure afresh."
        )
