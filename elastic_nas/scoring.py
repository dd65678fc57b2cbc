"""What exported files answer on the test split: the fp32 file, and the int8 form that is timed."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elastic_nas.intervals import wilson
from elastic_nas.latency.devices import Device
from elastic_nas.targets import runtime_of

if TYPE_CHECKING:
    from elastic_nas.data.dataset import Dataset

SEEN_BY_INT8 = 128
"""Training images that give an int8 form its ranges."""


def score(right: Any) -> dict[str, Any]:
    """Top-1 on the test split with the number of images and the 95 % Wilson interval."""
    k, n = int(right.sum()), len(right)
    low, high = wilson(k, n)
    return {"top1": k / n, "split": "test", "n": n, "interval_95": [low, high]}


@dataclass(frozen=True)
class Int8Form:
    """The int8 form of a file, as a runtime makes it from images; it is timed, and not written.

    Attributes:
        runtime: Whose form it is.
        model: What it runs.
        images: How many training images gave it its ranges.
    """

    runtime: Any
    model: bytes
    images: int

    @classmethod
    def of(
        cls, model: bytes, device: Device, data: "Dataset", resolution: int
    ) -> "Int8Form | None":
        """The form for a device; None where it is not int8, or converts without images.

        Args:
            model: The fp32 file.
            device: Its runtime and precision.
            data: Whose training images give the form its ranges.
            resolution: Of the file's input.
        """
        from elastic_nas.training.evaluation import some

        runtime = runtime_of(device)
        if device.precision != "int8" or not takes_images(runtime):
            return None
        seen = data.readable(some(data.train, SEEN_BY_INT8), resolution)
        pixels = seen.deployed(data.preprocess, resolution).astype(np.float32)
        form = runtime.convert(model, (3, resolution, resolution), pixels)
        return cls(runtime, form, len(seen))

    def score(self, data: "Dataset", resolution: int) -> dict[str, Any]:
        """Its accuracy on the test split, through the runtime."""
        test = data.readable(data.test, resolution)
        pixels = test.deployed(data.preprocess, resolution)
        answers = [
            self.runtime.run_converted(self.model, pixels[start : start + 64].astype(np.float32))
            for start in range(0, len(pixels), 64)
        ]
        scored = score(np.concatenate(answers).argmax(1) == test.labels)
        scheme = f"{self.runtime.used_scheme}, per channel, ranges from the least to the greatest"
        return {
            **scored,
            "scheme": scheme,
            "calibration_images": self.images,
            "note": "the form that was timed; it is not written, child.onnx is fp32",
        }


def takes_images(runtime: Any) -> bool:
    """Whether a runtime makes an int8 form from images, and runs it."""
    accepts = "images" in inspect.signature(runtime.convert).parameters
    return accepts and hasattr(runtime, "run_converted")
