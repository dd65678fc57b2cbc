"""Two tables of one device in one, told at one speed: that of the first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from elastic_nas.errors import MeasurementRefused, TableError
from elastic_nas.latency.rows import row_at_speed
from elastic_nas.latency.speed import MAX_MOVE, Speed, speed_of
from elastic_nas.latency.table import LatencyTable


def merge(own: LatencyTable, other: LatencyTable) -> tuple[LatencyTable, list[str]]:
    """All rows of `own`, and those of `other` that it lacks, at the speed of `own`.

    What both were measured on (the anchor children of the spaces that both know) tells how much
    quicker or slower the machine was when `other` was measured; see `latency.speed`. Children of
    a space that only `other` knows stay as they are: the model that is fitted to them tells their
    speed. Fitted models lean on the blocks, which are `own`'s first, so that those of `other` are
    left out: fit them again, see `fitting.fit_model`.

    Returns:
        The table, and what a person must know about it.

    Raises:
        TableError: They are of different devices, runtimes, precisions or machines, or the
            machine's speed moved too far between them.
    """
    _check_alike(own, other)
    speeds = _speeds(own, other)
    factor = _common(speeds)
    blocks = {
        spec: row_at_speed(row, factor)
        for spec, row in other.blocks.items()
        if spec not in own.blocks
    }
    known = {(row.space, row.genotype, row.role) for row in own.children}
    spaces = {row.space for row in own.children}
    children, strange = [], 0
    for row in other.children:
        if row.space not in spaces:
            children.append(row)
        elif (row.space, row.genotype, row.role) not in known:
            if row.space in speeds:
                children.append(row_at_speed(row, speeds[row.space].factor))
            else:
                strange += 1
    notes = []
    figures = len(other.blocks) + len(other.children)
    same = figures - len(blocks) - len(children) - strange
    if same:
        notes.append(f"{same} of {figures} figures are known already; the table's own stay")
    if strange:
        notes.append(
            f"{strange} children are left out: no anchor children tell at what speed of the "
            "machine they were measured"
        )
    if own.blocks and not speeds:
        notes.append(
            "the tables share no anchor children, so that new figures stand as they are, whatever "
            "the machine's speed was"
        )
    return replace(
        own,
        provenance=_provenance(own.provenance, other.provenance),
        blocks={**own.blocks, **blocks},
        children=[*own.children, *children],
        models=dict(own.models),
    ), notes


def _check_alike(own: LatencyTable, other: LatencyTable) -> None:
    for what in ("runtime", "precision"):
        if getattr(own, what) != getattr(other, what):
            raise TableError(f"tables of different {what} cannot be merged.")
    names = [table.device["name"] for table in (own, other)]
    if names[0] != names[1] or other.stale(own.runtime["version"], {"flags": [], **own.device}):
        raise TableError("tables of different devices or machines cannot be merged.")


def _speeds(own: LatencyTable, other: LatencyTable) -> dict[str, Speed]:
    """What the shared anchors take in `other`, in multiples of `own`, by space."""
    speeds = {}
    for space in own.provenance["anchors"]:
        then, now = (_anchors(table, space) for table in (own, other))
        try:
            speeds[space] = speed_of(now, then, len(then))
        except MeasurementRefused:  # too few are shared
            continue
    return speeds


def _anchors(table: LatencyTable, space: str) -> dict[str, float]:
    rows = table.provenance["anchors"].get(space, [])
    return {f"{row['classes']} {row['genotype']}": row["ms"] for row in rows}


def _common(speeds: Mapping[str, Speed]) -> float:
    """The mean factor; refuses one that is too far away, in any space."""
    for speed in speeds.values():
        if abs(speed.factor - 1) > MAX_MOVE:
            raise TableError(
                f"what both tables measured takes {speed.factor:.2f} times as long in the new one, "
                "so that their figures cannot stand beside each other."
            )
    factors = [speed.factor for speed in speeds.values()]
    return sum(factors) / len(factors) if factors else 1.0


def _provenance(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """One record of both: `own`'s word first, all visits, all seconds."""
    both = {**other, **own}
    for key in ("anchors", "spaces", "energy"):
        if key in both:
            both[key] = {**other.get(key, {}), **own.get(key, {})}
    for key in ("visits", "imported"):
        if key in both:
            mine = own.get(key, [])
            both[key] = [*mine, *(entry for entry in other.get(key, []) if entry not in mine)]
    both["date"] = max(own["date"], other["date"])
    if "visits" in both:
        both["device_s"] = round(sum(visit["device_s"] for visit in both["visits"]), 1)
    return both
