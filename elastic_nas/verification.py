"""The recheck of an exported folder: what is recomputed here, what agrees, what is only claimed.

A manifest is a stranger's word. Each figure of it is told as one of three: *recomputed here*, from
the files, the space's description, the table or images; *agrees with the file*, whose own metadata
say the same; or *claimed*. One that disagrees with what was found, or that cannot be, is a fault.
"""

from pathlib import Path
from typing import Any

import numpy as np

from elastic_nas.delivery import time_file
from elastic_nas.errors import (
    ElasticNasError,
    ExportMismatch,
    UnknownName,
    UntrustedCode,
)
from elastic_nas.export.artefact import Contents, label_lines, read_folder
from elastic_nas.export.inspect_onnx import Inspected, inspect
from elastic_nas.export.manifest import INPUT, MANIFEST, MODEL, Manifest
from elastic_nas.export.onnx_file import compare, logits_of
from elastic_nas.files import sha256_of
from elastic_nas.findings import AGREES, CLAIMED, RECOMPUTED, Findings, differing, short
from elastic_nas.genotype import Genotype, format_genotype, parse_genotype
from elastic_nas.latency.devices import Device, load_device, named_device, table_places
from elastic_nas.latency.drift import MAX_DRIFT
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.table import LatencyTable
from elastic_nas.network import Network
from elastic_nas.nn.onnx_writer import IR_VERSION
from elastic_nas.outside import parse_json
from elastic_nas.rescored_images import source_of
from elastic_nas.rescoring import hold_images, scored_again
from elastic_nas.scoring import takes_images
from elastic_nas.targets import runtime_of, this_machine

SLOWER = 3.0
"""Times its bound that a child may take when it is measured again on the very machine: work on
the other half of a core was seen to slow all down 1.9 times, without a sample being disturbed."""
CLOSE = 1e-3
"""Relative difference at which two latencies from one table are the same."""
MOST_MACS = 2 * 10**12
"""Of all stored images together: minutes on one core."""
IN_FILE = {
    "task": "task", "space": "space", "genotype": "genotype", "settings": "settings",
    "accuracy": "accuracy", "int8": "int8", "latency": "latency", "data": "data",
    "preprocess": "preprocess", "created": "created", "oldest_runtime": "oldest_runtime",
    "image_size": "resolution",
}  # fmt: skip
"""Keys of the file's own metadata, and of the manifest's that must say the same."""
PLAIN = {"task", "space", "genotype", "data", "created", "oldest_runtime", "producer"}
"""Metadata that is text; the rest is JSON."""


def verify(
    folder: Path,
    device_name: str | None = None,
    data: str | None = None,
    settings: list[str] | None = None,
) -> dict[str, Any]:
    """Recheck an exported folder, as far as this machine can; nothing in it runs as code.

    Args:
        folder: What `delivery.export` wrote.
        device_name: Time the file on this machine as that profile says. By default it is timed
            where this machine is the one that the child was chosen for.
        data: Images as for `data.dataset.load_dataset`: the accuracy is recomputed on those of them
            that the child was scored on, or on their test split where they are others.
        settings: How they are read: ``data.missing=accept`` and other keys of that section.

    Returns:
        ``figures``, each with its value, how it is known and a note; ``parity``; ``accuracy`` and
        ``latency`` as found here.

    Raises:
        ExportMismatch: A file was changed or computes something else here, or the manifest says
            what disagrees or cannot be.
        RunFolderError: The folder is no export.
        ConfigError: The images are of other classes, or too many are missing; a setting is wrong.
        DataError: The images cannot be used.
    """
    contents = read_folder(folder)
    manifest, findings = contents.manifest, Findings()
    source = source_of(manifest, data, settings or [])
    graph = inspect(contents.model, str(folder / MODEL))
    findings.tell("hashes", f"{len(manifest.files)} files unchanged", RECOMPUTED)
    findings.faults += manifest.faults()
    _hold_graph(findings, contents, graph)
    _hold_metadata(findings, contents, graph)
    hold_images(findings, contents)
    parity = _parity(findings, contents, graph, folder)
    network, genotype = _hold_description(findings, manifest, graph, folder)
    if network is not None and genotype is not None:
        _hold_prediction(findings, manifest, network, genotype)
    findings.settle(folder)
    device = _device(manifest.latency.device, device_name)
    accuracy = None
    if source is not None:
        known = None if isinstance(device, str) else device
        accuracy = scored_again(findings, contents, source, known)
    findings.settle(folder)
    latency = _timed_again(findings, contents, device, asked=device_name is not None)
    findings.settle(folder)
    _tell_rest(findings, manifest, graph)
    figures = [{"name": name, **row} for name, row in findings.rows.items()]
    found = {"parity": parity, "accuracy": accuracy, "latency": latency}
    return {"folder": str(folder), "verified": True, "figures": figures, **found}


# --- from the files ------------------------------------------------------------------------------


def _hold_graph(findings: Findings, contents: Contents, graph: Inspected) -> None:
    """What the file's graph says itself."""
    manifest, where = contents.manifest, "the file's graph"
    findings.hold("size_bytes", manifest.size_bytes, len(contents.model), "the file has")
    findings.hold("resolution", manifest.resolution, graph.resolution, where)
    findings.hold("classes", manifest.classes, graph.classes, where)
    findings.hold("macs", manifest.macs, graph.macs, where)
    lines = len(contents.labels.splitlines())
    ended = contents.labels.endswith("\n") and contents.labels.count("\n") == lines
    if lines != graph.classes or not ended:
        findings.faults.append(
            f"labels: labels.txt has {lines} lines, the file's graph {graph.classes} outputs"
        )
    deployed = manifest.deployed
    for name in ("mean", "std"):
        claimed, found = getattr(deployed, name), getattr(graph, name)
        if found is not None and np.allclose(claimed, found, rtol=1e-4, atol=1e-5):
            findings.tell(f"normalisation ({name})", list(claimed), RECOMPUTED)
        else:
            findings.differ(f"preprocess.{name}", claimed, f"{where} {short(found)}")


def _hold_metadata(findings: Findings, contents: Contents, graph: Inspected) -> None:
    """What the file says of itself beside its graph."""
    manifest = contents.manifest.plain()
    for key, text in graph.metadata.items():
        try:
            value = text if key in PLAIN else parse_json(text)
        except ValueError as error:
            findings.faults.append(f"{key}: the file's metadata are no JSON ({error})")
            continue
        name = IN_FILE.get(key, "")
        if name and value != manifest.get(name):
            other = differing(manifest.get(name), value)
            findings.faults.append(f"{name}{other}")
        elif name:
            findings.tell(name, value, AGREES)
        elif key == "names":
            _hold_names(findings, contents, value)
        elif key == "producer" and value == f"elastic-nas {manifest['version']}":
            findings.tell("version", manifest["version"], AGREES)
        elif key == "producer":
            findings.differ("version", manifest["version"], f"the file {short(value)}")


def _hold_names(findings: Findings, contents: Contents, names: Any) -> None:
    ordered = list(names.values()) if isinstance(names, dict) else []
    sound = all(type(name) is str for name in ordered)
    sound = sound and list(names) == [str(index) for index in range(len(ordered))]
    if sound and label_lines(ordered) == contents.labels:
        findings.tell("labels", len(ordered), AGREES)
    else:
        findings.faults.append("labels: labels.txt and the names in the file's metadata differ")


def _parity(
    findings: Findings, contents: Contents, graph: Inspected, folder: Path
) -> dict[str, float] | None:
    """The stored outputs, computed again from the stored images."""
    images = len(contents.pixels)
    claimed = contents.manifest.parity.images
    if images != claimed:
        findings.differ("parity.images", claimed, f"{INPUT} has {images}")
    if images * graph.macs > MOST_MACS:
        findings.faults.append(f"{INPUT}: {images} images would take too long to compute")
    if findings.faults:
        return None
    try:
        logits = logits_of(contents.model, contents.pixels)
        parity = compare(contents.logits, logits, str(folder / MODEL))
    except ExportMismatch as error:
        findings.faults.append(f"parity: {error}")
        return None
    then = contents.manifest.parity.max_difference
    note = "" if parity["max_difference"] == then else f"at the export it was {then:.0e}"
    findings.tell("parity", parity, RECOMPUTED, note)
    return parity


# --- from the space's description, and from the table ---------------------------------------------


def _hold_description(
    findings: Findings, manifest: Manifest, graph: Inspected, folder: Path
) -> tuple[Network | None, Genotype | None]:
    """What the space's description says of the genotype, and whether the graph is such a child."""
    try:
        place = str(folder / MANIFEST)
        network = Network(manifest.space, manifest.classes, manifest.task, place)
        genotype = parse_genotype(network.dims, manifest.genotype)
        blocks = network.blocks(genotype)
    except (UnknownName, UntrustedCode) as error:
        note = f"the space is not known here: {str(error).splitlines()[0]}"
        for name in ("genotype", "settings", "params"):
            findings.tell(name, getattr(manifest, name), CLAIMED, note)
        return None, None
    except ElasticNasError as error:
        findings.faults.append(f"genotype: {error}")
        return None, None
    where = f"{network.space_name} has for this genotype"
    weights = sum(spec.costs.weights for spec in blocks)
    findings.hold("genotype", manifest.genotype, format_genotype(genotype), "its plain form is")
    findings.hold("settings", manifest.settings, network.settings(genotype), where)
    findings.hold("params", manifest.params, network.params(genotype), where)
    for name, of_graph, of_child in (
        ("MACs", graph.macs, network.macs(genotype)),
        ("weights", graph.weights, weights),
        ("resolution", graph.resolution, network.resolution(genotype)),
    ):
        if of_graph != of_child:
            findings.faults.append(
                f"genotype: the file's graph has {of_graph:,} {name}, {where} {of_child:,}"
            )
    findings.tell("weights", graph.weights, RECOMPUTED)
    return network, genotype


def _hold_prediction(
    findings: Findings, manifest: Manifest, network: Network, genotype: Genotype
) -> None:
    """Predicted and bounded latency, where the table they came from is here."""
    latency = manifest.latency
    speed = latency.speed or 1.0
    if latency.predicted_ms is None or latency.bound_ms is None or not _is_speed(findings, speed):
        return
    table = _table(manifest)
    if isinstance(table, str):
        findings.tell("predicted_ms", latency.predicted_ms, CLAIMED, table)
        findings.tell("bound_ms", latency.bound_ms, CLAIMED, table)
        return
    try:
        predictor = Predictor(network, table).told(speed=speed)
        predicted = float(predictor.predict_ms(np.array([genotype]))[0])
        bound = float(predictor.bound_ms(np.array([genotype]))[0])
    except ElasticNasError as error:
        findings.faults.append(f"latency: its table does not tell of this child: {error}")
        return
    if abs(latency.predicted_ms / predicted - 1) > CLOSE:
        found = f"its table {predicted:.6g} ms"
        if latency.speed is not None:
            findings.differ("predicted_ms", f"{latency.predicted_ms:.6g} ms", found)
        note = f"{found}; the manifest does not say at what speed of the machine it was told"
        findings.tell("predicted_ms", latency.predicted_ms, CLAIMED, note)
        findings.tell("bound_ms", latency.bound_ms, CLAIMED, note)
        return
    at = f"at {latency.speed:.3f} times the table's latencies" if latency.speed else ""
    findings.tell(
        "predicted_ms", latency.predicted_ms, RECOMPUTED, at if at[3:8] != "1.000" else ""
    )
    if latency.bound_ms < bound * (1 - CLOSE):
        findings.differ("bound_ms", f"{latency.bound_ms:.6g} ms", f"its table {bound:.6g} ms")
    elif latency.bound_ms > bound * (1 + CLOSE):
        note = f"higher than its table alone says, {bound:.4g} ms"
        findings.tell("bound_ms", latency.bound_ms, CLAIMED, note)
    else:
        findings.tell("bound_ms", latency.bound_ms, RECOMPUTED)


def _is_speed(findings: Findings, speed: float) -> bool:
    """Whether a table that was checked can have been found at this speed; else it is a fault."""
    if abs(speed - 1) <= MAX_DRIFT * (1 + CLOSE):
        return True
    findings.faults.append(
        f"speed: the manifest says {speed:.3g} times the table's latencies, but beyond "
        f"{MAX_DRIFT:.0%} a table does not hold"
    )
    return False


def _table(manifest: Manifest) -> LatencyTable | str:
    """The very table that a manifest names by its hash, or why it cannot be had."""
    latency = manifest.latency
    if latency.device is None or latency.table_sha256 is None:
        return "the manifest names no table"
    try:
        places = table_places(named_device(latency.device))
    except UnknownName:
        return f"no hardware profile {latency.device!r} here"
    for place in places:
        if place.is_file() and sha256_of(place) == latency.table_sha256:
            return LatencyTable.read(place)
    return "the table is not here: not in the per-user folder, not among those shipped"


# --- from the stop-watch --------------------------------------------------------------------------


def _timed_again(
    findings: Findings, contents: Contents, device: Device | str, *, asked: bool
) -> dict[str, Any]:
    """Latency as claimed, and as measured here if this machine is the device, or if asked."""
    claimed = contents.manifest.latency
    latency = {**contents.manifest.plain()["latency"], "measured_ms": None}
    if isinstance(device, str):
        return {**latency, "note": device}
    here = this_machine(device)
    same = claimed.machine is not None and claimed.machine.model_dump() == here
    same = same and device.name == claimed.device
    if not same and not (asked and device.generic):
        note = f"not measured on {device.name}: this machine is another"
        return {**latency, "device": device.name, "note": note}
    manifest = contents.manifest
    form = _converted(contents, device)
    figures = time_file(contents.model, manifest.resolution, device, form)
    measured = figures["measured_ms"]
    if same and measured is not None and claimed.bound_ms is not None:
        if measured > claimed.bound_ms:
            latency["note"] = (
                "measured above its bound: the machine is slower now than when its table was made, "
                "or the bound is not true; elastic-nas profile --check tells which"
            )
        if measured > SLOWER * claimed.bound_ms:
            bound = f"{claimed.bound_ms:.4g} ms"
            findings.differ(
                "bound_ms", bound, f"measured again on the very machine {measured:.4g} ms"
            )
        before = "" if claimed.measured_ms is None else f"it was {claimed.measured_ms:.4g} ms"
        findings.tell("measured_ms", measured, RECOMPUTED, before)
    if not same:
        latency["note"] = "measured on another machine than the child was chosen for"
    elif measured is None or claimed.bound_ms is None or measured <= claimed.bound_ms:
        latency["note"] = ""
    return {**latency, "device": device.name, "machine": here, **figures}


def _device(claimed: str | None, asked: str | None) -> Device | str:
    """The device to time the file as, or why there is none: the person may name a file, too."""
    if asked is not None:
        return load_device(asked)
    if claimed is None:
        return "not measured: the child was chosen for no device; name one with --device"
    try:
        return named_device(claimed)
    except UnknownName:
        return f"not measured: no hardware profile {claimed!r} here; see --device"


def _converted(contents: Contents, device: Device) -> bytes | None:
    """The int8 form for an int8 device, with ranges of the stored images; else None."""
    runtime = runtime_of(device)
    if device.precision != "int8" or not takes_images(runtime):
        return None
    shape = (3, contents.manifest.resolution, contents.manifest.resolution)
    form: bytes = runtime.convert(contents.model, shape, contents.pixels.astype(np.float32))
    return form


def _tell_rest(findings: Findings, manifest: Manifest, graph: Inspected) -> None:
    """Everything else in the manifest, as claimed."""
    for key, value in manifest.plain().items():
        if value is not None and key not in ("schema", "sha256", "parity", "latency"):
            findings.tell(key, value, CLAIMED)
    for key in ("predicted_ms", "bound_ms", "measured_ms"):
        value = getattr(manifest.latency, key)
        if value is not None:
            agrees = "latency" in findings.rows
            findings.tell(key, value, AGREES if agrees else CLAIMED)
    findings.rows.pop("latency", None)
    if graph.ir_version > IR_VERSION:
        note = f"its IR version {graph.ir_version} needs a newer one, 1.18 for IR 10"
        findings.rows["oldest_runtime"]["note"] = note
    lacking = [key for key in ("seed", "statistics", "test_sha256") if key not in manifest.plain()]
    if lacking:
        note = f"made by version {manifest.version}: lacks {', '.join(lacking)}"
        findings.rows["version"]["note"] = note
