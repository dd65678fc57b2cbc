"""From a run to a verified ONNX file: choose, build, time, compare, score, write."""

import time
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elastic_nas import pipeline
from elastic_nas._version import __version__
from elastic_nas.budgets import Budgets, format_duration, format_size
from elastic_nas.candidates import Candidate, candidates
from elastic_nas.errors import InfeasibleBudget
from elastic_nas.export.artefact import OWN, Artefact, check_target, write_folder
from elastic_nas.export.known_images import KnownImages
from elastic_nas.export.manifest import TRIES
from elastic_nas.export.onnx_file import (
    OLDEST_RUNTIME,
    PARITY_IMAGES,
    add_metadata,
    build,
    check_file,
    child_logits,
    logits_of,
)
from elastic_nas.export.place import repair
from elastic_nas.files import locked, sha256_of, writing
from elastic_nas.genotype import Genotype, format_genotype
from elastic_nas.latency.devices import Device
from elastic_nas.measure import Protocol, Timing, measure
from elastic_nas.network import Network
from elastic_nas.pictures import show_exported
from elastic_nas.progress import say
from elastic_nas.run_images import config_of, images_of
from elastic_nas.runs import RunFolder
from elastic_nas.scoring import Int8Form, score
from elastic_nas.targets import Target, open_target, runtime_of, this_machine

if TYPE_CHECKING:
    from elastic_nas.config import RunConfig
    from elastic_nas.data.dataset import Dataset
    from elastic_nas.training.evaluation import Judge

ADVICE = "close other programs, then elastic-nas verify FOLDER"


def export(
    run: RunFolder,
    out: Path,
    *,
    device_name: str | None = None,
    budgets: Budgets | None = None,
    genotype: str | None = None,
    table: Path | None = None,
    changes: list[str] | None = None,
) -> dict[str, Any]:
    """Write the best child within the budgets as a verified ONNX file with its papers.

    Args:
        run: A searched run.
        out: The folder to write; whole or not at all.
        device_name: The device whose latency is bounded and, where this machine is it, measured.
        budgets: What the child must keep; the measured latency too, where it is measured.
        genotype: This very child instead, in text form.
        table: A latency table to use.
        changes: ``key=value`` changes of the run file, see `run_images.config_of`.

    Returns:
        The manifest.

    Raises:
        ExportMismatch: The file does not compute what the child computes; nothing is written.
        InfeasibleBudget: No child keeps the budgets, predicted or measured.
    """
    config = config_of(run, changes)
    repair(out, OWN)
    check_target(out)
    target = None
    if device_name is not None:
        target = open_target(run.network, device_name, table=table, run=run)
        for note in target.notes:
            say(f"note: {note}.")
    budgets = budgets or Budgets()
    chosen = candidates(run, target, budgets, genotype)
    with writing(out), locked(run.path):
        return _export_first(_Maker(run, config), out, target, budgets, chosen)


def _export_first(
    maker: "_Maker",
    out: Path,
    target: Target | None,
    budgets: Budgets,
    chosen: list[Candidate],
) -> dict[str, Any]:
    """Export the first candidate that keeps the budgets when measured."""
    run = maker.run
    refused: list[str] = []
    for candidate in chosen[:TRIES]:
        child = maker.judge.child(candidate.genotype, maker.calibration)
        model = build(child, maker.data.preprocess.mean, maker.data.preprocess.std)
        form = maker.int8_form(model.SerializeToString(), child.resolution, target)
        latency = _latency(model.SerializeToString(), child.resolution, candidate, target, form)
        measured, limit = latency["measured_ms"], budgets.latency_ms
        if measured is not None and limit is not None and measured > limit:
            refused.append(format_duration(measured))
            say(
                f"child {format_genotype(candidate.genotype)} was measured at {refused[-1]}, over "
                f"the budget of {format_duration(limit)}; trying the next child on the front."
            )
            continue
        latency["budget_ms"], latency["passed_over"] = limit, refused
        int8 = None if form is None else form.score(maker.data, child.resolution)
        artefact = maker.artefact(child, model, {"latency": latency, "int8": int8}, candidate)
        if target is None or target.device.precision != "int8":  # else the file is made later
            _check_size(len(artefact.model), budgets)
        manifest = write_folder(artefact, out).plain()
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
    model: bytes,
    resolution: int,
    candidate: Candidate,
    target: Target | None,
    form: Int8Form | None,
) -> dict[str, Any]:
    """Predicted, bounded and, where this machine is the device, measured, side by side."""
    predicted, bound = candidate.predicted_ms, candidate.bound_ms
    facts: dict[str, Any] = {
        "device": target.device.name if target else None,
        "predicted_ms": predicted,
        "bound_ms": None if predicted is None or bound is None else max(predicted, bound),
        "bound_level": 0.95,
        "measured_ms": None,
        "note": "no device was named" if target is None else "",
    }
    if target is None:
        return facts
    facts |= {"table_sha256": target.table_sha256, "speed": target.predictor.speed}
    facts["notes"] = [*target.notes, *target.remarks]
    if not target.is_here:
        facts["note"] = f"not measured on {target.device.name}: this machine is another"
        return facts
    facts["machine"] = this_machine(target.device)
    facts |= time_file(model, resolution, target.device, None if form is None else form.model)
    return _raised(facts)


def _raised(latency: dict[str, Any]) -> dict[str, Any]:
    """The same, with a bound that the child keeps: one in twenty takes longer than its bound."""
    measured, bound = latency["measured_ms"], latency["bound_ms"]
    if measured is None or bound is None or measured <= bound:
        return latency
    note = (
        f"bounded at {format_duration(bound)} by the table, but measured above it: the bound was "
        "raised to what was measured"
    )
    return {**latency, "bound_ms": measured, "note": note}


def time_file(
    model: bytes, resolution: int, device: Device, converted: bytes | None = None
) -> dict[str, Any]:
    """Time a file on this machine with the protocol of the tables; a busy machine gives a note.

    Args:
        model: The fp32 file.
        resolution: Of its input.
        device: Its runtime, threads and precision.
        converted: What the runtime runs, where it was made already.
    """
    runtime, shape = runtime_of(device), (3, resolution, resolution)
    made = runtime.prepare(model, shape) if converted is None else runtime.load(converted, shape)
    found = measure({"child": made}, Protocol(), owns_threads=runtime.owns_threads)
    timing: Timing = found["child"]
    if timing.refused:
        say(f"warning: the file's latency was not measured: {timing.refused}. To do: {ADVICE}.")
        note = f"not measured: {timing.refused}"
        contended = timing.contended_p90 if isfinite(timing.contended_p90) else None
        return {"measured_ms": None, "contended_p90_ms": contended, "note": note}
    spread = {"p10_ms": timing.p10, "p90_ms": timing.p90, "n": timing.n, "accept": timing.accept}
    return {"measured_ms": timing.ms, **spread}


class _Maker:
    """What all children of a run are delivered with: data, weights, calibration."""

    def __init__(self, run: RunFolder, config: "RunConfig") -> None:
        from elastic_nas.training.evaluation import some

        self.run, self.config = run, config
        command = f"elastic-nas export {run.path} ..."
        self.data: Dataset = images_of(run, config, command=command)
        self.judge: Judge = pipeline.judge_of(run, self.config, self.data)
        self.calibration = some(self.data.train, self.config.search.export_calibration_images)

    def int8_form(self, model: bytes, resolution: int, target: Target | None) -> Int8Form | None:
        """What an int8 device runs; see `Int8Form.of`."""
        return None if target is None else Int8Form.of(model, target.device, self.data, resolution)

    def artefact(
        self, child: Any, model: Any, figures: dict[str, Any], known: Candidate
    ) -> Artefact:
        """Check the file against the child on real images, score it on the test split.

        Args:
            child: The PyTorch child.
            model: Its ONNX model, which is given metadata.
            figures: What the manifest says of latency and of an int8 form.
            known: What was known of the child before.
        """
        from elastic_nas.training.evaluation import some
        from elastic_nas.training.step import normalise

        preprocess = self.data.preprocess
        test = self.data.readable(self.data.test, child.resolution)
        validation, train = self.data.validation, self.data.train
        enough = len(validation) >= PARITY_IMAGES
        sample = some(validation if enough else train, PARITY_IMAGES)
        sample = self.data.readable(sample, child.resolution)
        pixels = sample.deployed(preprocess, child.resolution)
        x = normalise(_tensor(pixels), preprocess.mean, preprocess.std)
        expected = child_logits(child.cpu(), x)
        bare = model.SerializeToString()
        answers = logits_of(bare, test.deployed(preprocess, child.resolution)).argmax(1)
        accuracy = score(answers == test.labels)
        facts = {**self._facts(known.genotype), "accuracy": accuracy, **figures}
        facts["test_sha256"] = test.sha256
        facts = {key: value for key, value in facts.items() if value is not None}
        facts["search_validation"] = known.validation
        add_metadata(model, _metadata(facts, self.run.labels))
        data = model.SerializeToString()
        facts["parity"] = check_file(data, expected, pixels)
        facts["size_bytes"] = len(data)
        images = KnownImages.of(self.data.record, test)
        return Artefact(data, self.run.labels, pixels, expected, facts, images)

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
            "calibration_images": len(self.judge.readable(self.calibration)),
            "oldest_runtime": OLDEST_RUNTIME,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seed": self.config.seed,
            "statistics": self.config.statistics,
            **_of_images(self.data),
        }


def _of_images(data: "Dataset") -> dict[str, Any]:
    """What the figures are of, and what the pixels mean where that is known."""
    head, counts = data.record.head, data.record.counts
    splits = {"train": data.train, "search-validation": data.validation, "test": data.test}
    used = {side.replace("-", "_"): len(split) for side, split in splits.items()}
    before = {side.replace("-", "_"): n for side, n in counts.items()}
    images = {
        "used": used,
        "missing": {side: before[side] - n for side, n in used.items()},
        "left_out": dict(head.left_out),
        "copies": dict(head.copies),
    }
    if head.bits is None and head.bands is None:
        return {"images": images}
    return {"images": images, "reading": {"bits": head.bits, "bands": head.bands}}


def _metadata(facts: dict[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """What travels inside the ONNX file."""
    keys = (
        "task", "genotype", "settings", "accuracy", "int8", "latency", "data", "preprocess",
        "created",
    )  # fmt: skip
    names = {str(index): label for index, label in enumerate(labels)}
    extra = {"names": names, "image_size": facts["resolution"], "space": facts["space"]}
    producer = {"producer": f"elastic-nas {__version__}", "oldest_runtime": OLDEST_RUNTIME}
    return {**{key: facts[key] for key in keys if key in facts}, **extra, **producer}


def _tensor(pixels: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(pixels))
