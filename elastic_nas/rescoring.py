"""The accuracy of an exported folder, computed again on images that a person names."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elastic_nas.config import DataConfig
from elastic_nas.export.artefact import Contents
from elastic_nas.export.manifest import KNOWN, Scored
from elastic_nas.export.onnx_file import logits_of
from elastic_nas.findings import CLAIMED, RECOMPUTED, Findings
from elastic_nas.latency.devices import Device
from elastic_nas.progress import say
from elastic_nas.rescored_images import Rescored, images_again
from elastic_nas.scoring import Int8Form, score

if TYPE_CHECKING:
    from elastic_nas.data.dataset import Dataset


def scored_again(
    findings: Findings, contents: Contents, source: DataConfig, device: Device | None
) -> dict[str, Any]:
    """The accuracy on the test images of the export, found in what the person names.

    Args:
        findings: Told what was found.
        contents: The folder.
        source: The images, see `rescored_images.images_again`.
        device: Whose int8 form is scored again, too, if the manifest tells of one.

    Raises:
        ConfigError: The images are of other classes, or too many are missing.
        DataError: They cannot be used.
    """
    manifest, claimed = contents.manifest, contents.manifest.accuracy
    images = images_again(contents, source)
    data = images.data
    test = data.readable(data.test, manifest.resolution)
    images = replace(images, missing=images.missing + len(data.test) - len(test))
    pixels = test.deployed(manifest.deployed, manifest.resolution)
    found = score(logits_of(contents.model, pixels).argmax(1) == test.labels)
    same = images.known and not images.missing
    note = f"{found['top1']:.4f} on {found['n']} test images of {source.source}; {images.told}"
    if not _agree(claimed, found, images):
        low, high = found["interval_95"]
        interval = f"95 % interval {low:.4f}-{high:.4f}"
        findings.differ("accuracy", f"{claimed.top1:.4f} of {claimed.n}", f"{note} ({interval})")
    elif same:
        findings.tell("accuracy", claimed.model_dump(), RECOMPUTED, note)
        findings.tell("test_sha256", manifest.test_sha256, RECOMPUTED)
    else:
        findings.rows["accuracy"]["note"] = note
    counts = manifest.images
    if same and device is not None and (counts is None or len(data.train) == counts.used.train):
        _int8_again(findings, contents, data, device)
    return {**found, "same_images": same, "missing": images.missing, "data": source.source}


def hold_images(findings: Findings, contents: Contents) -> None:
    """The list of test images is that which the manifest has the hash of."""
    claimed, known = contents.manifest.test_sha256, contents.known
    if known is None:
        return
    if claimed != known.sha256:
        findings.differ("test_sha256", claimed, f"{KNOWN[0]} {known.sha256}")
    if both := int(known.is_seen(known.identities).sum()):
        say(
            f"note: {both:,} of {len(known.labels_N):,} test images are equal to one that was "
            "trained or selected on."
        )


def _agree(claimed: Scored, found: dict[str, Any], images: Rescored) -> bool:
    """Whether what was found can be, if the claim is true.

    Of the images that the child was scored on, the missing ones may all have been right, or wrong;
    of others, the 95 % intervals must touch.
    """
    low, high = found["interval_95"]
    if not images.known:
        return bool(low <= claimed.interval_95[1] and claimed.interval_95[0] <= high)
    slack = max(1, 0.001 * claimed.n) + 1e-6
    right, then = found["top1"] * found["n"], claimed.top1 * claimed.n
    whole = found["n"] + images.missing == claimed.n
    return bool(whole and then - images.missing - slack <= right <= then + slack)


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
