"""An ONNX model as plain values, for runtimes that take it operator by operator.

Only what `nn/onnx_writer.py` emits is understood; anything else is refused by name, never guessed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import ElasticNasError

Array = NDArray[np.float32]

ATTRIBUTES: Mapping[str, set[str]] = {
    "Conv": {"kernel_shape", "strides", "pads", "group"},
    "Gemm": {"transB"},
    "Relu": set(),
    "Sigmoid": set(),
    "HardSwish": set(),
    "HardSigmoid": {"alpha", "beta"},
    "Mul": set(),
    "Add": set(),
    "AveragePool": {"kernel_shape", "strides"},
    "GlobalAveragePool": set(),
    "Flatten": {"axis"},
}
"""Operators that are understood, and the attributes that each must state."""
RIM = {"ceil_mode": 1, "count_include_pad": 0}
"""The other two that an average pool may state, together."""
FIXED = {"transB": 1, "axis": 1, "alpha": 1 / 6, "beta": 0.5}
"""Values that these attributes must have."""


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: ONNX's operator, or ``Swish``.
        name: For messages.
        inputs: Names of tensors; weights among them.
        output: The one tensor that it makes.
        attributes: As far as the model states them.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]

    def refusal(self, runtime: str) -> ElasticNasError:
        """An error that says that a runtime cannot do this."""
        stated = "".join(f", {key}={value}" for key, value in self.attributes.items())
        return ElasticNasError(
            f"{runtime} cannot run the model: no translation of its operator {self.op} "
            f"({self.name!r}{stated})."
        )


@dataclass(frozen=True)
class Graph:
    """A model with one input and one output.

    Attributes:
        input: Name of the input.
        input_shape: Without the batch.
        output: Name of the output.
        nodes: In the order of computation.
        weights: Constants by name, in float32.
    """

    input: str
    input_shape: tuple[int, ...]
    output: str
    nodes: tuple[Node, ...]
    weights: Mapping[str, Array]

    def uses(self) -> Counter[str]:
        """How often each tensor is read, by nodes and as the output."""
        return Counter([self.output, *(name for node in self.nodes for name in node.inputs)])


def read_graph(model: bytes, input_shape: tuple[int, ...], runtime: str) -> Graph:
    """The graph of a serialised ONNX model, ``x * sigmoid(x)`` joined to one node ``Swish``.

    Args:
        model: As `nn.onnx_writer` makes them.
        input_shape: What the input must be, without the batch.
        runtime: Who asks, for messages.

    Raises:
        ElasticNasError: The bytes are no such model, it takes another input, or it has an operator
            that is not understood.
    """
    try:
        graph = _parsed(model)
    except Exception as error:  # protobuf's and numpy's errors share no base class
        raise ElasticNasError(f"{runtime} refuses the model: {error}.") from error
    for node in graph.nodes:
        if not _understood(node):
            raise node.refusal(runtime)
    if graph.input_shape != input_shape:
        raise ElasticNasError(
            f"{runtime} cannot run the model on {input_shape}: it takes {graph.input_shape}."
        )
    return Graph(graph.input, input_shape, graph.output, _swishes_joined(graph), graph.weights)


def _parsed(model: bytes) -> Graph:
    import onnx
    from onnx import helper, numpy_helper

    graph = onnx.load_from_string(model).graph
    (given,), (made,) = graph.input, graph.output
    nodes = tuple(
        Node(
            node.op_type,
            node.name,
            tuple(node.input),
            node.output[0],
            {a.name: helper.get_attribute_value(a) for a in node.attribute},
        )
        for node in graph.node
    )
    weights = {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in graph.initializer
    }
    shape = tuple(dim.dim_value for dim in given.type.tensor_type.shape.dim[1:])
    return Graph(given.name, shape, made.name, nodes, weights)


def _understood(node: Node) -> bool:
    stated = dict(node.attributes)
    if node.op == "AveragePool" and RIM.items() <= stated.items():
        stated = {key: stated[key] for key in stated if key not in RIM}
    if node.op not in ATTRIBUTES or stated.keys() != ATTRIBUTES[node.op]:
        return False
    pads = stated.get("pads", [])
    same_pads = list(pads[:2]) == list(pads[2:])
    fixed = all(
        isclose(stated.get(key, value), value, rel_tol=1e-6) for key, value in FIXED.items()
    )
    return same_pads and fixed


def _swishes_joined(graph: Graph) -> tuple[Node, ...]:
    uses, nodes = graph.uses(), list[Node]()
    for node in graph.nodes:
        gate = nodes[-1] if nodes else node
        own_gate = gate.op == "Sigmoid" and uses[gate.output] == 1
        if own_gate and node.op == "Mul" and set(node.inputs) == {*gate.inputs, gate.output}:
            nodes[-1] = Node("Swish", node.name, gate.inputs, node.output, {})
        else:
            nodes.append(node)
    return tuple(nodes)
