"""The folder a user gets: the file, what it is, and what proves it.

``child.onnx``, ``manifest.json`` (hashes, genotype, settings, parity, accuracy, latency),
``labels.txt``, ``test_data/`` (real pixels and the logits they must give, and which images the
child was scored on).
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elastic_nas._version import __version__
from elastic_nas.errors import ExportMismatch, RunFolderError
from elastic_nas.export.inspect_onnx import MOST_BYTES
from elastic_nas.export.known_images import KnownImages, known_of
from elastic_nas.export.manifest import (
    FILES,
    INPUT,
    KNOWN,
    LABELS,
    MANIFEST,
    MODEL,
    OUTPUT,
    SCHEMA,
    Manifest,
    read_manifest,
)
from elastic_nas.export.onnx_file import Floats
from elastic_nas.export.place import repair, replacing
from elastic_nas.files import write_atomic, write_json
from elastic_nas.outside import MEGABYTE, parse_array, read_bytes

MOST: dict[str, int] = {MODEL: MOST_BYTES, LABELS: 32 * MEGABYTE, INPUT: 1 << 30, OUTPUT: 1 << 30}
MOST |= dict.fromkeys(KNOWN, 1 << 30)
"""Bytes of each file."""
MOST_IMAGES = 4096
OWN = (MANIFEST, *(Path(name).parts[0] for name in FILES))
"""What lies at the top of such a folder."""


@dataclass(frozen=True)
class Artefact:
    """What goes into the folder.

    Attributes:
        model: Bytes of the ONNX file.
        labels: Class names in the order of the logits.
        pixels: Real images (N, 3, H, W), uint8.
        logits: What the PyTorch child computes for them (N, classes).
        facts: Everything else that the manifest says, JSON values.
        known: Which images the child was scored on and made from.
    """

    model: bytes
    labels: tuple[str, ...]
    pixels: Any
    logits: Floats
    facts: dict[str, Any]
    known: KnownImages


@dataclass(frozen=True)
class Contents:
    """What an exported folder holds: each file was read once, and has the manifest's hash."""

    manifest: Manifest
    model: bytes
    labels: str
    pixels: NDArray[np.uint8]
    logits: Floats
    known: KnownImages | None = None


def write_folder(artefact: Artefact, folder: Path) -> Manifest:
    """Write the folder whole or not at all; an earlier artefact there is replaced in one step.

    Call it within `files.writing`. What was written is read back before it takes the place.

    Raises:
        RunFolderError: The folder holds something else, or cannot be written.
    """
    check_target(folder)
    contents = {
        MODEL: artefact.model,
        LABELS: label_lines(artefact.labels).encode(),
        INPUT: _npy(artefact.pixels),
        OUTPUT: _npy(artefact.logits),
        KNOWN[0]: _npy(artefact.known.rows),
        KNOWN[1]: _npy(artefact.known.seen),
    }
    hashes = {name: sha256(content).hexdigest() for name, content in contents.items()}
    facts = {"schema": SCHEMA, "version": __version__, **artefact.facts, "sha256": hashes}
    with replacing(folder, OWN) as fresh:
        for name, content in contents.items():
            write_atomic(fresh / name, content)
        write_json(fresh / MANIFEST, facts)
        manifest = read_folder(fresh).manifest
        if faults := manifest.faults():
            raise ExportMismatch(
                f"{folder} was not written: it would say what cannot be. {'; '.join(faults)}."
            )
    return manifest


def label_lines(labels: Iterable[str]) -> str:
    """The content of ``labels.txt``: one line a class, whatever its name holds.

    Whatever ends a line anywhere (a line or form feed, U+2028 ...) becomes a space; a byte order
    mark in front, which readers take off or take for a letter, is left out, and what is no text in
    UTF-8 becomes ``?``.
    """
    text = "".join(f"{' '.join(label.splitlines())}\n" for label in labels)
    return text.removeprefix("\ufeff").encode(errors="replace").decode()


def check_target(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier artefact, before work is spent.

    Raises:
        RunFolderError: It does, or it is a file.
    """
    advice = "name another folder with --out."
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file, not a folder; {advice}")
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if not names:
        return
    try:
        read_manifest(folder)
    except RunFolderError as error:
        what = "is not empty and holds no earlier export"
        raise RunFolderError(f"{folder} {what}; {advice}") from error
    foreign = sorted(names - {*OWN})
    if foreign:
        raise RunFolderError(
            f"{folder} holds {foreign[0]!r} beside an earlier export, which would be lost; {advice}"
        )


def read_folder(folder: Path) -> Contents:
    """What an exported folder holds, each file read once and held against its hash.

    Raises:
        RunFolderError: The folder is no export, or a file is missing or too large.
        ExportMismatch: A file was changed, or is not of the form it must have.
    """
    repair(folder, OWN)
    manifest = read_manifest(folder)
    contents = {name: _read(folder, name) for name in manifest.files}
    changed = [
        str(folder / name)
        for name, content in contents.items()
        if sha256(content).hexdigest() != manifest.sha256[name]
    ]
    if changed:
        verb = "was" if len(changed) == 1 else "were"
        raise ExportMismatch(f"{', '.join(changed)} {verb} changed since the export; export again.")
    pixels: Any = parse_array(contents[INPUT], "uint8", str(folder / INPUT), ExportMismatch)
    logits: Any = parse_array(contents[OUTPUT], "float32", str(folder / OUTPUT), ExportMismatch)
    _check_shapes(manifest, pixels.shape, logits.shape, folder)
    if not np.isfinite(logits).all():
        raise ExportMismatch(f"{folder / OUTPUT} holds numbers that are not finite; export again.")
    try:
        labels = contents[LABELS].decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ExportMismatch(f"{folder / LABELS} is no text (UTF-8); export again.") from error
    known = _known(contents, manifest, folder)
    return Contents(manifest, contents[MODEL], labels, pixels, logits, known)


def _known(contents: dict[str, bytes], manifest: Manifest, folder: Path) -> KnownImages | None:
    """Which images the child was scored on and made from; None where the export does not tell."""
    if manifest.images is None:
        return None
    places = [str(folder / name) for name in KNOWN]
    rows, seen = (
        parse_array(contents[name], "uint8", place, ExportMismatch)
        for name, place in zip(KNOWN, places, strict=True)
    )
    known = known_of(rows, seen, manifest.classes, places.__getitem__)  # type: ignore[arg-type]
    used, missing = manifest.images.used, manifest.images.missing
    before = sum(side.train + side.search_validation for side in (used, missing))
    if (len(known.labels_N), len(known.seen)) != (used.test, before):
        raise ExportMismatch(
            f"{' and '.join(places)} tell of {len(known.labels_N):,} and {len(known.seen):,} "
            f"images, the manifest of {used.test:,} and {before:,}; export again."
        )
    return known


def _check_shapes(
    manifest: Manifest, pixels: tuple[int, ...], logits: tuple[int, ...], folder: Path
) -> None:
    """Of the test data: at least one image, at most so many, of the child's size and classes."""
    images = pixels[0] if pixels else 0
    size, classes = manifest.resolution, manifest.classes
    if not 1 <= images <= MOST_IMAGES or pixels[1:] != (3, size, size):
        raise ExportMismatch(
            f"{folder / INPUT} has the shape {pixels}, not 1 to {MOST_IMAGES} images of "
            f"3 x {size} x {size}; export again."
        )
    if logits != (images, classes):
        raise ExportMismatch(
            f"{folder / OUTPUT} has the shape {logits}, not {(images, classes)}; export again."
        )


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RunFolderError(f"{path} is a link to outside the folder; export again.")
    if not path.exists():
        raise RunFolderError(f"{path} is missing; export again.")
    return read_bytes(path, MOST[name])


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
