"""Profiling: measure a device until the latency of every child of a network can be predicted."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from elastic_nas.additive import AdditiveCost
from elastic_nas.energy import counter, millijoules_a_run
from elastic_nas.errors import ConfigError
from elastic_nas.genotype import Genotype, format_genotype
from elastic_nas.latency.bench import Anchors, Bench, Job, TimedRuntime
from elastic_nas.latency.devices import Device
from elastic_nas.latency.fitting import fit_model
from elastic_nas.latency.micromodels import block_model, child_model
from elastic_nas.latency.plan import Draw, Plan, guessed_ms, plan_for
from elastic_nas.latency.provenance import Visit, complete, fresh_table
from elastic_nas.latency.rows import BlockRow, ChildRow
from elastic_nas.latency.self_check import check_children, check_model
from elastic_nas.latency.speed import check_move
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Protocol, environment
from elastic_nas.progress import track
from elastic_nas.specs import BlockSpec

if TYPE_CHECKING:
    from elastic_nas.network import Network

SAVE_EVERY = 100
"""Blocks whose memory is counted between two savings."""
CHILD_SECONDS = 0.4
MAX_ROUNDS = 30
"""Rounds over whole children: as many as take about `CHILD_SECONDS` a child, up to these."""

GPU_PROVIDERS = ("cuda", "tensorrt")
"""Beginnings of the names of providers that run on an NVIDIA graphics card, in small letters."""

Save = Callable[[LatencyTable], None]


def profile(
    network: "Network",
    runtime: TimedRuntime,
    device: Device,
    table: LatencyTable | None,
    *,
    save: Save,
    protocol: Protocol | None = None,
    draw: Draw | None = None,
) -> LatencyTable:
    """Measure what the device's table lacks for this network, and fit its latency model.

    Args:
        network: Whose children shall be predicted.
        runtime: What runs the models.
        device: What the runtime and this machine stand for.
        table: What was measured before; of another runtime version or machine, it is left aside.
        save: Called with the table after every group of at most 100 models, so that the same call
            goes on where an interrupted one stopped.
        protocol: How figures are taken.
        draw: How many whole children to measure, and which.

    Returns:
        The table with a fitted model of this network.

    Raises:
        ConfigError: This machine is not that device.
        MeasurementRefused: The machine is too busy, or its speed has changed since `table`.
    """
    facts = environment()
    check_here(device, facts)
    bench = Bench(runtime, protocol or Protocol())
    if table is None or not_continued(table, device, runtime, facts):
        first = table is None
        table = fresh_table(device, bench, facts)
        if first:  # in place of an older table nothing is put before there are figures of blocks
            save(table)
    extend(table, network, bench, save, draw or Draw())
    return table


def check_here(device: Device, facts: dict[str, Any]) -> None:
    """Refuse to measure a device that this machine is not.

    Raises:
        ConfigError: It is not; the message names the kit.
    """
    if device.mismatch(facts):
        raise ConfigError(
            f"this machine is not {device.name}: {device.mismatch(facts)}.\nTo measure it there: "
            f"elastic-nas kit --device {device.name} --space SPACE --out kit.zip"
        )


def extend(table: LatencyTable, network: "Network", bench: Bench, save: Save, draw: Draw) -> None:
    """Measure what the table lacks for this network, and fit its model.

    Raises:
        TableError: It holds children that the network has not.
        MeasurementRefused: The machine is too busy, or its speed has moved too far.
    """
    check_children(network, table)
    visit = Visit()
    plan = plan_for(network, draw)
    rows = _anchor_rows(network, plan, table)
    anchors = anchors_for(network, rows, draw.seed)

    def keep() -> None:
        table.provenance["anchors"][network.identity] = _timed(rows, anchors)
        if network.identity in table.models:  # of earlier; it goes with the children
            table.models[network.identity] = fit_model(network, table)
        save(table)

    _measure_blocks(plan, anchors, bench, table, keep, draw.seed)
    _measure_children(network, plan, anchors, bench, table, keep, draw.seed)
    if not anchors.speeds:  # nothing was lacking
        anchors.speeds.append(bench.speed("timing the anchors again", anchors))
        check_move(anchors.speeds[-1])
    _count_memory(plan, bench.runtime, table, save, draw.seed)
    _count_energy(network, anchors, bench, table)
    table.models[network.identity] = fit_model(network, table)
    check_model(network, table, fully=True)
    complete(table, network, visit.record(bench.device_s, anchors.speeds))
    save(table)


def anchors_for(network: "Network", rows: list[dict[str, Any]], seed: int) -> Anchors:
    """Anchors from their rows in a table, or from rows without what they took.

    Args:
        network: Whose children they are.
        rows: Classes, genotype and, where they were timed before, ms.
        seed: Of their weights.
    """
    jobs = [
        child_job(
            replace(network, classes=row["classes"]), tuple(row["genotype"]), f"anchor {i}", seed
        )
        for i, row in enumerate(rows)
    ]
    return Anchors(jobs, {f"anchor {i}": row["ms"] for i, row in enumerate(rows) if "ms" in row})


def _anchor_rows(network: "Network", plan: Plan, table: LatencyTable) -> list[dict[str, Any]]:
    """The table's anchors of this network, else those of the plan, not timed yet."""
    return table.provenance["anchors"].get(network.identity) or [
        {"classes": network.classes, "genotype": genotype} for genotype in plan.anchors
    ]


def _timed(rows: list[dict[str, Any]], anchors: Anchors) -> list[dict[str, Any]]:
    """The anchors that were timed, with what they took: later figures are told at that speed."""
    took = [(row, anchors.then_ms.get(f"anchor {i}")) for i, row in enumerate(rows)]
    return [
        {**row, "genotype": list(row["genotype"]), "ms": ms} for row, ms in took if ms is not None
    ]


def not_continued(
    table: LatencyTable, device: Device, runtime: TimedRuntime, facts: dict[str, Any]
) -> str:
    """Why the table's figures may not stand beside new ones, or nothing.

    Raises:
        TableError: It is of another device.
    """
    table.check_fits(device)
    described = runtime.describe()
    stale = table.stale(described["version"], facts)
    return stale or ("" if table.runtime == described else "measured with other runtime settings")


def _measure_blocks(
    plan: Plan,
    anchors: Anchors,
    bench: Bench,
    table: LatencyTable,
    keep: Callable[[], None],
    seed: int,
) -> None:
    specs = {str(i): s for i, s in enumerate(s for s in plan.blocks if s not in table.blocks)}
    jobs = [_block_job(name, spec, seed) for name, spec in specs.items()]
    for timings in bench.time(f"timing {len(specs)} blocks", jobs, anchors):
        for name, timing in timings.items():
            table.add_block(specs[name], BlockRow.of(timing))
        keep()


def _block_job(name: str, spec: BlockSpec, seed: int) -> Job:
    what = "the block " + ", ".join(f"{key} {value}" for key, value in spec.key.items())
    weight_bytes = 4 * spec.costs.weights
    guess_ms = guessed_ms(spec)
    return Job(
        name, spec.input_shape, weight_bytes, lambda: block_model(spec, seed), what, guess_ms
    )


def child_job(network: "Network", genotype: Genotype, name: str, seed: int) -> Job:
    """A whole child to be timed, as deployed."""
    blocks = network.blocks(genotype)
    weight_bytes = 4 * sum(spec.costs.weights for spec in blocks)
    return Job(
        name,
        blocks[0].input_shape,
        weight_bytes,
        lambda: child_model(network, genotype, seed),
        f"the child {format_genotype(genotype)} of {network.space_name}",
        sum(map(guessed_ms, blocks)),
    )


def _measure_children(
    network: "Network",
    plan: Plan,
    anchors: Anchors,
    bench: Bench,
    table: LatencyTable,
    keep: Callable[[], None],
    seed: int,
) -> None:
    """Measure the fit and calibration children that the table lacks, in mixed order.

    The speed of the first group of children is the table's: how much quicker or slower the machine
    was while it took the blocks is fitted away with the rest.
    """
    known = {(row.genotype, row.role) for row in table.children if row.space == network.identity}
    pairs = [(g, "fit") for g in plan.fit] + [(g, "calibrate") for g in plan.calibrate]
    order = np.random.default_rng([seed, 2]).permutation(len(pairs))
    todo = {str(i): pairs[i] for i in order if pairs[i] not in known}
    jobs = [child_job(network, g, name, seed) for name, (g, _) in todo.items()]
    sums = AdditiveCost(network, lambda spec: table.entry_ms(spec)[0])(
        np.array([genotype for genotype, _ in pairs])
    )
    if not known:
        anchors.then_ms = {}
    whole = replace(bench, protocol=for_children(bench.protocol, float(sums.mean())))
    for timings in whole.time(f"timing {len(jobs)} children", jobs, anchors):
        for name, timing in timings.items():
            genotype, role = todo[name]
            row = ChildRow.of(network.identity, network.classes, genotype, role, timing)
            table.children.append(row)
        keep()
    bench.device_s = whole.device_s


def for_children(protocol: Protocol, mean_ms: float) -> Protocol:
    """Half the samples a visit, and more visits where children are short."""
    accepted = -(-protocol.accepted_per_round // 2)
    rounds = int(CHILD_SECONDS / (1e-3 * mean_ms * (accepted + 1)))
    return replace(
        protocol,
        accepted_per_round=accepted,
        attempts_per_round=-(-protocol.attempts_per_round // 2),
        rounds=min(max(rounds, protocol.rounds), MAX_ROUNDS),
    )


def _count_memory(
    plan: Plan, runtime: TimedRuntime, table: LatencyTable, save: Save, seed: int
) -> None:
    """Store the blocks' peak activations, where the runtime counts them."""
    count = getattr(runtime, "peak_activation_bytes", None)
    specs = [spec for spec in plan.blocks if table.blocks[spec].memory_bytes is None]
    if count is None or not specs:
        return
    with track(f"counting the memory of {len(specs)} blocks", len(specs)) as progress:
        for number, spec in enumerate(specs, 1):
            memory_bytes = count(block_model(spec, seed), spec.input_shape)
            table.add_block(spec, replace(table.blocks[spec], memory_bytes=memory_bytes))
            progress.advance(1)
            if number % SAVE_EVERY == 0:
                save(table)


def _count_energy(network: "Network", anchors: Anchors, bench: Bench, table: LatencyTable) -> None:
    """Store what the anchors take, where the platform counts energy; nothing is estimated."""
    provider = bench.runtime.describe()["provider"]
    meter = counter(gpu=provider.lower().startswith(GPU_PROVIDERS))
    known = table.provenance.setdefault("energy", {})
    if meter is None or network.identity in known:
        return
    runs = anchors.runs(bench.prepared)
    with track("counting energy", len(runs)) as progress:
        rows = {}
        for name, run in runs.items():
            rows[name] = millijoules_a_run(run, meter)
            progress.advance(1)
    known[network.identity] = {"rule": meter.rule, "millijoules": rows}
