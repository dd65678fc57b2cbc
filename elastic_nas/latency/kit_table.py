"""The latency table that a kit's result makes: groups at one speed, provenance, a fitted model."""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from elastic_nas.errors import GenotypeError, TableError
from elastic_nas.genotype import check
from elastic_nas.kit_figures import MAX_MOVE, middle_ms, moved, speeds
from elastic_nas.latency.devices import Device
from elastic_nas.latency.fitting import fit_model
from elastic_nas.latency.kit_result import KitResult, Row
from elastic_nas.latency.plan import wanted_blocks
from elastic_nas.latency.provenance import complete
from elastic_nas.latency.rows import BlockRow, ChildRow
from elastic_nas.latency.speed import at_speed
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Timing
from elastic_nas.progress import say

if TYPE_CHECKING:
    from elastic_nas.network import Network

AGAIN = "On the device, run the same command again: python run.py"


def table_from(result: KitResult, network: "Network", device: Device) -> LatencyTable:
    """The device's table, all groups told at the speed of the middle one, its model fitted.

    Raises:
        TableError: The result is unfinished, refused, or of another device or space.
        MissingEntries: The kit was made by a version that measured fewer blocks.
    """
    _check_ours(result, network, device)
    anchors = [_anchors(group) for group in result.groups]
    factors = speeds(anchors)
    table = _empty(result, network, device, middle_ms(anchors))
    table.check_fits(device)
    strays = sum(map(moved, factors))
    if strays:
        raise TableError(
            f"the device's speed moved by more than a tenth in {strays} of {len(factors)} groups, "
            f"or is unknown there.\nLet it cool and fix its frequency. {AGAIN}"
        )
    refused = []
    for rows, factor in zip(result.groups, factors, strict=True):
        for row in rows:
            if row.timing.refused:
                refused.append(row)
            else:
                _add(table, result, row, at_speed(row.timing, factor))
    _check_refused(refused, table)
    missing = table.missing(wanted_blocks(network))
    if missing:
        raise table.missing_error(missing, network.space_name)
    _check_null(table)
    table.models[network.identity] = fit_model(network, table)
    for visit in result.visits:
        speed = [round(min(factors), 4), round(max(factors), 4)]
        complete(table, network, {"stolen_share": None, **visit, "speed": speed})
    return table


def _check_ours(result: KitResult, network: "Network", device: Device) -> None:
    """Refuse an unfinished result, and one of another device or space."""
    if not result.complete:
        rows = [row for group in result.groups for row in group]
        begun = sum(row.timing.n > 0 for row in rows)
        raise TableError(f"it is not finished: {begun} of {len(rows)} rows are begun.\n{AGAIN}")
    if result.device != device.name:
        raise TableError(f"it was made for the device {result.device}, not for {device.name}.")
    if result.network["identity"] != network.identity:
        raise TableError(
            f"its kit was made for the space {result.network['space']}, which {network.space_name} "
            "is not, or for another version of it.\nMake a new kit: elastic-nas kit --device "
            f"{device.name} --space {network.space_name} --out kit.zip"
        )
    if device.mismatch(result.environment):
        raise TableError(
            f"it was not measured on {device.name}: {device.mismatch(result.environment)}."
        )
    rows = [row for group in result.groups for row in group]
    made_for = wanted_blocks(replace(network, classes=result.network["classes"]))
    strange = {row.block for row in rows} - {None, *made_for}
    if strange:
        raise TableError(
            f"it holds {len(strange)} blocks that {network.space_name} has not, such as "
            f"{str(strange.pop())[:200]}."
        )
    for genotype in {row.genotype for row in rows if row.role}:
        try:
            check(network.dims, genotype)
        except GenotypeError as error:
            raise TableError(
                f"it holds a child that {network.space_name} has not: {error}"
            ) from error


def _check_null(table: LatencyTable) -> None:
    """Refuse an empty model that takes longer than blocks do: each of them contains it."""
    null_ms, middle = table.provenance["null_ms"], median(r.ms for r in table.blocks.values())
    if null_ms > middle * (1 + MAX_MOVE):
        raise TableError(
            f"the empty model takes {null_ms:.4g} ms, longer than the middle one of its blocks, "
            f"{middle:.4g} ms: such figures cannot be.\n{AGAIN}"
        )


def _anchors(rows: tuple[Row, ...]) -> dict[str, float]:
    return {r.name: r.timing.ms for r in rows if r.role == "anchor" and not r.timing.refused}


def _empty(
    result: KitResult, network: "Network", device: Device, anchors: Mapping[str, float]
) -> LatencyTable:
    """A table without rows."""
    nulls = [r.timing.ms for group in result.groups for r in group if r.name == "null"]
    if not nulls or not math.isfinite(nulls[0]):
        raise TableError(f"the empty model was not measured.\n{AGAIN}")
    genotypes = {row.name: row.genotype for row in result.groups[0] if row.role == "anchor"}
    known = [
        {"classes": result.network["classes"], "genotype": list(genotypes[name]), "ms": ms}
        for name, ms in sorted(anchors.items())
        if name in genotypes
    ]
    protocol = result.protocol
    return LatencyTable(
        device={"name": device.name, **result.environment},
        runtime=result.runtime,
        precision=result.precision,
        protocol={
            "warmup": int(protocol.warmup),
            "rounds": int(protocol.rounds),
            "accepted_per_round": int(protocol.accepted_per_round),
            "filter": result.rule,
            "statistic": "median of round medians",
            "sample_us": protocol.sample_s * 1e6,
            "children": "half as many samples a round; more rounds where children are short",
            "seed": int(protocol.seed),
        },
        provenance={
            "date": "",
            "commit": "",
            "null_ms": nulls[0],
            "anchors": {network.identity: known},
            "device_s": 0.0,
            "visits": [],
            "kit": result.plan,
        },
    )


def _add(table: LatencyTable, result: KitResult, row: Row, timing: Timing) -> None:
    if row.block is not None:
        table.add_block(row.block, BlockRow.of(timing))
    elif row.role in ("fit", "calibrate"):
        space, classes = result.network["identity"], result.network["classes"]
        table.children.append(ChildRow.of(space, classes, row.genotype, row.role, timing))


def _check_refused(refused: list[Row], table: LatencyTable) -> None:
    """Do without refused children, and say so; a block cannot be done without."""
    blocks = [row for row in refused if row.block is not None]
    if blocks:
        raise TableError(
            f"{len(blocks)} blocks could not be timed honestly on the device; {blocks[0].name}: "
            f"{blocks[0].timing.refused}.\nClose other programs there. {AGAIN}"
        )
    if not any(row.role == "fit" for row in table.children):
        raise TableError(f"no child to fit on could be timed honestly.\n{AGAIN}")
    for role in ("fit", "calibrate"):
        lost = sum(row.role == role for row in refused)
        if lost:
            left = sum(row.role == role for row in table.children)
            say(
                f"note: {lost} {role} children could not be timed honestly; {left} are left. Long "
                "ones are refused first: what the table says holds for children like those left."
            )
