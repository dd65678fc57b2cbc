"""Damage to an ONNX model: its metadata, operators, attributes, weights, shapes and versions."""

import json
from collections.abc import Callable
from random import Random

import numpy as np
import onnx

from fuzzing.mutate import damaged_bytes, damaged_fields

OPERATORS = [
    *("Relu", "Tile", "Loop", "Expand", "ConstantOfShape", "Evil", "Concat", "RandomNormal", ""),
]
Model = onnx.ModelProto


def damaged_graph(content: bytes, rng: Random) -> tuple[bytes, str]:
    """The model with one change, and what it was."""
    model = onnx.load_model_from_string(content)
    change = rng.choice(CHANGES)
    change(model, rng)
    return model.SerializeToString(), change.__name__


def metadata(model: Model, rng: Random) -> None:
    prop = rng.choice(list(model.metadata_props))
    try:
        text = damaged_fields(json.loads(prop.value), rng)[0]
    except ValueError:
        text = ""
    if not text or rng.random() < 0.3:
        text = damaged_bytes(prop.value.encode(), rng)[0].decode("utf-8", "replace")
    prop.value = text.encode(errors="replace").decode()


def operator(model: Model, rng: Random) -> None:
    rng.choice(list(model.graph.node)).op_type = rng.choice(OPERATORS)


def attribute(model: Model, rng: Random) -> None:
    known = [entry for node in model.graph.node for entry in node.attribute]
    entry = rng.choice(known)
    for place in range(len(entry.ints)):
        entry.ints[place] = rng.choice([0, -1, 1, 2**31, 2**62, 100_000])
    entry.i = rng.choice([0, -1, 2**40])


def weight(model: Model, rng: Random) -> None:
    tensor = rng.choice(list(model.graph.initializer))
    tensor.raw_data = damaged_bytes(tensor.raw_data, rng)[0]


def weight_shape(model: Model, rng: Random) -> None:
    tensor = rng.choice(list(model.graph.initializer))
    tensor.dims[:] = rng.choice([[2**40], [-1], [], [1] * 70, [2**31, 2**31]])


def external(model: Model, rng: Random) -> None:
    tensor = rng.choice(list(model.graph.initializer))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key = "location"
    entry.value = rng.choice(["/etc/passwd", "../x", "labels.txt", "/dev/zero"])


def input_shape(model: Model, rng: Random) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    rng.choice(list(dims)).dim_value = rng.choice([0, -1, 7, 2**40])


def huge(model: Model, rng: Random) -> None:
    """Another output, a million times as large as the images."""
    graph = model.graph
    times = onnx.numpy_helper.from_array(np.array([1, 1000, 1000, 1000], np.int64), "times")
    graph.initializer.append(times)
    graph.node.insert(0, onnx.helper.make_node("Tile", [graph.input[0].name, "times"], ["huge"]))
    graph.output.append(onnx.helper.make_tensor_value_info("huge", 1, None))


def version(model: Model, rng: Random) -> None:
    model.ir_version = rng.choice([0, 3, 8, 9, 10, 13, 99])


def opset(model: Model, rng: Random) -> None:
    model.opset_import[0].version = rng.choice([0, 1, 7, 99])


def rewired(model: Model, rng: Random) -> None:
    node = rng.choice([node for node in model.graph.node if node.input])
    node.input[0] = rng.choice([node.output[0], "", "nothing", model.graph.input[0].name])


CHANGES: tuple[Callable[[Model, Random], None], ...] = (
    *(metadata, metadata, operator, attribute, weight, weight_shape, external, input_shape),
    *(huge, version, opset, rewired),
)
