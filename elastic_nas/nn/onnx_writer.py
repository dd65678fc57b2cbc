"""The one ONNX writer: micro-models and children come from here, so that what is timed ships.

Nodes are named by block, batch norms are folded, and nothing foreign is in the graph (no stack
traces, no external data). Opset 18 with IR 8, the lowest that has it, loads on every ONNX Runtime
since the release that `oldest` names; `tools/check_oldest.py` runs files there.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 18
IR_VERSION = 8

Array = NDArray[np.float32]


class GraphWriter:
    """Collects nodes and weights; each method adds one operation and returns its output's name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Add any operator with one output, called like the node."""
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(self, name: str, value: Any) -> str:
        """Add a constant in float32."""
        array = np.ascontiguousarray(value, dtype=np.float32)
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, name: str, x: str, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> str:
        """A convolution with its batch norm folded in."""
        weight, bias = folded(conv, norm)
        inputs = [x, self.weight(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.weight(f"{name}.bias", bias))
        kernel, stride, pad = conv.kernel_size, conv.stride, int(conv.padding[0])
        return self.node(
            "Conv",
            name,
            inputs,
            kernel_shape=list(kernel),
            strides=list(stride),
            pads=[pad] * 4,
            group=conv.groups,
        )

    def activation(self, name: str, x: str, kind: str) -> str:
        """The activation of that name; swish as Sigmoid and Mul, which runtimes fuse."""
        match kind:
            case "relu":
                return self.node("Relu", name, [x])
            case "hswish":
                return self.node("HardSwish", name, [x])
            case "sigmoid":
                return self.node("Sigmoid", name, [x])
            case "hsigmoid":
                return self.node("HardSigmoid", name, [x], alpha=1 / 6, beta=0.5)
            case "swish":
                return self.node("Mul", name, [x, self.node("Sigmoid", f"{name}.sigmoid", [x])])
        raise ValueError(f"no activation called {kind!r}")

    def halve(self, name: str, x: str, size: int) -> str:
        """2x2 average pool with stride 2; the rim of odd sizes averages what is there."""
        attributes = {"ceil_mode": 1, "count_include_pad": 0} if size % 2 else {}
        return self.node(
            "AveragePool", name, [x], kernel_shape=[2, 2], strides=[2, 2], **attributes
        )

    def pool(self, name: str, x: str) -> str:
        """Global average pool, keeping the two spatial dimensions."""
        return self.node("GlobalAveragePool", name, [x])

    def flatten(self, name: str, x: str) -> str:
        """(N, C, 1, 1) to (N, C)."""
        return self.node("Flatten", name, [x], axis=1)

    def linear(self, name: str, x: str, linear: nn.Linear) -> str:
        """A linear layer with bias."""
        weight = self.weight(f"{name}.weight", linear.weight.detach().cpu().numpy())
        bias = self.weight(f"{name}.bias", linear.bias.detach().cpu().numpy())
        return self.node("Gemm", name, [x, weight, bias], transB=1)

    def normalise(self, x: str, mean: tuple[float, ...], std: tuple[float, ...]) -> str:
        """``(x / 255 - mean) / std`` per channel, as one multiplication and one addition."""
        scale = [1 / (255 * s) for s in std]
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        scaled = self.node("Mul", "normalise.scale", [x, self.weight("scale", _column(scale))])
        return self.node("Add", "normalise.shift", [scaled, self.weight("shift", _column(shift))])

    def model(
        self, input_shape: tuple[int, ...], output: str, output_shape: tuple[int, ...]
    ) -> onnx.ModelProto:
        """The finished model: input ``input``, output ``logits``, dynamic batch, float32.

        Args:
            input_shape: Without the batch.
            output: Name of the tensor that becomes the output.
            output_shape: Without the batch.
        """
        from elastic_nas._version import __version__

        self.node("Identity", "logits", [output])
        self._drop_identity(output)
        graph = helper.make_graph(
            self._nodes,
            "child",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *input_shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *output_shape])],
            self._weights,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="elastic-nas",
            producer_version=__version__,
        )

    def _drop_identity(self, output: str) -> None:
        """Let the last node write ``logits`` itself instead of a copy of its output."""
        self._nodes.pop()
        for node in self._nodes:
            if node.output[0] == output:
                node.output[0] = "logits"


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Array, Array | None]:
    """Weight and bias of a convolution with its batch norm folded in; computed in float64."""
    weight = conv.weight.detach().cpu().double()
    bias = None if conv.bias is None else conv.bias.detach().cpu().double()
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach().cpu().double()
        scale = scale / (norm.running_var.cpu().double() + norm.eps).sqrt()
        shift = norm.bias.detach().cpu().double() - norm.running_mean.cpu().double() * scale
        weight = weight * scale[:, None, None, None]
        bias = shift if bias is None else bias * scale + shift
    return weight.float().numpy(), None if bias is None else bias.float().numpy()


def _column(values: list[float]) -> Array:
    return np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1)
