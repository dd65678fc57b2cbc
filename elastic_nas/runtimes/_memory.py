"""Peak activations by ONNX Runtime's own counters."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

HELD, TAKEN = "mem_bytes_requested_in_use", "mem_requested_in_use_delta"


def peak_activation_bytes(
    model: bytes, x: NDArray[np.float32], options: Any, session: Callable[[bytes, Any], Any]
) -> int | None:
    """The most that a model's activations take at one time, its input included, in bytes.

    Counted on the first run of a fresh session at a fixed batch: later runs have the whole planned
    arena, and the counters hold repacked weights besides, which the first node's figure tells.
    Tensors that the runtime pads or reorders are counted as it has them. The input is the caller's,
    whom it does not count.

    Args:
        model: A serialised ONNX model with one input.
        x: What to run it on.
        options: For the session; profiling is switched on in them.
        session: Makes a session of a model with options.

    Returns:
        Bytes; None where this release of ONNX Runtime does not count them.
    """
    import onnx

    fixed = onnx.load_from_string(model)
    (source,) = fixed.graph.input
    for dim, size in zip(source.type.tensor_type.shape.dim, x.shape, strict=True):
        dim.dim_value = size
    with TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "memory")
        made = session(fixed.SerializeToString(), options)
        made.run(None, {source.name: x})
        events = json.loads(Path(made.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event["args"] for event in events if HELD in event.get("args", {})]
    if not nodes:
        return None
    before = int(nodes[0][HELD]) - int(nodes[0][TAKEN])
    return x.nbytes + max(int(node[HELD]) for node in nodes) - before
