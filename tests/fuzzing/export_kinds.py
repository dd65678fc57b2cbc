"""Exported folders and published supernets: what a stranger may send."""

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from fuzzing.kinds import Kind, command, nothing_wrong, same
from fuzzing.mutate import damaged_bytes, damaged_fields
from fuzzing.run_kinds import written
from fuzzing.seeds import Seeds, stopped_clock
from ofa_reference import file_shapes, random_state

from elastic_nas.files import sha256_of
from elastic_nas.training.ofa_checkpoint import read_ofa

FIGURES = (
    "task", "space", "genotype", "settings", "macs", "params", "classes", "preprocess", "resolution",
    "accuracy", "size_bytes", "parity",
)  # fmt: skip
"""Of a manifest, what can be recomputed or stands in the ONNX file, too."""
LATENCIES = ("predicted_ms", "bound_ms", "bound_level")


def of_exports(seeds: Seeds) -> list[Kind]:
    """All kinds of this module."""
    return [
        _manifest(seeds),
        _child(seeds),
        _labels(seeds),
        _array(seeds, "test_data/input_0.npy"),
        _array(seeds, "test_data/output_0.npy"),
        _published(seeds),
        _published(seeds, legacy=True),
    ]


# --- exported folders ----------------------------------------------------------------------------


def _verify(seeds: Seeds, name: str, *, rehash: bool) -> Any:
    """Verifies a copy of the export in which one file has another content."""
    before = {
        path: (seeds.child / path).read_bytes()
        for path in ("child.onnx", "labels.txt", "manifest.json", "test_data/input_0.npy", "test_data/output_0.npy")
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


def _manifest(seeds: Seeds) -> Kind:
    content = (seeds.child / "manifest.json").read_bytes()
    before = json.loads(content)

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        said = json.loads(changed.decode("utf-8-sig"))
        for key in FIGURES:
            if wrong := same(said.get(key), before[key], key):
                return wrong
        for key in LATENCIES:
            if wrong := same(said["latency"].get(key), before["latency"][key], f"latency/{key}"):
                return wrong
        return ""

    return Kind("manifest.json", content, _verify(seeds, "manifest.json", rehash=False), judge, "json", share=0.5)


def _graph_fields(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Another graph: attributes, operators, weights, shapes, metadata."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    what = rng.choice(["metadata", "metadata", "operator", "attribute", "weight", "loop", "shape", "initialiser", "ir", "opset", "rewire", "external"])  # fmt: skip
    node = rng.choice(list(graph.node))
    if what == "metadata":
        prop = rng.choice(list(model.metadata_props))
        text = prop.value
        try:
            text = damaged_fields(json.loads(text), rng)[0] if rng.random() < 0.8 else damaged_bytes(text.encode(), rng)[0].decode("utf-8", "replace")
        except ValueError:
            text = damaged_bytes(text.encode(), rng)[0].decode("utf-8", "replace")
        prop.value = text.encode(errors="replace").decode()
        what += f" {prop.key}"
    elif what == "operator":
        node.op_type = rng.choice(["Relu", "Tile", "Loop", "Expand", "ConstantOfShape", "Evil", "Concat", "RandomNormal", ""])
    elif what == "attribute" and node.attribute:
        attribute = rng.choice(list(node.attribute))
        for place in range(len(attribute.ints)):
            attribute.ints[place] = rng.choice([0, -1, 1, 2**31, 2**62, 100_000])
        attribute.i = rng.choice([0, -1, 2**40])
    elif what in ("weight", "initialiser"):
        tensor = rng.choice(list(graph.initializer))
        if what == "weight" and tensor.raw_data:
            tensor.raw_data = damaged_bytes(tensor.raw_data, rng)[0]
        else:
            tensor.dims[:] = rng.choice([[2**40], [-1], [], [1] * 70, [2**31, 2**31]])
    elif what == "external":
        tensor = rng.choice(list(graph.initializer))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", rng.choice(["/etc/passwd", "../x", "labels.txt", "/dev/zero"])
    elif what == "shape":
        dims = graph.input[0].type.tensor_type.shape.dim
        rng.choice(list(dims)).dim_value = rng.choice([0, -1, 7, 2**40])
    elif what == "loop":
        big = onnx.helper.make_node("Tile", [graph.input[0].name, "times"], ["huge"])
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1000, 1000, 1000], np.int64), "times"))
        graph.node.insert(0, big)
        graph.output.append(onnx.helper.make_tensor_value_info("huge", 1, None))
    elif what == "ir":
        model.ir_version = rng.choice([0, 3, 8, 9, 10, 13, 99])
    elif what == "opset":
        model.opset_import[0].version = rng.choice([0, 1, 7, 99])
    elif node.input:
        node.input[0] = rng.choice([node.output[0], "", "nothing", graph.input[0].name])
    return model.SerializeToString(), what


def _child(seeds: Seeds) -> Kind:
    content = (seeds.child / "child.onnx").read_bytes()
    manifest = json.loads((seeds.child / "manifest.json").read_text())

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        if not result[1]:
            return "another file than the hash is of"
        model = onnx.load_model_from_string(changed)
        told = {prop.key: prop.value for prop in model.metadata_props}
        for key in ("task", "genotype", "settings", "accuracy", "latency", "data", "preprocess", "created", "space"):
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

    return Kind("child.onnx", content, _verify(seeds, "child.onnx", rehash=True), judge, fields=_graph_fields, share=0.4)


def _labels(seeds: Seeds) -> Kind:
    content = (seeds.child / "labels.txt").read_bytes()

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        return "other labels than the file's"

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
            ["{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999,), }",
             "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "__import__('os').system('id')", "[" * 300, "(" * 5000,
             "{'descr': '|V100000000', 'fortran_order': False, 'shape': (), }", text.replace("(", "(1, "), text.replace("False", "True"),
             "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }", text[:-3]]
        )  # fmt: skip
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


def _array(seeds: Seeds, name: str) -> Kind:
    content = (seeds.child / name).read_bytes()
    before = np.load(io.BytesIO(content))

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        if not result[1]:
            return "another file than the hash is of"
        found = np.load(io.BytesIO(changed))
        if found.dtype != before.dtype:
            return f"an array of {found.dtype}"
        images = result[0]["parity"]["images"]
        return "" if images == len(found) == len(before) else f"{images} of {len(found)} images"

    return Kind(Path(name).name, content, _verify(seeds, name, rehash=True), judge, fields=_npy_fields, share=0.3)


# --- published supernets -------------------------------------------------------------------------


def _rezipped(content: bytes, changed: dict[str, bytes]) -> bytes:
    """The archive with other members, and checksums that are right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, changed.get(entry.filename, None) or old.read(entry.filename))
    return buffer.getvalue()


PICKLES = [
    b"\x80\x02" + b"(" * 2_000_000 + b".",
    b"\x80\x02X\x04\x00\x00\x00aaaaq\x00" + b"h\x00h\x00\x86q\x00" * 40 + b".",
    b"\x80\x02c__builtin__\nbytearray\n\x8a\x08\x00\x00\x00\x00\x02\x00\x00\x00\x85R.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x85K\x01\x85\x89N\x89tR.",
    b"\x80\x02cbuiltins\nset\n]q\x00(h\x00h\x00e\x85R.",
    b"\x80\x02ccollections\nCounter\n\x8a\x05\x00\x00\x00\x00\x01\x85R.",
    b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.",
    pickle.dumps({"state_dict": {"a": [1] * 10}}, 2),
    b"\x80\x02ctorch\nzeros\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",
]


def _published(seeds: Seeds, *, legacy: bool = False) -> Kind:
    import elastic_nas.training.ofa_checkpoint as module

    state = random_state(file_shapes(1.0, 3))
    buffer = io.BytesIO()
    torch.save({"state_dict": state}, buffer, _use_new_zipfile_serialization=not legacy)
    content = buffer.getvalue()
    path = seeds.folder / f"published{legacy:d}"
    path.write_bytes(content)
    before = {name: tensor.clone() for name, tensor in read_ofa(path)[1].state_dict().items()}

    def fields(whole: bytes, rng: Random) -> tuple[bytes, str]:
        if legacy:
            head = damaged_bytes(whole[:60_000], rng)[0] if rng.random() < 0.7 else rng.choice(PICKLES)
            return head + whole[60_000:], "the first pickles"
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            names = archive.namelist()
            data = next(name for name in names if name.endswith("data.pkl"))
            what = rng.choice(["pickle", "pickle", "foreign pickle", "tensor", "member"])
            if what == "pickle":
                changed = {data: damaged_bytes(archive.read(data), rng)[0]}
            elif what == "foreign pickle":
                changed = {data: rng.choice(PICKLES)}
            else:
                name = rng.choice([n for n in names if "/data/" in n] if what == "tensor" else names)
                member = archive.read(name)
                if what == "tensor" and len(member) >= 4:
                    at = 4 * rng.randrange(len(member) // 4)
                    odd = np.float32(rng.choice([689.0, 1e30, np.nan, np.inf])).tobytes()
                    member = member[:at] + odd + member[at + 4 :]
                else:
                    member = damaged_bytes(member, rng)[0]
                changed = {name: member}
        return _rezipped(whole, changed), f"sealed archive, another {what}"

    def read(changed: bytes, folder: Path) -> Any:
        with patch.object(module, "SHOWN", 3):
            _, supernet = read_ofa(written(folder, "published", changed))
        return supernet.state_dict()

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        if not all(tensor.isfinite().all() for tensor in result.values()):
            return "weights that are not finite"
        if legacy or _sound(changed):
            return ""
        other = [name for name in before if not torch.equal(result[name], before[name])]
        return f"{len(other)} tensors are others than the archive's checksums are of" if other else ""

    kind = f"OFA checkpoint{' (old form)' if legacy else ''}"
    return Kind(kind, content, read, judge, fields=fields, share=0.05)


def _sound(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


