"""The folder a user gets: the file, what it is, and what proves it.

``child.onnx``, ``manifest.json`` (hashes, genotype, settings, parity, accuracy, latency),
``labels.txt``, ``test_data/`` (real pixels and the logits they must give).
"""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elastic_nas._version import __version__
from elastic_nas.errors import ExportMismatch, RunFolderError
from elastic_nas.export.onnx_file import Floats, compare, logits_of
from elastic_nas.files import sha256_of, write_atomic, write_json
from elastic_nas.outside import read_json

SCHEMA = "elastic-child/1"
MODEL, MANIFEST = "child.onnx", "manifest.json"
INPUT, OUTPUT = "test_data/input_0.npy", "test_data/output_0.npy"
FILES = (MODEL, "labels.txt", INPUT, OUTPUT)
"""What a manifest must have hashes of."""
NEEDED: dict[str, type] = {
    "sha256": dict, "genotype": str, "latency": dict, "accuracy": dict, "resolution": int
}  # fmt: skip
FIGURES = {"device", "predicted_ms", "bound_ms", "measured_ms", "note"}
MAX_NPY_BYTES = 1 << 30


@dataclass(frozen=True)
class Artefact:
    """What goes into the folder.

    Attributes:
        model: Bytes of the ONNX file.
        labels: Class names in the order of the logits.
        pixels: Real images (N, 3, H, W), uint8.
        logits: What the PyTorch child computes for them (N, classes).
        facts: Everything else that the manifest says, JSON values.
    """

    model: bytes
    labels: tuple[str, ...]
    pixels: Any
    logits: Floats
    facts: dict[str, Any]


def write_folder(artefact: Artefact, folder: Path) -> None:
    """Write the folder whole or not at all; an earlier artefact there is replaced.

    Raises:
        RunFolderError: The folder holds something else, or cannot be written.
    """
    with _replacing(folder) as fresh:
        write_atomic(fresh / MODEL, artefact.model)
        write_atomic(fresh / "labels.txt", "".join(f"{label}\n" for label in artefact.labels))
        write_atomic(fresh / INPUT, _npy(artefact.pixels))
        write_atomic(fresh / OUTPUT, _npy(artefact.logits))
        hashes = {name: sha256_of(fresh / name) for name in FILES}
        manifest = {"schema": SCHEMA, "version": __version__, **artefact.facts, "sha256": hashes}
        write_json(fresh / MANIFEST, manifest)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder beside `folder` that takes its place when the block succeeds."""
    check_target(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise _not_writable(folder, error) from error
    try:
        yield fresh
        fresh.chmod(0o755)
        _take_place(fresh, folder)
    except OSError as error:
        raise _not_writable(folder, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _take_place(fresh: Path, folder: Path) -> None:
    """Put `fresh` where `folder` is; interrupted, the old folder is put back."""
    if not folder.exists():
        os.replace(fresh, folder)
        return
    old = fresh.with_name(fresh.name + ".old")
    try:
        os.replace(folder, old)
        os.replace(fresh, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


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
    foreign = sorted(names - {MANIFEST, *(Path(name).parts[0] for name in FILES)})
    if foreign:
        raise RunFolderError(
            f"{folder} holds {foreign[0]!r} beside an earlier export, which would be lost; {advice}"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an exported folder.

    Raises:
        RunFolderError: There is none, or it is damaged.
    """
    if not (folder / MANIFEST).is_file():
        what = f"holds no {MANIFEST}" if folder.is_dir() else "is no folder"
        raise RunFolderError(f"{folder} {what}; name a folder that elastic-nas export wrote.")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise RunFolderError(f"{folder / MANIFEST} is not of schema {SCHEMA!r}; export again.")
    for key, kind in NEEDED.items():
        if type(manifest.get(key)) is not kind:
            raise RunFolderError(f"{folder / MANIFEST} is damaged: see {key!r}; export again.")
    latency, hashes = manifest["latency"], manifest["sha256"]
    if not latency.keys() >= FIGURES or not {*FILES} <= hashes.keys():
        raise RunFolderError(
            f"{folder / MANIFEST} is damaged: latency or sha256 lacks a key; export again."
        )
    return manifest


def verify_files(folder: Path) -> dict[str, float]:
    """Recheck an exported folder: hashes, then the stored outputs from the stored inputs.

    Returns:
        The parity figures, see `onnx_file.compare`.

    Raises:
        RunFolderError: The folder is no export, or a file is missing.
        ExportMismatch: A file was changed, or computes something else here.
    """
    for name, expected in read_manifest(folder)["sha256"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise RunFolderError(
                f"{folder / MANIFEST} names {name!r}, outside the folder; export again."
            )
        if not path.is_file():
            raise RunFolderError(f"{path} is missing; export again.")
        if sha256_of(path) != expected:
            raise ExportMismatch(f"{path} was changed since it was exported; export again.")
    model = (folder / MODEL).read_bytes()
    pixels, logits = _read_npy(folder / INPUT), _read_npy(folder / OUTPUT)
    return compare(logits, logits_of(model, pixels), str(folder / MODEL))


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _read_npy(path: Path) -> Any:
    if path.stat().st_size > MAX_NPY_BYTES:
        raise ExportMismatch(f"{path} is larger than {MAX_NPY_BYTES} bytes; export again.")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ExportMismatch(f"{path} is no plain array ({error}); export again.") from error


def _not_writable(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write {folder}: {error.strerror or error}. Choose another folder with --out."
    )
