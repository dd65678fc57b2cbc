"""A child as one ONNX file: graph from the one writer, metadata, and the checks that gate it."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper

from elastic_nas import oldest
from elastic_nas.errors import ExportMismatch
from elastic_nas.export.manifest import TOLERANCE
from elastic_nas.nn.child import Child

OLDEST_RUNTIME = f"onnxruntime {oldest.ONNXRUNTIME}"
PARITY_IMAGES = 64

Floats = NDArray[np.float32]


def build(child: Child, mean: Sequence[float], std: Sequence[float]) -> onnx.ModelProto:
    """The ONNX model of a calibrated child: pixels of 0-255 in, logits out."""
    return child.to_onnx(tuple(mean), tuple(std))


def add_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Set the model's metadata; values that are no strings are written as JSON."""
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    helper.set_model_props(model, texts)


def session(model: bytes, *, optimise: bool = True) -> Any:
    """An ONNX Runtime session on the CPU with one thread, silent.

    Raises:
        ExportMismatch: The runtime cannot load the model.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own kinds, none of them documented
        raise ExportMismatch(f"ONNX Runtime cannot load the file: {error}") from error


def logits_of(model: bytes, pixels: NDArray[np.uint8], *, optimise: bool = True) -> Floats:
    """Logits (N, classes) that the file computes for pixels (N, 3, H, W) of 0-255.

    Raises:
        ExportMismatch: The file cannot be loaded, or not be run on these pixels.
    """
    runner = session(model, optimise=optimise)
    try:
        parts = [
            runner.run(None, {"input": pixels[start : start + 64].astype(np.float32)})[0]
            for start in range(0, len(pixels), 64)
        ]
        return np.concatenate(parts)
    except Exception as error:  # as above: wrong names or shapes of inputs, or no image at all
        raise ExportMismatch(f"ONNX Runtime cannot run the file: {error}") from error


def child_logits(child: Child, x_NCHW: torch.Tensor) -> Floats:
    """Logits (N, classes) of the PyTorch child for normalised images."""
    with torch.inference_mode():
        logits: Floats = child(x_NCHW).float().cpu().numpy()
    return logits


def compare(expected: Floats, got: Floats, what: str) -> dict[str, float]:
    """Parity figures of two sets of logits.

    Returns:
        ``max_difference`` relative to the largest logit, ``top1_agreement`` in 0-1, ``images``.

    Raises:
        ExportMismatch: They differ by more than `TOLERANCE`, or in a top-1 answer.
    """
    if expected.shape != got.shape or not np.isfinite(got).all():
        raise ExportMismatch(
            f"{what}: logits of shape {got.shape}, expected {expected.shape} finite numbers."
        )
    difference = float(np.abs(expected - got).max() / max(float(np.abs(expected).max()), 1e-12))
    agreement = float((expected.argmax(1) == got.argmax(1)).mean())
    if difference > TOLERANCE or agreement < 1:
        raise ExportMismatch(
            f"{what}: the file differs from the child by {difference:.1e} of the largest logit "
            f"(allowed {TOLERANCE:.0e}), top-1 agreement {agreement:.1%} of {len(expected)} images."
        )
    return {"max_difference": difference, "top1_agreement": agreement, "images": len(expected)}


def check_file(model: bytes, expected: Floats, pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Everything a file must pass before it is shipped.

    ONNX's full check; opset; the child's outputs with the runtime's optimisations all and none;
    batches of 1 and 3.

    Args:
        model: The file's bytes.
        expected: Logits of the PyTorch child (N, classes).
        pixels: The same images (N, 3, H, W), 0-255.

    Returns:
        The parity figures, see `compare`.

    Raises:
        ExportMismatch: One of them fails.
    """
    from elastic_nas.nn.onnx_writer import OPSET

    proto = onnx.load_model_from_string(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportMismatch(f"the file is not valid ONNX: {error}") from error
    if [entry.version for entry in proto.opset_import] != [OPSET]:
        raise ExportMismatch(f"the file has opsets {proto.opset_import}, not {OPSET}.")
    figures = compare(expected, logits_of(model, pixels), "optimised")
    compare(expected, logits_of(model, pixels, optimise=False), "not optimised")
    for batch in (1, 3):
        compare(expected[:batch], logits_of(model, pixels[:batch]), f"batch {batch}")
    return figures
