"""From a run to a verified ONNX file: choose, build, time, compare, score, write; and recheck."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elastic_nas import pipeline
from elastic_nas._version import __version__
from elastic_nas.budgets import Budgets, format_duration, format_size
from elastic_nas.candidates import Candidate, candidates
from elastic_nas.errors import InfeasibleBudget, UnknownName
from elastic_nas.export.artefact import (
    MODEL,
    Artefact,
    check_target,
    read_manifest,
    verify_files,
    write_folder,
)
from elastic_nas.export.onnx_file import (
    OLDEST_RUNTIME,
    PARITY_IMAGES,
    add_metadata,
    build,
    check_file,
    child_logits,
    logits_of,
)
from elastic_nas.files import locked, sha256_of
from elastic_nas.genotype import Genotype, format_genotype
from elastic_nas.intervals import wilson
from elastic_nas.latency.devices import Device, load_device
from elastic_nas.measure import Protocol, Timing, measure
from elastic_nas.network import Network
from elastic_nas.pictures import show_exported
from elastic_nas.progress import say
from elastic_nas.runs import RunFolder
from elastic_nas.targets import Target, open_target, runtime_of, this_machine

if TYPE_CHECKING:
    from elastic_nas.data.dataset import Dataset
    from elastic_nas.training.evaluation import Judge

TRIES = 5
"""Children to time before a budget is given up."""

ADVICE = "close other programs, then elastic-nas verify FOLDER"


def export(
    run: RunFolder,
    out: Path,
    *,
    device_name: str | None = None,
    budgets: Budgets | None = None,
    genotype: str | None = None,
    table: Path | None = None,
) -> dict[str, Any]:
    """Write the best child within the budgets as a verified ONNX file with its papers.

    Args:
        run: A searched run.
        out: The folder to write; whole or not at all.
        device_name: The device whose latency is bounded and, where this machine is it, measured.
        budgets: What the child must keep; the measured latency too, where it is measured.
        genotype: This very child instead, in text form.
        table: A latency table to use.

    Returns:
        The manifest.

    Raises:
        ExportMismatch: The file does not compute what the child computes; nothing is written.
        InfeasibleBudget: No child keeps the budgets, predicted or measured.
    """
    check_target(out)
    target = None
    if device_name is not None:
        target = open_target(run.network, device_name, table=table, run=run)
        for note in target.notes:
            say(f"note: {note}.")
    budgets = budgets or Budgets()
    chosen = candidates(run, target, budgets, genotype)
    with locked(run.path):
        return _export_first(run, out, target, budgets, chosen)


def _export_first(
    run: RunFolder,
    out: Path,
    target: Target | None,
    budgets: Budgets,
    chosen: list[Candidate],
) -> dict[str, Any]:
    """Export the first candidate that keeps the budgets when measured."""
    maker = _Maker(run)
    refused: list[str] = []
    for candidate in chosen[:TRIES]:
        child = maker.judge.child(candidate.genotype, maker.calibration)
        model = build(child, maker.data.preprocess.mean, maker.data.preprocess.std)
        latency = _latency(model.SerializeToString(), child.resolution, candidate, target)
        measured, limit = latency["measured_ms"], budgets.latency_ms
        if measured is not None and limit is not None and measured > limit:
            refused.append(format_duration(measured))
            say(
                f"child {format_genotype(candidate.genotype)} was measured at {refused[-1]}, over "
                f"the budget of {format_duration(limit)}; trying the next child on the front."
            )
            continue
        latency["budget_ms"], latency["passed_over"] = limit, refused
        artefact = maker.artefact(candidate.genotype, child, model, latency, candidate)
        if target is None or target.device.precision != "int8":  # else the file is made later
            _check_size(len(artefact.model), budgets)
        write_folder(artefact, out)
        manifest = read_manifest(out)
        if target is not None and candidate.validation is not None:
            show_exported(run, target, pipeline.searched_rows(run), manifest)
        return manifest
    raise InfeasibleBudget(
        f"none of the {len(refused)} best children kept {budgets} when measured here "
        f"({', '.join(refused)}). Raise --latency, or profile this machine again: its table may "
        "no longer hold."
    )


def _check_size(size_bytes: int, budgets: Budgets) -> None:
    """The estimate that children are chosen by allows for class names of ordinary length."""
    if budgets.size_bytes is not None and size_bytes > budgets.size_bytes:
        raise InfeasibleBudget(
            f"the file has {format_size(size_bytes)}, over {budgets}: the names of the classes are "
            "longer than was allowed for. Raise --size, or shorten them."
        )


def _latency(
    model: bytes, resolution: int, candidate: Candidate, target: Target | None
) -> dict[str, Any]:
    """Predicted, bounded and, where this machine is the device, measured, side by side."""
    facts: dict[str, Any] = {
        "device": target.device.name if target else None,
        "predicted_ms": candidate.predicted_ms,
        "bound_ms": candidate.bound_ms,
        "bound_level": 0.95,
        "measured_ms": None,
        "note": "no device was named" if target is None else "",
    }
    if target is None:
        return facts
    facts["table_sha256"] = target.table_sha256
    facts["notes"] = [*target.notes, *target.remarks]
    if not target.is_here:
        facts["note"] = f"not measured on {target.device.name}: this machine is another"
        return facts
    facts["machine"] = this_machine(target.device)
    return {**facts, **time_file(model, resolution, target.device)}


def time_file(model: bytes, resolution: int, device: Device) -> dict[str, Any]:
    """Time a file on this machine with the protocol of the tables; a busy machine gives a note."""
    runtime = runtime_of(device)
    run = runtime.prepare(model, (3, resolution, resolution))
    timing: Timing = measure({"child": run}, Protocol(), owns_threads=runtime.owns_threads)["child"]
    if timing.refused:
        say(f"warning: the file's latency was not measured: {timing.refused}. To do: {ADVICE}.")
        note = f"not measured: {timing.refused}"
        return {"measured_ms": None, "contended_p90_ms": timing.contended_p90, "note": note}
    spread = {"p10_ms": timing.p10, "p90_ms": timing.p90, "n": timing.n, "accept": timing.accept}
    return {"measured_ms": timing.ms, **spread}


class _Maker:
    """What all children of a run are delivered with: data, weights, calibration."""

    def __init__(self, run: RunFolder) -> None:
        from elastic_nas.data.dataset import load_dataset
        from elastic_nas.run_file import read_run_file
        from elastic_nas.training.evaluation import some

        self.run, self.config = run, read_run_file(run.run_file)
        self.data: Dataset = load_dataset(
            self.config.data, self.config.seed, self.config.statistics
        )
        self.judge: Judge = pipeline.judge_of(run, self.config, self.data)
        self.calibration = some(self.data.train, self.config.search.export_calibration_images)

    def artefact(
        self, genotype: Genotype, child: Any, model: Any, latency: dict[str, Any], known: Candidate
    ) -> Artefact:
        """Check the file against the child on real images, score it on the test split."""
        from elastic_nas.training.evaluation import some
        from elastic_nas.training.step import normalise

        preprocess, test = self.data.preprocess, self.data.test
        validation, train = self.data.validation, self.data.train
        enough = len(validation) >= PARITY_IMAGES
        sample = some(validation if enough else train, PARITY_IMAGES)
        pixels = sample.deployed(preprocess, child.resolution)
        x = normalise(_tensor(pixels), preprocess.mean, preprocess.std)
        expected = child_logits(child.cpu(), x)
        bare = model.SerializeToString()
        answers = logits_of(bare, test.deployed(preprocess, child.resolution)).argmax(1)
        accuracy = score(answers == test.labels)
        facts = {**self._facts(genotype), "accuracy": accuracy, "latency": latency}
        facts["search_validation"] = known.validation
        add_metadata(model, _metadata(facts, self.data.labels))
        data = model.SerializeToString()
        facts["parity"] = check_file(data, expected, pixels)
        facts["size_bytes"] = len(data)
        return Artefact(data, self.data.labels, pixels, expected, facts)

    def _facts(self, genotype: Genotype) -> dict[str, Any]:
        network: Network = self.run.network
        return {
            "task": network.task_name,
            "space": network.space_name,
            "genotype": format_genotype(genotype),
            "settings": network.settings(genotype),
            "macs": network.macs(genotype),
            "params": network.params(genotype),
            "classes": network.classes,
            "data": self.data.name,
            "preprocess": self.data.preprocess.describe(),
            "resolution": network.resolution(genotype),
            "weights_sha256": sha256_of(self.run.weights),
            "calibration_images": len(self.calibration),
            "oldest_runtime": OLDEST_RUNTIME,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def score(right: Any) -> dict[str, Any]:
    """Top-1 on the test split with the number of images and the 95 % Wilson interval."""
    k, n = int(right.sum()), len(right)
    low, high = wilson(k, n)
    return {"top1": k / n, "split": "test", "n": n, "interval_95": [low, high]}


def _metadata(facts: dict[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """What travels inside the ONNX file."""
    keys = ("task", "genotype", "settings", "accuracy", "latency", "data", "preprocess", "created")
    names = {str(index): label for index, label in enumerate(labels)}
    extra = {"names": names, "image_size": facts["resolution"], "space": facts["space"]}
    producer = {"producer": f"elastic-nas {__version__}", "oldest_runtime": OLDEST_RUNTIME}
    return {**{key: facts[key] for key in keys}, **extra, **producer}


def _tensor(pixels: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(pixels))


def verify(folder: Path, device_name: str | None = None) -> dict[str, Any]:
    """Recheck an exported folder: hashes, stored outputs, and the latency where it can be timed.

    Args:
        folder: What `export` wrote.
        device_name: Time the file on this machine as that profile says. By default it is timed
            where this machine is the one that the child was chosen for.

    Returns:
        Parity figures, and latency predicted, bounded and measured.

    Raises:
        ExportMismatch: A file was changed, or computes something else here.
        RunFolderError: The folder is no export.
    """
    manifest = read_manifest(folder)
    parity = verify_files(folder)
    latency = {**manifest["latency"], "measured_ms": None}
    name = device_name or latency["device"]
    if name is None:
        latency["note"] = "not measured: the child was chosen for no device; name one with --device"
    else:
        latency.update(_timed_again(folder, manifest, name, asked=device_name is not None))
    return {"folder": str(folder), "parity": parity, "latency": latency}


def _timed_again(
    folder: Path, manifest: dict[str, Any], device_name: str, *, asked: bool
) -> dict[str, Any]:
    try:
        device = load_device(device_name)
    except UnknownName:
        if asked:
            raise
        return {"note": f"not measured: no hardware profile {device_name!r} here; see --device"}
    here = this_machine(device)
    same = manifest["latency"].get("machine") == here
    if not same and not (asked and device.generic):
        note = f"not measured on {device.name}: this machine is another"
        return {"device": device.name, "note": note}
    model = (folder / MODEL).read_bytes()
    figures = time_file(model, int(manifest["resolution"]), device)
    note = "" if same else "measured on another machine than the child was chosen for"
    return {"device": device.name, "machine": here, "note": note, **figures}
