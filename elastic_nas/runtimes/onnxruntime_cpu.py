"""ONNX Runtime on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import ConfigError, ElasticNasError

MAX_THREADS = 1024
ERRORS_ONLY = 3
INPUT_SEED = 7


@dataclass(frozen=True)
class Runtime:
    """Runs ONNX models one at a time with an explicit number of threads.

    Attributes:
        threads: Threads inside an operator; there are none between operators.
    """

    threads: int = 1

    name: ClassVar[str] = "onnxruntime"
    provider: ClassVar[str] = "CPUExecutionProvider"
    graph_optimization: ClassVar[str] = "all"

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"threads must be 1 to {MAX_THREADS}, got {self.threads}.")

    @property
    def version(self) -> str:
        """Release of the installed ONNX Runtime, without importing it."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("onnxruntime")
        except PackageNotFoundError:  # another build, such as onnxruntime-gpu
            import onnxruntime

            return str(onnxruntime.__version__)

    @property
    def owns_threads(self) -> bool:
        """Whether work happens outside the calling thread."""
        return self.threads > 1

    def describe(self) -> dict[str, Any]:
        """What identifies this runtime, as stored in a latency table."""
        return {
            "name": self.name,
            "version": self.version,
            "provider": self.provider,
            "threads": self.threads,
            "graph_optimization": self.graph_optimization,
        }

    def prepare(self, model: bytes, input_shape: tuple[int, ...]) -> Callable[[], object]:
        """A function that runs the model once, at batch 1, on a fixed random input.

        Args:
            model: A serialised ONNX model with one input.
            input_shape: Without the batch. Three channels get pixels of 0-255, everything else
                (a block's features) numbers from a unit normal.

        Raises:
            ElasticNasError: ONNX Runtime refuses the model or does not run it on the CPU.
        """
        session = self._session(model)
        rng = np.random.default_rng(INPUT_SEED)
        shape = (1, *input_shape)
        x = rng.uniform(0, 255, shape) if input_shape[0] == 3 else rng.standard_normal(shape)
        feed = {session.get_inputs()[0].name: x.astype(np.float32)}
        return lambda: session.run(None, feed)

    def run(self, model: bytes | Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output of a model for the batch `x`.

        Raises:
            ElasticNasError: ONNX Runtime refuses the model or the input.
        """
        session = self._session(model)
        try:
            outputs = session.run(None, {session.get_inputs()[0].name: x})
        except Exception as error:
            raise ElasticNasError(f"ONNX Runtime cannot run the model: {error}.") from error
        return np.asarray(outputs[0])

    def _session(self, model: bytes | Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = model if isinstance(model, bytes) else str(model)
        try:
            session = onnxruntime.InferenceSession(source, options, providers=[self.provider])
        except Exception as error:  # its exceptions share no base class
            raise ElasticNasError(f"ONNX Runtime refuses the model: {error}.") from error
        if session.get_providers() != [self.provider]:
            raise ElasticNasError(
                f"ONNX Runtime runs the model on {session.get_providers()}, not {self.provider}."
            )
        return session
