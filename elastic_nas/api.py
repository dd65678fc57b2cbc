"""The public functions: from a folder of images to a verified ONNX file in five lines.

The command line offers the same, see `cli.py`; both call `pipeline` and `delivery`.
"""

from os import PathLike
from pathlib import Path
from typing import Any

from elastic_nas import delivery, facts, pipeline
from elastic_nas.budgets import Budgets, parse_count, parse_duration, parse_size
from elastic_nas.query import Answer
from elastic_nas.runs import RunFolder, open_run

AnyPath = str | PathLike[str]
Limit = str | float | None
"""A budget: text with a unit (``5ms``, ``2M``, ``4MB``), or a number in ms, ones or bytes."""


def budgets_of(
    latency: Limit = None, params: Limit = None, macs: Limit = None, size: Limit = None
) -> Budgets:
    """Budgets from text with units, or from numbers in milliseconds, ones and bytes.

    Raises:
        ConfigError: A limit is not positive and finite, or its text cannot be read.
    """
    return Budgets(
        latency_ms=parse_duration(latency) if isinstance(latency, str) else latency,
        params=parse_count(params) if isinstance(params, str) else params,
        macs=parse_count(macs) if isinstance(macs, str) else macs,
        size_bytes=parse_size(size) if isinstance(size, str) else size,
    )


def train(
    data: AnyPath,
    out: AnyPath,
    *,
    space: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
) -> RunFolder:
    """Train a supernet on a folder of class folders.

    Args:
        data: The folder, or ``digits``.
        out: The run folder to make.
        space: A space with its options, e.g. ``tiny:size=32``; by default chosen from the images.
        epochs: Length of the training in passes over the images; by default the recipe's.
        minutes: Or in minutes.
        resume: Go on from the checkpoint in `out`.

    Returns:
        The run, for the other functions.

    Raises:
        ElasticNasError: The data cannot be used, the folder is in use, ...; the message says what
            to do.
    """
    given = {"data": str(data), "space": space, "train.epochs": epochs, "train.minutes": minutes}
    overrides = facts.overrides({key: v for key, v in given.items() if v is not None})
    config, folder = facts.train_config(None, str(data), Path(out), overrides, resume=resume)
    return pipeline.train(config, folder, resume=resume)


def profile(
    device: str,
    *,
    run: RunFolder | AnyPath | None = None,
    space: str | None = None,
    classes: int | None = None,
    out: AnyPath | None = None,
) -> str:
    """Measure this machine for a run's or a space's children; returns the report.

    Raises:
        MeasurementRefused: The machine is too busy for honest figures.
    """
    opened = None if run is None else _opened(run)
    path = None if out is None else Path(out)
    return pipeline.profile(device, run=opened, space=space, classes=classes, out=path)[1]


def search(
    run: RunFolder | AnyPath,
    device: str,
    *,
    latency: Limit = None,
    params: Limit = None,
    macs: Limit = None,
    size: Limit = None,
    evaluations: int | None = None,
    strategy: str | None = None,
) -> list[Answer]:
    """Search a run's children on a device; returns the Pareto front, fastest first.

    Raises:
        InfeasibleBudget: The smallest child breaks a budget.
        TableError: There is no latency table for the device yet.
    """
    budgets = budgets_of(latency, params, macs, size)
    opened = _opened(run)
    return pipeline.search(opened, device, budgets, evaluations=evaluations, strategy=strategy)


def query(
    run: RunFolder | AnyPath,
    device: str,
    *,
    latency: Limit = None,
    params: Limit = None,
    macs: Limit = None,
    size: Limit = None,
) -> Answer:
    """The best evaluated child whose latency bound and counts keep all budgets.

    Raises:
        InfeasibleBudget: There is none.
    """
    return pipeline.query(_opened(run), device, budgets_of(latency, params, macs, size))[0][0]


def export(
    run: RunFolder | AnyPath,
    out: AnyPath,
    *,
    device: str | None = None,
    latency: Limit = None,
    params: Limit = None,
    macs: Limit = None,
    size: Limit = None,
    genotype: str | None = None,
) -> dict[str, Any]:
    """Write the best child within the budgets, or `genotype`, as a verified ONNX file.

    Returns:
        The manifest: accuracy of the file on the test split, latency, parity, settings.

    Raises:
        ExportMismatch: The file does not compute what the child computes; nothing is written.
    """
    budgets = budgets_of(latency, params, macs, size)
    return delivery.export(
        _opened(run), Path(out), device_name=device, budgets=budgets, genotype=genotype
    )


def verify(folder: AnyPath, device: str | None = None) -> dict[str, Any]:
    """Recheck an exported folder: hashes, stored outputs, latency.

    Raises:
        ExportMismatch: A file was changed, or computes something else here.
    """
    return delivery.verify(Path(folder), device)


def _opened(run: RunFolder | AnyPath) -> RunFolder:
    return run if isinstance(run, RunFolder) else open_run(Path(run))
