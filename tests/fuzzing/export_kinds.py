"""Exported folders and published supernets: what a stranger may send."""

import io
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx

from elastic_nas.export.manifest import KNOWN
from elastic_nas.files import sha256_of
from fuzzing.graphs import damaged_graph
from fuzzing.kinds import Kind, command, same
from fuzzing.seeds import Seeds, stopped_clock

FIGURES = (
    "task",
    "space",
    "genotype",
    "settings",
    "macs",
    "params",
    "classes",
    "preprocess",
    "resolution",
    "accuracy",
    "size_bytes",
    "parity",
)
"""Of a manifest, what can be recomputed or stands in the ONNX file, too."""
LATENCIES = ("predicted_ms", "bound_ms", "bound_level")


def _compared(figure: Any) -> Any:
    """The figure without what differs from machine to machine, and is told as it is here."""
    if not isinstance(figure, dict):
        return figure
    return {key: value for key, value in figure.items() if key != "max_difference"}


# --- exported folders ----------------------------------------------------------------------------


def _verify(seeds: Seeds, name: str, *, rehash: bool) -> Any:
    """Verifies a copy of the export in which one file has another content."""
    before = {
        path: (seeds.child / path).read_bytes()
        for path in (
            "child.onnx",
            "labels.txt",
            "manifest.json",
            "test_data/input_0.npy",
            "test_data/output_0.npy",
            *KNOWN,
        )
    }

    def read(content: bytes, folder: Path) -> Any:
        place = folder / "child"
        if not place.exists():
            shutil.copytree(seeds.child, place)
        for path, data in before.items():
            (place / path).write_bytes(data)
        (place / name).write_bytes(content)
        if rehash and len(content) % 3:  # in two of three cases
            manifest = json.loads(before["manifest.json"])
            manifest["sha256"][name] = sha256_of(place / name)
            if name == "child.onnx":
                manifest["size_bytes"] = len(content)
            (place / "manifest.json").write_text(json.dumps(manifest))
        with stopped_clock():
            return json.loads(command("verify", place, "--json")), bool(rehash and len(content) % 3)

    return read


def manifest(seeds: Seeds) -> Kind:
    content = (seeds.child / "manifest.json").read_bytes()
    before = json.loads(content)

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        said = json.loads(changed.decode("utf-8-sig"))
        for key in FIGURES:
            if wrong := same(_compared(said.get(key)), _compared(before[key]), key):
                return wrong
        for key in LATENCIES:
            if wrong := same(said["latency"].get(key), before["latency"][key], f"latency/{key}"):
                return wrong
        return ""

    return Kind(
        "manifest.json",
        content,
        _verify(seeds, "manifest.json", rehash=False),
        judge,
        "json",
        share=0.5,
    )


def child(seeds: Seeds) -> Kind:
    content = (seeds.child / "child.onnx").read_bytes()
    manifest = json.loads((seeds.child / "manifest.json").read_text())

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        if not result[1]:
            return "" if changed == content else "another file than the hash is of"
        model = onnx.load_model_from_string(changed)
        told = {prop.key: prop.value for prop in model.metadata_props}
        for key in (
            "task",
            "genotype",
            "settings",
            "accuracy",
            "latency",
            "data",
            "preprocess",
            "created",
            "space",
        ):
            said = told.get(key, "")
            try:
                value = json.loads(said) if isinstance(manifest[key], dict) else said
            except ValueError:
                return f"{key} of the file is no JSON"
            if wrong := same(value, manifest[key], key):
                return f"the file and the manifest differ: {wrong}"
        labels = (seeds.child / "labels.txt").read_text().split("\n")[:-1]
        try:
            names = list(json.loads(told["names"]).values())
        except (ValueError, KeyError, AttributeError) as error:
            return f"names of the file: {error!r}"
        return same(names, labels, "names")

    return Kind(
        "child.onnx",
        content,
        _verify(seeds, "child.onnx", rehash=True),
        judge,
        fields=damaged_graph,
        share=0.4,
    )


def labels(seeds: Seeds) -> Kind:
    content = (seeds.child / "labels.txt").read_bytes()

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        return "" if changed == content else "other labels than the file's"

    return Kind("labels.txt", content, _verify(seeds, "labels.txt", rehash=True), judge, share=0.3)


def _npy_fields(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Another header, or another array."""
    array = np.load(io.BytesIO(content))
    what = rng.choice(["header", "header", "shape", "dtype", "values", "object", "fortran", "more"])
    buffer = io.BytesIO()
    if what == "header":
        at = content.index(b"\n")
        text = content[10:at].decode().rstrip()
        odd = rng.choice(
            [
                "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
                "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999,), }",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
                "__import__('os').system('id')",
                "[" * 300,
                "(" * 5000,
                "{'descr': '|V100000000', 'fortran_order': False, 'shape': (), }",
                text.replace("(", "(1, "),
                text.replace("False", "True"),
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
                text[:-3],
            ]
        )
        head = odd.encode().ljust(at - 10)
        return content[:8] + len(head + b"\n").to_bytes(2, "little") + head + content[at:], "header"
    if what == "shape":
        array = array.reshape(rng.choice([(-1,), (1, *array.shape), (*array.shape, 1)]))
    elif what == "dtype":
        array = array.astype(rng.choice(["<f8", "<i2", ">f4", "|b1", "<c8", "<f2", "|S5", "<U3"]))
    elif what == "values":
        array = array.copy()
        array.flat[rng.randrange(array.size)] = rng.choice([0, 1, 255, 77])
    elif what == "object":
        array = np.array([{"a": 1}], dtype=object)
    elif what == "fortran":
        array = np.asfortranarray(array)
    else:
        array = np.concatenate([array] * rng.choice([2, 40]))
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue(), what


def stored_images(seeds: Seeds) -> Kind:
    return _array(seeds, "test_data/input_0.npy")


def stored_outputs(seeds: Seeds) -> Kind:
    return _array(seeds, "test_data/output_0.npy")


def known_images(seeds: Seeds) -> Kind:
    return _array(seeds, KNOWN[0], of_parity=False)


def seen_images(seeds: Seeds) -> Kind:
    return _array(seeds, KNOWN[1], of_parity=False)


def _array(seeds: Seeds, name: str, *, of_parity: bool = True) -> Kind:
    content = (seeds.child / name).read_bytes()
    before = np.load(io.BytesIO(content))

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        if not result[1]:
            return "" if changed == content else "another file than the hash is of"
        found = np.load(io.BytesIO(changed))
        if found.dtype != before.dtype:
            return f"an array of {found.dtype}"
        images = result[0]["parity"]["images"] if of_parity else len(found)
        return "" if images == len(found) == len(before) else f"{images} of {len(found)} images"

    return Kind(
        Path(name).name,
        content,
        _verify(seeds, name, rehash=True),
        judge,
        fields=_npy_fields,
        share=0.3,
    )
