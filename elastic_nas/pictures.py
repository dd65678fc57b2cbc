"""The picture of a run on a device: evaluated children, their front, and what was exported."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from elastic_nas.budgets import format_duration
from elastic_nas.data.duplicates import KEPT
from elastic_nas.data.record import read_record
from elastic_nas.errors import RunFolderError
from elastic_nas.export.manifest import MOST_BYTES, Hash, Ms, Name, Share
from elastic_nas.files import write_json
from elastic_nas.outside import read_json
from elastic_nas.progress import say
from elastic_nas.report import Chosen, Point, plot_front
from elastic_nas.runs import RunFolder
from elastic_nas.search.history import Row
from elastic_nas.strict import Strict
from elastic_nas.targets import Target

MOST_SHOWN = 200
"""Exported children in one picture."""
MOST_KINDS = 4
"""Kinds of images that were left out, in its caption."""
MOST_LETTERS = 30
"""Of the name of a kind."""


class _Child(Strict):
    """One exported child, as `report.Chosen` has it."""

    label: Name
    bound_ms: Ms
    predicted_ms: Ms
    accuracy: Share
    measured_ms: Ms | None
    test: Annotated[list[Share], Field(min_length=3, max_length=3)]

    def chosen(self) -> Chosen:
        """For the picture."""
        top1, low, high = self.test
        return Chosen(**{**self.model_dump(), "test": (top1, low, high)})


class _Record(Strict):
    """The children that were exported with the same weights, by their labels."""

    weights: Hash | None
    children: Annotated[dict[Name, _Child], Field(max_length=MOST_SHOWN)]


def plot(run: RunFolder, target: Target, rows: list[Row], weights: str) -> list[Path]:
    """Draw accuracy against latency beside the device's front, as PNG and SVG.

    All evaluated children, the front over all of them, and those that were exported.

    Args:
        run: The run.
        target: The device.
        rows: Evaluated children, at least one.
        weights: Hash of the weights that made them.
    """
    bounds = target.costs.bound_ms(np.array([row.genotype for row in rows]))
    points = [Point(float(ms), row.accuracy) for ms, row in zip(bounds, rows, strict=True)]
    exported = _exported(run.exported(target.device.name), weights)
    return plot_front(
        run.front(target.device.name).with_suffix(""),
        device=target.device.name,
        n=rows[0].n,
        points=points,
        chosen=[child.chosen() for child in exported.values()],
        caption=_caption(run),
    )


def _caption(run: RunFolder) -> str:
    """How many images each side of a run has, and what was left out by kind, the most first."""
    if not run.images.is_file():
        return ""
    record = read_record(run.images)
    sides = f"{', '.join(f'{n:,} {side}' for side, n in record.counts.items())} images"
    equal = sum(n for kind, n in record.head.copies.items() if not kind.endswith(KEPT))
    kinds = {**record.head.left_out, "equal pictures": equal}
    most = sorted((kind for kind in kinds if kinds[kind]), key=lambda kind: -kinds[kind])
    told = [
        f"{kind.replace('_', ' ')[:MOST_LETTERS]} {kinds[kind]:,}" for kind in most[:MOST_KINDS]
    ]
    if more := len(most) - MOST_KINDS if len(most) > MOST_KINDS else 0:
        told.append(f"{more:,} more kinds")
    return "\n".join([sides, f"left out: {', '.join(told)}"] if told else [sides])


def show_exported(run: RunFolder, target: Target, rows: list[Row], made: dict[str, Any]) -> None:
    """Add an exported child to the device's picture; `made` is its manifest."""
    latency, accuracy = made["latency"], made["accuracy"]
    limit = latency["budget_ms"]
    label = "best child" if limit is None else f"best within {format_duration(limit)}"
    path, weights = run.exported(target.device.name), made["weights_sha256"]
    children = _exported(path, weights)
    children[label] = _Child(
        label=label,
        bound_ms=latency["bound_ms"],
        predicted_ms=latency["predicted_ms"],
        accuracy=made["search_validation"]["accuracy"],
        measured_ms=latency["measured_ms"],
        test=[accuracy["top1"], *accuracy["interval_95"]],
    )
    newest = dict(list(children.items())[-MOST_SHOWN:])
    write_json(path, _Record(weights=weights, children=newest).model_dump())
    plot(run, target, rows, weights)


def _exported(path: Path, weights: str) -> dict[str, _Child]:
    """Children that were exported with these weights; those of older weights are forgotten."""
    try:
        values = read_json(path, missing={"weights": None, "children": {}}, most=MOST_BYTES)
        record = _Record.model_validate(values)
    except (RunFolderError, ValidationError):
        say(f"note: {path} is damaged; the picture shows no earlier exports.")
        return {}
    return dict(record.children) if record.weights == weights else {}
