"""PyTorch, operator by operator, on the CPU or a CUDA GPU."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import ConfigError
from elastic_nas.runtimes._graph import Graph, Node, read_graph
from elastic_nas.runtimes._runtime import PackagedRuntime, fixed_input, model_bytes

if TYPE_CHECKING:
    from torch import Tensor

Operation = Callable[..., "Tensor"]


@dataclass(frozen=True)
class Runtime(PackagedRuntime):
    """Computes the graph of an ONNX model with PyTorch's functions, as eager programs do.

    A run takes its input from host memory and returns the output there, so that copies to and
    from a GPU and the wait for it are part of its time. fp16 is for CUDA. Untested on a GPU.
    """

    provider: str = "cpu"

    name: ClassVar[str] = "torch"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16")
    providers: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    graph_optimization: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "fp16" and self.provider == "cpu":
            raise ConfigError("torch has no precision 'fp16' on the CPU; it has fp32 there.")

    def load(self, converted: bytes, input_shape: tuple[int, ...]) -> Callable[[], object]:
        """A function that runs an ONNX model once, at batch 1, on a fixed random input."""
        infer = self._network(converted, input_shape)
        x = self.package().tensor(fixed_input(input_shape))
        return lambda: [infer(x)]

    def run(self, model: bytes | Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output of an ONNX model for the batch `x`.

        Raises:
            ConfigError: There is no CUDA device.
            ElasticNasError: The model has an operator that is not translated, or another input.
        """
        return self._network(model_bytes(model), x.shape[1:])(self.package().tensor(x))

    def _network(
        self, model: bytes, input_shape: tuple[int, ...]
    ) -> Callable[["Tensor"], NDArray[np.float32]]:
        """What computes the output for a batch in host memory."""
        torch = self.package()
        if self.provider == "cuda" and not torch.cuda.is_available():
            raise ConfigError("torch sees no CUDA device here; it has the provider cpu.")
        graph = read_graph(model, input_shape, self.name)
        place = {
            "device": self.provider,
            "dtype": torch.float16 if self.precision == "fp16" else torch.float32,
        }
        weights = {name: torch.tensor(w, **place) for name, w in graph.weights.items()}
        steps = _steps(graph)

        def infer(x: "Tensor") -> NDArray[np.float32]:
            with _threads(self.threads), torch.inference_mode():
                values = {**weights, graph.input: x.to(**place)}
                for compute, inputs, output, dead in steps:
                    values[output] = compute(*[values[name] for name in inputs])
                    for name in dead:
                        del values[name]
                if self.provider == "cuda":
                    torch.cuda.synchronize()
                return np.asarray(values[graph.output].float().cpu().numpy())

        return infer


def _steps(graph: Graph) -> list[tuple[Operation, tuple[str, ...], str, set[str]]]:
    """For each node: its function, inputs, output, and the tensors that are needed no more."""
    last = {name: number for number, node in enumerate(graph.nodes) for name in node.inputs}
    kept = graph.weights.keys() | {graph.output}
    return [
        (
            _operation(node),
            node.inputs,
            node.output,
            {name for name in set(node.inputs) - kept if last[name] == number},
        )
        for number, node in enumerate(graph.nodes)
    ]


def _operation(node: Node) -> Operation:
    """PyTorch's function for a node, which takes the node's inputs in their order."""
    import torch
    from torch.nn import functional as F

    stated = node.attributes
    if node.op == "Conv":
        down, across, *_ = stated["pads"]
        return partial(
            F.conv2d, stride=stated["strides"], padding=(down, across), groups=stated["group"]
        )
    if node.op == "AveragePool":
        return partial(
            F.avg_pool2d,
            kernel_size=stated["kernel_shape"],
            stride=stated["strides"],
            ceil_mode="ceil_mode" in stated,
        )
    functions: Mapping[str, Operation] = {
        "Gemm": F.linear,
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Swish": F.silu,
        "HardSwish": F.hardswish,
        "HardSigmoid": F.hardsigmoid,
        "Mul": torch.mul,
        "Add": torch.add,
        "GlobalAveragePool": partial(torch.mean, dim=(2, 3), keepdim=True),
        "Flatten": partial(torch.flatten, start_dim=1),
    }
    return functions[node.op]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let PyTorch use that many threads meanwhile."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
