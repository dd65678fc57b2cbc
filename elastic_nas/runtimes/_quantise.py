"""Fp32 ONNX models made int8: quantise and dequantise nodes around what has integer kernels.

The scheme follows the instructions of the target: the library's default for all, signed
activations, made MobileNets 1.6 to 2.6 times *slower* than fp32 on x86. See
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

import logging
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

SYMMETRIC = "S8S8-symmetric"
SCHEMES = ("U8S8", "U8S8-reduced", "S8S8", SYMMETRIC)
"""Unsigned or signed activations, signed weights; reduced: weights of 7 bits, since without VNNI
the products of 8 bits saturate; symmetric: zero is 0, as GPUs want it."""
GPU_OPTIONS = {"ActivationSymmetric": True, "QuantizeBias": False, "DedicatedQDQPair": True}
"""TensorRT refuses other zeros, integer biases and shared nodes (issues 14229 and 14626 and pull
request 9720 of microsoft/onnxruntime)."""
GPU = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
AT_ONCE = 8
"""Images in memory with all their tensors."""
VNNI = {"avx512_vnni", "avx_vnni", "avx512vnni", "avxvnni"}

Ranges = Mapping[str, tuple[float, float]]


def scheme_for(arch: str, flags: Iterable[str], provider: str = "") -> str:
    """The scheme that is fast on a CPU of this architecture with these flags, or on a GPU."""
    if provider in GPU:
        return SYMMETRIC
    if arch not in ("x86_64", "AMD64"):
        return "S8S8"
    return "U8S8" if VNNI & set(flags) else "U8S8-reduced"


def ranges_of(model: bytes, images: NDArray[np.float32]) -> dict[str, tuple[float, float]]:
    """The least and the largest value of every tensor, by its name.

    Args:
        model: A serialised fp32 ONNX model with one input.
        images: A batch of it: real images for an accurate model, anything for its speed. They are
            run a few at a time.
    """
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    graph = onnx.load_from_string(model)
    (source,) = graph.graph.input
    known = {output.name for output in graph.graph.output}
    for node in graph.graph.node:
        graph.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in node.output
            if name not in known
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    found: dict[str, tuple[float, float]] = {}
    for start in range(0, len(images), AT_ONCE):
        batch = images[start : start + AT_ONCE]
        tensors = dict(zip(names, session.run(None, {source.name: batch}), strict=True))
        tensors[source.name] = batch
        for name, value in tensors.items():
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found


def quantise(model: bytes, ranges: Ranges, scheme: str) -> bytes:
    """The model with int8 weights and activations where the runtime has integer kernels.

    Args:
        model: A serialised fp32 ONNX model.
        ranges: Of every tensor; see `ranges_of`.
        scheme: One of `SCHEMES`.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    activations = QuantType.QUInt8 if scheme.startswith("U8") else QuantType.QInt8
    quantizer = QDQQuantizer(
        onnx.load_from_string(model),
        per_channel=True,
        reduce_range=scheme == "U8S8-reduced",
        weight_qType=QuantType.QInt8,
        activation_qType=activations,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
        extra_options=GPU_OPTIONS if scheme == SYMMETRIC else {},
    )
    with _quiet():
        quantizer.quantize_model()
    made: Any = quantizer.model.model
    return bytes(made.SerializeToString())


@contextmanager
def _quiet() -> Any:
    """Keep the library's advice (pre-process first, which splits HardSwish) off the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
