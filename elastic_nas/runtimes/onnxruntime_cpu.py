"""ONNX Runtime, fp32 and int8: on the CPU, or with another of its execution providers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.machine import environment
from elastic_nas.runtimes._memory import peak_activation_bytes
from elastic_nas.runtimes._quantise import SCHEMES, quantise, ranges_of, scheme_for
from elastic_nas.runtimes._runtime import PackagedRuntime, fixed_input, model_bytes

ERRORS_ONLY = 3
CPU = "CPUExecutionProvider"
XNNPACK = "XnnpackExecutionProvider"
"""It has threads of its own: one, unless told."""


@dataclass(frozen=True)
class Runtime(PackagedRuntime):
    """Runs ONNX models with an explicit number of threads.

    Providers other than the CPU's follow ONNX Runtime's documentation and are **untested**. One
    that is not installed, or that would leave a part of the model to the CPU, is an error.

    Attributes:
        scheme: Of int8, one of `_quantise.SCHEMES`; by default what this machine's CPU runs fast.
    """

    provider: str = CPU
    scheme: str = ""

    name: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    providers: ClassVar[tuple[str, ...]] = (
        CPU,
        "CUDAExecutionProvider",
        "TensorrtExecutionProvider",
        "CoreMLExecutionProvider",
        "OpenVINOExecutionProvider",
        XNNPACK,
        "QNNExecutionProvider",
        "NnapiExecutionProvider",
    )
    graph_optimization: ClassVar[str] = "all"
    scheme_for: ClassVar[Callable[[str, Iterable[str], str], str]] = staticmethod(scheme_for)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheme and (self.precision != "int8" or self.scheme not in SCHEMES):
            raise ConfigError(
                f"scheme {self.scheme!r} is none of int8's: {', '.join(SCHEMES)}; other precisions "
                "have none."
            )

    @property
    def version(self) -> str:
        """Release of the installed ONNX Runtime, whatever its build is called; nothing without."""
        from importlib.metadata import PackageNotFoundError, version

        for build in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-qnn", "onnxruntime-openvino"):
            try:
                return version(build)
            except PackageNotFoundError:
                continue
        return ""

    @property
    def used_scheme(self) -> str:
        """How int8 models are quantised: as told, or as this machine's CPU runs fast."""
        facts = environment()
        return self.scheme or scheme_for(facts["arch"], facts["flags"], self.provider)

    def convert(
        self,
        model: bytes,
        input_shape: tuple[int, ...],
        images: NDArray[np.float32] | None = None,
    ) -> bytes:
        """The same model, or its int8 form.

        Args:
            model: A serialised fp32 ONNX model.
            input_shape: Without the batch.
            images: What the model will see, for the ranges of int8 (N, *input_shape). Without, they
                are those of one fixed random input: enough to time the form, not to use it.
        """
        if self.precision == "fp32":
            return model
        seen = fixed_input(input_shape) if images is None else images
        try:
            return quantise(model, ranges_of(model, seen), self.used_scheme)
        except Exception as error:  # neither library's errors share a base class
            raise self.refusal(error) from error

    def load(self, converted: bytes, input_shape: tuple[int, ...]) -> Callable[[], object]:
        """A function that runs a model once, at batch 1, on a fixed random input.

        Raises:
            ElasticNasError: ONNX Runtime refuses the model, or leaves some of it to the CPU.
        """
        session = self._session(converted)
        feed = {session.get_inputs()[0].name: fixed_input(input_shape)}
        return lambda: session.run(None, feed)

    def run(self, model: bytes | Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output of an fp32 ONNX model, converted, for the batch `x`.

        Raises:
            ElasticNasError: ONNX Runtime refuses the model or the input.
        """
        source = model
        if self.precision != "fp32":
            content = model_bytes(model)
            source = self.convert(content, self._input_shape(content))
        return self.run_converted(source, x)

    def run_converted(self, converted: bytes | Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output of what `convert` made, for the batch `x`.

        Raises:
            ElasticNasError: ONNX Runtime refuses the model or the input.
        """
        session = self._session(converted)
        try:
            outputs = session.run(None, {session.get_inputs()[0].name: x})
        except Exception as error:
            raise ElasticNasError(f"onnxruntime cannot run the model: {error}.") from error
        return np.asarray(outputs[0])

    def _input_shape(self, model: bytes) -> tuple[int, ...]:
        """Of an ONNX model's input, without the batch."""
        import onnx

        try:
            (source,) = onnx.load_from_string(model).graph.input
        except Exception as error:  # protobuf's and unpacking's
            raise self.refusal("it is no ONNX model with one input") from error
        return tuple(dim.dim_value for dim in source.type.tensor_type.shape.dim[1:])

    def peak_activation_bytes(self, model: bytes, input_shape: tuple[int, ...]) -> int | None:
        """The most that an fp32 model's activations take at one time, at batch 1, once converted.

        Returns:
            Bytes by the runtime's own counters; None for a provider that has none.
        """
        if self.provider != CPU:
            return None
        onnxruntime, converted = self.package(), self.convert(model, input_shape)
        options = self._options(onnxruntime)
        return peak_activation_bytes(converted, fixed_input(input_shape), options, self._made)

    def _made(self, source: bytes | str, options: Any) -> Any:
        own = {"intra_op_num_threads": str(self.threads)} if self.provider == XNNPACK else {}
        chosen = {"providers": [self.provider], "provider_options": [own]}
        try:  # fallback: to another provider where this one fails, at loading or in any run
            return self.package().InferenceSession(source, options, enable_fallback=0, **chosen)
        except Exception as error:  # its exceptions share no base class
            raise self.refusal(error) from error

    def _left_to_cpu(self, source: bytes | str) -> list[str]:
        """Operators that the provider lacks; none where this release of ONNX Runtime hides them."""
        options = self._options(self.package(), fallback=True)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            parts = self._made(source, options).get_provider_graph_assignment_info()
        except (ElasticNasError, AttributeError):  # the method came with ONNX Runtime 1.24
            return []
        return sorted(
            {n.op_type for part in parts if part.ep_name == CPU for n in part.get_nodes()}
        )

    def _session(self, model: bytes | Path) -> Any:
        onnxruntime = self.package()
        available = onnxruntime.get_available_providers()
        if self.provider not in available:
            raise ConfigError(
                f"this onnxruntime has no {self.provider}; it has {', '.join(available)}. Install "
                "the build that has it, or take another device."
            )
        source = model if isinstance(model, bytes) else str(model)
        try:
            session = self._made(source, self._options(onnxruntime))
        except ElasticNasError as error:
            if self.provider == CPU or not (left := self._left_to_cpu(source)):
                raise
            raise self.refusal(
                f"{self.provider} would leave {', '.join(left)} to the CPU"
            ) from error
        if session.get_providers()[0] != self.provider:
            raise ElasticNasError(
                f"onnxruntime runs the model on {session.get_providers()}, not {self.provider}."
            )
        return session

    def _options(self, onnxruntime: Any, *, fallback: bool = False) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self.provider != CPU and not fallback:
            # a figure of two processors would be one of neither
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options
