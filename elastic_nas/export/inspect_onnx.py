"""An ONNX file from outside, looked at before anything runs it.

A file can name operators that loop, read other files or take all memory, and a small one can grow
a thousandfold when it is parsed. So its encoding is walked first and whatever the writer of this
package never makes is refused; then every shape is computed, and with it what a run would cost.

Source of the field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from elastic_nas.errors import ElasticNasError, ExportMismatch
from elastic_nas.nn.onnx_writer import OPSET
from elastic_nas.runtimes._graph import Graph, Node, read_graph

MOST_BYTES = 1 << 30
"""Of a file."""
MOST_IR = 10
MOST_PIXELS = 4096
"""Height and width of the input."""
MOST_CLASSES = 100_000
MOST_MACS = 50 * 10**9
"""Of one image: 25 times what the largest child of any space takes."""
MOST_ACTIVATIONS = 64 << 20
"""Bytes that an image's tensors take at one time: 4 GiB for a batch of 64."""
MOST_VALUES = 4 * 10**9
"""Numbers that all nodes write for one image."""

Shape = tuple[int, ...]
Limits = Mapping[int, tuple[int, int]]
"""How often a field may stand in a message, and the most bytes that it may take in all."""

_ONE_TEXT = (1, 1024)
MODEL_FIELDS: Limits = {
    **dict.fromkeys(range(1, 7), _ONE_TEXT),  # versions, producer, documentation
    7: (1, MOST_BYTES),  # graph
    8: (1, 64),  # opset
    14: (200, 32 << 20),  # metadata
}
GRAPH_FIELDS: Limits = {
    1: (5000, 2 << 20),  # nodes
    2: _ONE_TEXT,  # name
    5: (20_000, MOST_BYTES),  # weights
    11: (1, 1024),  # input
    12: (1, 1024),  # output
}
TENSOR_FIELDS: Limits = {
    1: (4, 64),  # dims
    2: (1, 8),  # type
    8: _ONE_TEXT,  # name
    9: (1, MOST_BYTES),  # the numbers
}
NAMES = {20: "training", 25: "functions", 15: "sparse weights"}
KINDS: Mapping[str, int] = {
    "kernel_shape": onnx.AttributeProto.INTS,
    "strides": onnx.AttributeProto.INTS,
    "pads": onnx.AttributeProto.INTS,
    "group": onnx.AttributeProto.INT,
    "transB": onnx.AttributeProto.INT,
    "axis": onnx.AttributeProto.INT,
    "ceil_mode": onnx.AttributeProto.INT,
    "count_include_pad": onnx.AttributeProto.INT,
    "alpha": onnx.AttributeProto.FLOAT,
    "beta": onnx.AttributeProto.FLOAT,
}
"""Attributes that the writer gives to nodes, and their types."""
LENGTHS = {"kernel_shape": 2, "strides": 2, "pads": 4}


@dataclass(frozen=True)
class Inspected:
    """What a file is, found in its graph alone.

    Attributes:
        resolution: Input height = width in pixels.
        classes: Outputs.
        macs: Multiply-accumulates of convolutions and linear layers at batch 1.
        weights: Numbers of convolutions and linear layers, biases among them.
        mean: Per channel, of pixels in 0-1, as the graph itself subtracts it.
        std: Likewise; None, as `mean`, where the graph does not normalise.
        ir_version: Of ONNX's intermediate representation.
        metadata: What stands beside the graph.
    """

    resolution: int
    classes: int
    macs: int
    weights: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    ir_version: int
    metadata: Mapping[str, str]


def inspect(model: bytes, what: str) -> Inspected:
    """The facts of a child's file, if it is one that may be run.

    Args:
        model: Its bytes.
        what: What it is called in messages.

    Raises:
        ExportMismatch: The writer of this package does not make such files.
    """
    try:
        if len(model) > MOST_BYTES:
            raise _Strange(f"it has more than {MOST_BYTES:,} bytes")
        _check_encoding(memoryview(model))
        proto = onnx.load_model_from_string(model)
        resolution, classes = _check_model(proto)
        graph = read_graph(model, (3, resolution, resolution), "the inspection")
        costs = _walked(graph, resolution, classes)
    except (_Strange, ElasticNasError) as error:
        raise ExportMismatch(
            f"{what} was not run: {error}. elastic-nas export makes no such file."
        ) from error
    except Exception as error:  # protobuf's and numpy's own, which share no base class
        raise ExportMismatch(f"{what} is no ONNX file: {str(error)[:200]}.") from error
    mean, std = _normalisation(graph)
    metadata = {prop.key: prop.value for prop in proto.metadata_props}
    return Inspected(resolution, classes, *costs, mean, std, proto.ir_version, metadata)


class _Strange(Exception):
    """Why a file is none that the writer makes."""


# --- the encoding, before it is parsed ------------------------------------------------------------


def _check_encoding(model: memoryview) -> None:
    graph = _fields(model, MODEL_FIELDS, "model").get(7)
    if not graph:
        raise _Strange("it holds no graph")
    for tensor in _fields(graph[0], GRAPH_FIELDS, "graph").get(5, []):
        _fields(tensor, TENSOR_FIELDS, "weight")


def _fields(data: memoryview, limits: Limits, what: str) -> dict[int, list[memoryview]]:
    """The fields of a protobuf message, each within its limits."""
    found: dict[int, list[memoryview]] = {}
    taken: Counter[int] = Counter()
    for number, value in _walk(data):
        times, most = limits.get(number, (0, 0))
        values = found.setdefault(number, [])
        values.append(value)
        taken[number] += len(value)
        if len(values) > times or taken[number] > most:
            name = NAMES.get(number, f"field {number}")
            raise _Strange(f"its {what} has {name} that is not known, too often or too large")
    return found


def _walk(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        start, kind = place, key & 7
        if kind == 0:
            _, place = _varint(data, place)
        elif kind == 2:
            length, start = _varint(data, place)
            place = start + length
        else:
            place += {1: 8, 5: 4}.get(kind, len(data) + 1)
        if place > len(data):
            raise _Strange("it is cut off, or no ONNX file at all")
        yield key >> 3, data[start:place]


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise _Strange("it is cut off, or no ONNX file at all")


# --- what was parsed ------------------------------------------------------------------------------


def _check_model(proto: onnx.ModelProto) -> tuple[int, int]:
    """Input height and number of outputs of a model of the writer's form."""
    opsets = [(entry.domain, entry.version) for entry in proto.opset_import]
    if opsets != [("", OPSET)]:
        raise _Strange(f"it has the operator sets {str(opsets)[:80]}, not {OPSET} of ONNX alone")
    if not 3 <= proto.ir_version <= MOST_IR:
        raise _Strange(f"its IR version is {proto.ir_version}, not 3 to {MOST_IR}")
    (given,), (made,) = proto.graph.input, proto.graph.output
    channels, height, width = _sizes(given, "input", 4)
    (classes,) = _sizes(made, "logits", 2)
    if channels != 3 or height != width or not 1 <= height <= MOST_PIXELS:
        raise _Strange(f"its input is {channels} x {height} x {width}, not 3 x H x H pixels")
    if not 1 <= classes <= MOST_CLASSES:
        raise _Strange(f"it has {classes} outputs")
    for tensor in proto.graph.initializer:
        _check_weight(tensor)
    for node in proto.graph.node:
        _check_node(node)
    _check_names(proto.graph)
    return height, classes


def _sizes(value: onnx.ValueInfoProto, name: str, axes: int) -> Shape:
    """Of an input or output, without the batch, which any size must fit."""
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    if value.name != name or len(dims) != axes or tensor.elem_type != onnx.TensorProto.FLOAT:
        raise _Strange(f"it has no {name!r} of fp32 with {axes} axes")
    if not dims[0].dim_param:
        raise _Strange("its batch is fixed")
    return tuple(dim.dim_value for dim in dims[1:])


def _check_weight(tensor: onnx.TensorProto) -> None:
    size = prod(tensor.dims)
    if tensor.data_type != onnx.TensorProto.FLOAT or any(dim < 1 for dim in tensor.dims):
        raise _Strange(f"the weight {tensor.name[:80]!r} is not fp32, or has no shape")
    if not tensor.dims or 4 * size != len(tensor.raw_data):
        raise _Strange(f"the weight {tensor.name[:80]!r} has not the size of its shape")


def _check_node(node: onnx.NodeProto) -> None:
    where = f"the node {node.name[:80]!r} ({node.op_type[:40]})"
    if node.domain or len(node.output) != 1 or not 1 <= len(node.input) <= 3:
        raise _Strange(f"{where} is of another domain, or has a strange number of inputs")
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) != len(names):
        raise _Strange(f"{where} states an attribute twice")
    for attribute in node.attribute:
        name = attribute.name
        if attribute.type != KINDS.get(name) or attribute.ref_attr_name:
            raise _Strange(f"{where} has a strange attribute {name[:40]!r}")
        if name in LENGTHS and len(attribute.ints) != LENGTHS[name]:
            raise _Strange(f"{where} has {len(attribute.ints)} values of {name}")


def _check_names(graph: onnx.GraphProto) -> None:
    """Each tensor is made once and before it is used; each weight is used once."""
    weights = [tensor.name for tensor in graph.initializer]
    known = {"input", *weights}
    if len(known) != 1 + len(weights):
        raise _Strange("two weights have the same name")
    used: Counter[str] = Counter()
    for node in graph.node:
        if not known.issuperset(node.input) or node.output[0] in known:
            raise _Strange(f"the inputs or the output of node {node.name[:80]!r} cannot be")
        known.add(node.output[0])
        used.update(node.input)
    if "logits" not in known or "logits" in used:
        raise _Strange("it does not end in its output")
    if any(used[name] != 1 for name in weights):
        raise _Strange("a weight is not used, or used twice")


# --- shapes and costs -----------------------------------------------------------------------------


def _walked(graph: Graph, resolution: int, classes: int) -> tuple[int, int]:
    """Multiply-accumulates at batch 1, and numbers of convolutions and linear layers."""
    shapes: dict[str, Shape] = {graph.input: (3, resolution, resolution)}
    macs = weights = values = 0
    last = {name: number for number, node in enumerate(graph.nodes) for name in node.inputs}
    for number, node in enumerate(graph.nodes):
        shape = _shape_of(node, graph, shapes)
        if node.op in ("Conv", "Gemm"):
            constants = [graph.weights[name] for name in node.inputs[1:]]
            weights += sum(array.size for array in constants)
            macs += constants[0].size * prod(shape[1:])
        values += prod(shape)
        there = 4 * (prod(shape) + sum(map(prod, shapes.values())))
        shapes[node.output] = shape
        for name in [name for name in shapes if last.get(name, -1) <= number]:
            if name != node.output:
                del shapes[name]
        if there > MOST_ACTIVATIONS or macs > MOST_MACS or values > MOST_VALUES:
            raise _Strange(f"to run it would take too much memory or time, from {node.name!r} on")
    if shapes.get(graph.output) != (classes,):
        raise _Strange(f"its output is {shapes.get(graph.output)}, not {classes} logits")
    return macs, weights


def _shape_of(node: Node, graph: Graph, shapes: Mapping[str, Shape]) -> Shape:
    """Of a node's output, without the batch."""
    first, *others = node.inputs
    if first not in shapes:
        raise _Strange(f"the first input of node {node.name!r} is a weight")
    if node.op in ("Add", "Mul"):
        return _combined(node, graph, shapes)
    if not graph.weights.keys() >= set(others):
        raise _Strange(f"the weights of node {node.name!r} are computed")
    return _RULES.get(node.op, _same)(node, shapes[first], [graph.weights[n].shape for n in others])


def _combined(node: Node, graph: Graph, shapes: Mapping[str, Shape]) -> Shape:
    """Of a sum or product: the second is of the same shape, or one number a channel."""
    x = shapes[node.inputs[0]]
    other = node.inputs[1] if len(node.inputs) == 2 else ""
    second = shapes.get(other) or graph.weights.get(other, np.empty(0)).shape[1:]
    if second not in (x, (x[0], 1, 1)) or len(x) != 3:
        raise _Strange(f"the inputs of node {node.name!r} do not fit")
    return x


def _after_conv(node: Node, x: Shape, constants: list[Shape]) -> Shape:
    stated = node.attributes
    weight, groups = constants[0] if constants else (), stated["group"]
    sound = len(x) == 3 and len(weight) == 4 and groups >= 1 and min(stated["strides"]) >= 1
    sound = sound and tuple(stated["kernel_shape"]) == weight[2:] and min(stated["pads"]) >= 0
    sound = sound and x[0] == weight[1] * groups and weight[0] % groups == 0
    if not sound or constants[1:] not in ([], [weight[:1]]) or max(stated["pads"]) >= MOST_PIXELS:
        raise _Strange(f"the weights of node {node.name!r} do not fit")
    top, left, bottom, right = stated["pads"]
    down, across = stated["strides"]
    height = (x[1] + top + bottom - weight[2]) // down + 1
    width = (x[2] + left + right - weight[3]) // across + 1
    if min(height, width) < 1:
        raise _Strange(f"nothing is left after node {node.name!r}")
    return (weight[0], height, width)


def _after_gemm(node: Node, x: Shape, constants: list[Shape]) -> Shape:
    if len(x) != 1 or len(constants) != 2 or constants != [(*constants[1], *x), constants[0][:1]]:
        raise _Strange(f"the weights of node {node.name!r} do not fit")
    return constants[1]


def _after_pool(node: Node, x: Shape, constants: list[Shape]) -> Shape:
    stated = node.attributes
    square = [2, 2] == list(stated["kernel_shape"]) == list(stated["strides"])
    if len(x) != 3 or constants or not square:
        raise _Strange(f"node {node.name!r} pools other than 2 x 2")
    height, width = (-(-n // 2) if "ceil_mode" in stated else n // 2 for n in x[1:])
    if min(height, width) < 1:
        raise _Strange(f"nothing is left after node {node.name!r}")
    return (x[0], height, width)


def _after_global_pool(node: Node, x: Shape, constants: list[Shape]) -> Shape:
    if len(x) != 3 or constants:
        raise _Strange(f"node {node.name!r} has no maps to pool")
    return (x[0], 1, 1)


def _after_flatten(node: Node, x: Shape, constants: list[Shape]) -> Shape:
    return (prod(_same(node, x, constants)),)


def _same(node: Node, x: Shape, constants: list[Shape]) -> Shape:
    if constants:
        raise _Strange(f"node {node.name!r} has an input too many")
    return x


_RULES = {
    "Conv": _after_conv,
    "Gemm": _after_gemm,
    "AveragePool": _after_pool,
    "GlobalAveragePool": _after_global_pool,
    "Flatten": _after_flatten,
}
"""The shape of a node's output, from that of its input and those of its weights."""


def _normalisation(
    graph: Graph,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation that the first two nodes take from pixels, if they do."""
    scale, shift = (_constant(graph, node) for node in graph.nodes[:2])
    if scale is None or shift is None or [n.op for n in graph.nodes[:2]] != ["Mul", "Add"]:
        return None, None
    std = 1 / (255 * scale)
    return tuple((-shift * std).tolist()), tuple(std.tolist())


def _constant(graph: Graph, node: Node) -> NDArray[np.float64] | None:
    """The three numbers that a node combines the channels with, if it does."""
    array: Any = graph.weights.get(node.inputs[-1])
    if array is None or array.size != 3 or not np.isfinite(array).all() or not array.any():
        return None
    return np.asarray(array, np.float64).ravel()
