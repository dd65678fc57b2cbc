"""ONNX to ncnn: the layers that ncnn's own converter writes, in a hundredth of its time.

`pnnx` takes .25 to .33 s a model, minutes for a table. Layers, fusions and parameters here are
those that pnnx chooses (a slow test compares them), numbered as in
https://github.com/Tencent/ncnn/wiki/operators; the two files are described in
https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from elastic_nas.runtimes._graph import Array, Graph, Node

MAGIC = 7767517
FLOAT32 = b"\0\0\0\0"
"""What stands before weights that are not compressed."""
FUSED = {"Relu": 1, "Sigmoid": 4}
"""Activations that pnnx lets a layer with weights compute itself, by ncnn's number."""
BINARY = {"Add": 0, "Mul": 2}
KINDS = {"Relu": "ReLU"}
"""Where ncnn's name of an activation is not ONNX's."""

Params = dict[int, int | float]


@dataclass
class Layer:
    """One line of the param file, with the weights that belong to it."""

    kind: str
    inputs: list[str]
    output: str
    params: Params = field(default_factory=dict)
    weights: bytes = b""


def write_ncnn(graph: Graph) -> tuple[str, bytes]:
    """The param file's text and the bin file's content.

    Raises:
        ElasticNasError: A node has weights of a form that is not translated.
    """
    writer = _Writer(graph)
    for node in graph.nodes:
        WRITERS[node.op](writer, node)
    return _text(writer.layers, graph.output), b"".join(layer.weights for layer in writer.layers)


class _Writer:
    """Collects layers; `flat` holds the tensors that are vectors in ncnn."""

    def __init__(self, graph: Graph) -> None:
        self.weights = graph.weights
        self.uses = graph.uses()
        self.layers = [Layer("Input", [], graph.input)]
        self.flat = {graph.input} if len(graph.input_shape) == 1 else set[str]()

    def append(self, kind: str, node: Node, params: Params, *weights: Array) -> None:
        """A layer that reads the node's first input."""
        content = b"".join(np.ascontiguousarray(weight).tobytes() for weight in weights)
        layer = Layer(kind, [node.inputs[0]], node.output, params)
        layer.weights = FLOAT32 + content if weights else b""
        self.layers.append(layer)
        if node.inputs[0] in self.flat:
            self.flat.add(node.output)

    def taken_over(self, node: Node) -> Layer | None:
        """The layer that makes the node's input, if nobody else reads that."""
        if self.uses[node.inputs[0]] > 1:
            return None
        return next(layer for layer in self.layers if layer.output == node.inputs[0])

    def conv(self, node: Node) -> None:
        """A convolution; on a vector it is a matrix."""
        weights = [self.weights[name] for name in node.inputs[1:]]
        groups = node.attributes["group"]
        if node.inputs[0] in self.flat:
            if groups > 1 or weights[0][0, 0].size > 1:
                raise node.refusal("ncnn")
            self.linear(node)
            return
        height, width = node.attributes["kernel_shape"]
        down, across = node.attributes["strides"]
        top, left, *_ = node.attributes["pads"]
        params: Params = {0: len(weights[0]), 1: width, 11: height, 3: across, 13: down}
        params |= {4: left, 14: top, 5: len(weights) - 1, 6: weights[0].size}
        if groups == 1:
            self.append("Convolution", node, params, *weights)
        else:
            self.append("ConvolutionDepthWise", node, params | {7: groups}, *weights)

    def linear(self, node: Node) -> None:
        """A linear layer, its weight (out, in)."""
        weights = [self.weights[name] for name in node.inputs[1:]]
        params: Params = {0: len(weights[0]), 1: len(weights) - 1, 2: weights[0].size}
        self.append("InnerProduct", node, params, *weights)

    def activation(self, node: Node) -> None:
        """An activation, fused into the layer with weights before it where pnnx does."""
        maker = self.taken_over(node) if node.op in FUSED else None
        if maker and maker.weights and 9 not in maker.params:
            maker.params[9] = FUSED[node.op]
            self.rename(maker, node)
        elif node.op.startswith("Hard"):
            self.append(node.op, node, {0: 1 / 6, 1: 0.5})
        else:
            self.append(KINDS.get(node.op, node.op), node, {})

    def rename(self, maker: Layer, node: Node) -> None:
        """Let an earlier layer write the node's output itself."""
        if maker.output in self.flat:
            self.flat.add(node.output)
        maker.output = node.output

    def binary(self, node: Node) -> None:
        """A sum or product of two tensors, or of one and a constant per channel."""
        for name in self.weights.keys() & set(node.inputs):
            value = self.weights[name]
            if value.shape != (1, value.size, 1, 1):
                raise node.refusal("ncnn")
            shape: Params = {0: 1, 1: 1, 2: value.size}
            self.layers.append(Layer("MemoryData", [], name, shape, value.tobytes()))
        self.append("BinaryOp", node, {0: BINARY[node.op]})
        self.layers[-1].inputs = list(node.inputs)

    def average_pool(self, node: Node) -> None:
        """An average over windows without padding."""
        height, width = node.attributes["kernel_shape"]
        down, across = node.attributes["strides"]
        whole_windows = 1 - node.attributes.get("ceil_mode", 0)
        params: Params = {0: 1, 1: width, 11: height, 2: across, 12: down, 5: whole_windows}
        self.append("Pooling", node, params)

    def global_pool(self, node: Node) -> None:
        """An average over each channel, which leaves a vector."""
        self.append("Pooling", node, {0: 1, 4: 1})
        self.flat.add(node.output)

    def flatten(self, node: Node) -> None:
        """Nothing but a name where the tensor is a vector already."""
        maker = self.taken_over(node) if node.inputs[0] in self.flat else None
        if maker:
            self.rename(maker, node)
        else:
            self.append("Flatten", node, {})
            self.flat.add(node.output)


WRITERS: Mapping[str, Callable[[_Writer, Node], None]] = {
    "Conv": _Writer.conv,
    "Gemm": _Writer.linear,
    "Relu": _Writer.activation,
    "Sigmoid": _Writer.activation,
    "Swish": _Writer.activation,
    "HardSwish": _Writer.activation,
    "HardSigmoid": _Writer.activation,
    "Add": _Writer.binary,
    "Mul": _Writer.binary,
    "AveragePool": _Writer.average_pool,
    "GlobalAveragePool": _Writer.global_pool,
    "Flatten": _Writer.flatten,
}


def _text(layers: Sequence[Layer], output: str) -> str:
    """The param file: a tensor that several layers read is split for them first."""
    readers = Counter([output, *(name for layer in layers for name in layer.inputs)])
    copies: dict[str, list[str]] = {}
    lines: list[str] = []
    tensors = len(layers)
    for number, layer in enumerate(layers):
        inputs = [copies[name].pop() if name in copies else name for name in layer.inputs]
        lines.append(_line(f"{layer.kind} {number}", inputs, [layer.output], layer.params))
        if readers[layer.output] > 1:
            names = [f"{layer.output}.{copy}" for copy in range(readers[layer.output])]
            lines.append(_line(f"Split split.{number}", [layer.output], names, {}))
            copies[layer.output] = names
            tensors += len(names)
    return "\n".join([str(MAGIC), f"{len(lines)} {tensors}", *lines, ""])


def _line(head: str, inputs: list[str], outputs: list[str], params: Params) -> str:
    # ncnn knows a float by its point or exponent, and reads 15 characters of a number.
    numbers = [f"{k}={v:.8e}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items()]
    return " ".join([head, f"{len(inputs)} {len(outputs)}", *inputs, *outputs, *numbers])
