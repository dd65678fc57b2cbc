"""The demonstration: the main flow on handwritten digits, three children at three budgets."""

from math import ceil, floor, log, log10, sqrt
from pathlib import Path
from typing import Any

from elastic_nas import delivery, pipeline, profiling
from elastic_nas.budgets import Budgets, format_duration, format_size
from elastic_nas.cli import texts
from elastic_nas.cli.tables import columns, paragraph
from elastic_nas.errors import InfeasibleBudget, MeasurementRefused, RunFolderError
from elastic_nas.files import write_atomic, write_json
from elastic_nas.progress import say
from elastic_nas.query import Answer
from elastic_nas.run_file import read_run_file, recipe
from elastic_nas.run_images import images_of
from elastic_nas.runs import RunFolder
from elastic_nas.scoring import score
from elastic_nas.training.checkpoint import read_progress

DEVICE = "local-ort-1t"
FALLBACK = "x86-epyc-avx512-ort-1t"
"""A device with a shipped table, for a machine too busy to be profiled."""

MARK, RESULT = ".demo", "demo.json"
"""A folder is a demonstration's that has the first; those of 0.1.0 have only the second."""

RAISE = 1.1
RAISES = 10
"""A budget that this machine does not keep is raised by a tenth, this many times at most."""


def run_demo(folder: Path) -> str:
    """Train, profile, search, export three children; returns the closing table.

    What an earlier, interrupted demonstration finished in `folder` is kept.

    Raises:
        ElasticNasError: The folder holds another run or other files, or cannot be written.
    """
    _claim(folder)
    say("1/4 training a supernet on handwritten digits (8x8 scans)")
    run = _trained(folder)
    say("2/4 profiling this machine")
    device = _profiled(run)
    say("3/4 searching")
    front = pipeline.search(run, device, Budgets())
    say("4/4 exporting three children")
    manifests = [
        _exported(run, folder / f"child-{number}", device, latency_ms)
        for number, latency_ms in enumerate(_budgets(front), 1)
    ]
    ends = _ends(run)
    write_json(folder / RESULT, {"device": device, "ends": ends, "children": manifests})
    return _closing(folder, manifests, ends)


def _claim(folder: Path) -> None:
    """Take a folder that is empty, or an earlier demonstration's.

    Raises:
        RunFolderError: It holds something else, which would be searched and exported into.
    """
    if any((folder / known).is_file() for known in (MARK, RESULT)):
        return
    held = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    visible = [name for name in held if name[0] != "."]
    if visible:
        raise RunFolderError(
            f"{folder} holds {visible[0]!r}, which no demonstration wrote; choose another folder "
            "with --out."
        )
    write_atomic(folder / MARK, "Here elastic-nas demo goes on.\n")


def _trained(folder: Path) -> RunFolder:
    run = RunFolder(folder)
    if not run.weights.exists():
        return pipeline.train(recipe("digits"), folder)
    at = read_progress(run.weights, run.network)
    if at.step < at.steps:
        return pipeline.train(read_run_file(run.run_file), folder, resume=True)
    say("trained already.")
    return run


def _profiled(run: RunFolder) -> str:
    """The device to search on: this machine, or a shipped one where this one is too busy."""
    try:
        _, report = profiling.profile(DEVICE, profiling.Scope(run))
    except MeasurementRefused as error:
        say(f"warning: {error}\nGoing on with the shipped table of {FALLBACK}.")
        return FALLBACK
    say(report)
    return DEVICE


def _budgets(front: list[Answer]) -> list[float]:
    """Three latency budgets in ms: of the fastest and the best child of the front, and between."""
    low, high = front[0].bound_ms, front[-1].bound_ms
    inner = [answer.bound_ms for answer in front[1:-1]]
    middle = min(inner, key=lambda ms: abs(log(ms**2 / (low * high))), default=sqrt(low * high))
    return [_rounded_up(ms) for ms in (low, middle, high)]


def _exported(run: RunFolder, out: Path, device: str, latency_ms: float) -> dict[str, Any]:
    """Export within the budget, or within the least raised one that this machine keeps.

    The budgets are the demonstration's own and the first lies at the very end of the front, where
    nothing faster is left to take when the machine has slowed down since it was profiled.
    """
    for _ in range(RAISES):
        try:
            return delivery.export(
                run, out, device_name=device, budgets=Budgets(latency_ms=latency_ms)
            )
        except InfeasibleBudget as error:
            latency_ms = _rounded_up(RAISE * latency_ms)
            say(f"{error}\nGoing on with a budget of {format_duration(latency_ms)}.")
    return delivery.export(run, out, device_name=device, budgets=Budgets(latency_ms=latency_ms))


def _rounded_up(ms: float) -> float:
    """Three significant digits, not below `ms`."""
    unit = 10.0 ** (floor(log10(ms)) - 2)
    return round(ceil(ms / unit) * unit, 9)


def _ends(run: RunFolder) -> dict[str, Any]:
    """Top-1 on the test split of the supernet's two ends, calibrated like any exported child."""
    config = read_run_file(run.run_file)
    data = images_of(run, config)
    judge = pipeline.judge_of(run, config, data)
    ends = {"smallest": run.network.smallest, "largest": run.network.largest}
    return {
        name: score(judge.right(judge.child(genotype), data.test))
        for name, genotype in ends.items()
    }


def _closing(folder: Path, manifests: list[dict[str, Any]], ends: dict[str, Any]) -> str:
    rows = [_row(manifest) for manifest in manifests]
    header = ("budget", "top-1", "95 % interval", "predicted", "bounded", "measured", "file")
    n = ends["largest"]["n"]
    both = ", ".join(
        f"{name} {texts.percent(end['top1'])} ({texts.interval(*end['interval_95'])})"
        for name, end in ends.items()
    )
    device = manifests[0]["latency"]["device"]
    title = paragraph(
        "Three children as verified ONNX files; accuracy of the files on the untouched test split, "
        f"n = {n}. Latency on {device}, batch 1."
    )
    look = paragraph(
        f"Ends of the supernet on the test split: {both}. Look at {folder}/fronts/{device}.png and "
        f"{folder}/child-1/."
    )
    return f"\n{title}\n\n{columns(rows, header)}\n\n{look}"


def _row(manifest: dict[str, Any]) -> tuple[str, ...]:
    latency, accuracy = manifest["latency"], manifest["accuracy"]
    times = (latency[key] for key in ("predicted_ms", "bound_ms", "measured_ms"))
    return (
        format_duration(latency["budget_ms"]),
        texts.percent(accuracy["top1"]),
        texts.interval(*accuracy["interval_95"]),
        *("not measured" if ms is None else format_duration(ms) for ms in times),
        format_size(manifest["size_bytes"]),
    )
