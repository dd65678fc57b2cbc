"""OpenVINO on the CPU, in fp32 and bf16."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.machine import environment
from elastic_nas.runtimes._runtime import PackagedRuntime, fixed_input, model_bytes

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
HINTS = {"fp32": "f32", "bf16": "bf16"}


@dataclass(frozen=True)
class Runtime(PackagedRuntime):
    """Runs ONNX models with OpenVINO's CPU plugin: one stream, set for latency.

    With one thread an inference happens in the calling thread (process CPU time equals that
    thread's); with more it spreads over a pool.
    """

    name: ClassVar[str] = "openvino"
    extra: ClassVar[str] = "openvino"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "bf16")
    graph_optimization: ClassVar[str] = "latency"

    def load(self, converted: bytes, input_shape: tuple[int, ...]) -> Callable[[], object]:
        """A function that runs an ONNX model once, at batch 1, on a fixed random input."""
        x = fixed_input(input_shape)
        request = self._request(converted, x)

        def run() -> list[NDArray[np.float32]]:
            request.infer()
            return [request.get_output_tensor(0).data]

        return run

    def run(self, model: bytes | Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output of an ONNX model for the batch `x`.

        Raises:
            MissingExtra: OpenVINO is not installed.
            ElasticNasError: It refuses the model or the input.
        """
        request = self._request(model_bytes(model), x)
        request.infer()
        return np.array(request.get_output_tensor(0).data)

    def _request(self, model: bytes, x: NDArray[np.float32]) -> Any:
        """A request for the model at the shape of `x`, with `x` as its input."""
        self._check_cpu()
        openvino = self.package()
        core = openvino.Core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
        }
        try:
            graph = core.read_model(model)
            wanted = graph.input(0).partial_shape
            if not wanted.compatible(openvino.PartialShape(list(x.shape))):
                takes = f"on {x.shape}: it takes {wanted}"
                raise ElasticNasError(f"openvino cannot run the model {takes}.")
            graph.reshape(list(x.shape))
            request = core.compile_model(graph, self.provider, options).create_infer_request()
        except RuntimeError as error:
            raise self.refusal(_reason(error)) from error
        request.set_input_tensor(openvino.Tensor(x))
        return request

    def _check_cpu(self) -> None:
        """Refuse a precision that OpenVINO would replace by another without a word."""
        if self.precision == "bf16" and not BF16_FLAGS & set(environment()["flags"]):
            raise ConfigError(
                "this machine's CPU has no bf16 (avx512_bf16 or amx_bf16); openvino has fp32 here."
            )

    def package(self) -> Any:
        """OpenVINO without its telemetry, which would report every import over the network."""
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        return super().package()


def _reason(error: Exception) -> str:
    """What an error says, without the lines that name OpenVINO's own source files."""
    lines = [line.strip() for line in str(error).splitlines()]
    noise = ("Exception from", "Check '", "FrontEnd API", "Summary:", "To facilitate")
    return " ".join(line for line in lines if line and not line.startswith(noise)).rstrip(".")
