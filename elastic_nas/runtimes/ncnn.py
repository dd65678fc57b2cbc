"""ncnn on the CPU, in fp32."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import ElasticNasError
from elastic_nas.runtimes._graph import read_graph
from elastic_nas.runtimes._ncnn_writer import write_ncnn
from elastic_nas.runtimes._runtime import PackagedRuntime, fixed_input, model_bytes

FORMAT = "elastic-nas/ncnn/1"
HALF_PRECISION = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_storage",
)


@dataclass(frozen=True)
class Runtime(PackagedRuntime):
    """Runs models with ncnn, translated from ONNX; light mode, its own choice of kernels.

    With one thread an inference happens in the calling thread; with more it spreads over an
    OpenMP pool.
    """

    name: ClassVar[str] = "ncnn"
    extra: ClassVar[str] = "ncnn"
    graph_optimization: ClassVar[str] = "light"

    def convert(self, model: bytes, input_shape: tuple[int, ...]) -> bytes:
        """From an ONNX model to ncnn's param and bin, behind one line of JSON about them.

        Raises:
            ElasticNasError: It is no ONNX model for that input, or has an operator that is not
                translated.
        """
        graph = read_graph(model, input_shape, self.name)
        text, weights = write_ncnn(graph)
        about = {
            "format": FORMAT,
            "input": [graph.input, *input_shape],
            "output": graph.output,
            "param": len(text),
            "bin": len(weights),
        }
        return b"\n".join([json.dumps(about).encode(), text.encode() + weights])

    def load(self, converted: bytes, input_shape: tuple[int, ...]) -> Callable[[], object]:
        """A function that runs a converted model once, at batch 1, on a fixed random input."""
        infer = self._network(converted, input_shape)
        x = self._mat(fixed_input(input_shape)[0])
        return lambda: [infer(x)[None]]

    def run(self, model: bytes | Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output of an ONNX model for the batch `x`, one image after the other.

        Raises:
            MissingExtra: ncnn is not installed.
            ElasticNasError: It lacks an operator of the model, or the input does not fit.
        """
        shape = x.shape[1:]
        infer = self._network(self.convert(model_bytes(model), shape), shape)
        return np.stack([infer(self._mat(image)) for image in x])

    def _mat(self, image: NDArray[np.float32]) -> Any:
        """A copy: a Mat made from an array points to it, does not keep it, and may write to it."""
        kept = np.ascontiguousarray(image)
        return self.package().Mat(kept).clone()

    def _network(
        self, converted: bytes, input_shape: tuple[int, ...]
    ) -> Callable[[Any], NDArray[np.float32]]:
        """What computes the output of one image, given as a ``ncnn.Mat``."""
        ncnn = self.package()
        about, text, weights = _unpacked(converted, input_shape)
        net = ncnn.Net()
        net.opt.lightmode = True
        net.opt.num_threads = self.threads
        net.opt.use_vulkan_compute = False
        for option in HALF_PRECISION:
            setattr(net.opt, option, False)
        # From a file, since weights that are loaded from memory stay where Python may free them.
        with TemporaryDirectory() as folder:
            path = Path(folder, "model.bin")
            path.write_bytes(weights)
            failed = net.load_param_mem(text) or net.load_model(str(path))
        if failed:
            raise self.refusal("its layers or weights cannot be loaded")

        def infer(x: Any) -> NDArray[np.float32]:
            extractor = net.create_extractor()
            extractor.input(about["input"][0], x)
            return np.asarray(extractor.extract(about["output"])[1])

        return infer


def _unpacked(converted: bytes, input_shape: tuple[int, ...]) -> tuple[dict[str, Any], str, bytes]:
    """The three parts; sizes are checked, since ncnn reads beyond the end of what is too short."""
    head, _, content = converted.partition(b"\n")
    try:
        about = json.loads(head)
        intact = about["format"] == FORMAT and about["param"] + about["bin"] == len(content)
        fits = tuple(about["input"][1:]) == tuple(input_shape)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ElasticNasError("ncnn refuses the model: it was not made by `convert`.") from error
    if not intact or not fits:
        what = "it is damaged" if not intact else f"its input is {about['input'][1:]}"
        raise ElasticNasError(f"ncnn refuses the model: {what}.")
    return about, content[: about["param"]].decode(), content[about["param"] :]
