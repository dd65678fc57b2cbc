"""The accuracy of an exported folder, computed again on images that a person names."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elastic_nas.errors import ConfigError
from elastic_nas.export.artefact import Contents, label_lines
from elastic_nas.export.manifest import Manifest
from elastic_nas.export.onnx_file import logits_of
from elastic_nas.findings import CLAIMED, RECOMPUTED, Findings
from elastic_nas.latency.devices import Device
from elastic_nas.scoring import Int8Form, score

if TYPE_CHECKING:
    from elastic_nas.data.dataset import Dataset


def scored_again(
    findings: Findings, contents: Contents, source: str, device: Device | None
) -> dict[str, Any]:
    """The accuracy on the test split of images that the person names.

    Args:
        findings: Told what was found.
        contents: The folder.
        source: As for `data.dataset.load_dataset`.
        device: Whose int8 form is scored again, too, if the manifest tells of one.

    Raises:
        ConfigError: The images are of other classes.
        DataError: They cannot be used.
    """
    manifest, claimed = contents.manifest, contents.manifest.accuracy
    data = _images(manifest, source)
    if label_lines(data.labels) != contents.labels:
        raise ConfigError(
            f"the classes of {source!r} ({len(data.labels)}) are not those of labels.txt, in their "
            "order; name the images that the child was made for with --data."
        )
    test = data.readable(data.test, manifest.resolution)
    pixels = test.deployed(manifest.deployed, manifest.resolution)
    found = score(logits_of(contents.model, pixels).argmax(1) == test.labels)
    same = manifest.test_sha256 == test.sha256
    told = f"{found['top1']:.4f} on {found['n']} test images of {source}"
    (low, high), (own_low, own_high) = found["interval_95"], claimed.interval_95
    if same:
        near = abs(found["top1"] - claimed.top1) <= max(1 / claimed.n, 0.001) + 1e-9
        agrees, note = near and found["n"] == claimed.n, f"{told}, those it was scored on"
    else:
        what = "which test images it was scored on" if manifest.test_sha256 is None else ""
        why = f"the manifest does not say {what}" if what else "they are not those it was scored on"
        agrees, note = low <= own_high and own_low <= high, f"{told}; {why}"
    if not agrees:
        interval = f"95 % interval {low:.4f}-{high:.4f}"
        findings.differ("accuracy", f"{claimed.top1:.4f} of {claimed.n}", f"{note} ({interval})")
    elif same:
        findings.tell("accuracy", claimed.model_dump(), RECOMPUTED, note)
        findings.tell("test_sha256", manifest.test_sha256, RECOMPUTED)
    else:
        findings.rows["accuracy"]["note"] = note
    if same and device is not None:
        _int8_again(findings, contents, data, device)
    return {**found, "same_images": same, "data": source}


def _images(manifest: Manifest, source: str) -> "Dataset":
    """The data set of a person's choice, split and to be resized as the manifest says."""
    from elastic_nas.data.dataset import load_dataset

    data = load_dataset(source, manifest.seed or 0, manifest.statistics or "data")
    return replace(data, preprocess=manifest.deployed)


def _int8_again(findings: Findings, contents: Contents, data: "Dataset", device: Device) -> None:
    """The accuracy of the int8 form, on the images that it was scored on."""
    manifest, claimed = contents.manifest, contents.manifest.int8
    form = Int8Form.of(contents.model, device, data, manifest.resolution)
    if form is None or claimed is None:
        return
    found = form.score(data, manifest.resolution)
    told = f"{found['top1']:.4f} on the same images, {found['scheme']}"
    if found["scheme"] != claimed.scheme:
        findings.tell("int8", claimed.model_dump(), CLAIMED, f"made otherwise here: {told}")
    elif abs(found["top1"] - claimed.top1) > max(1 / claimed.n, 0.01):
        findings.differ("int8", f"{claimed.top1:.4f}", told)
    else:
        findings.tell("int8", claimed.model_dump(), RECOMPUTED, told)
