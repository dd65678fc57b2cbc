"""Resizing, cropping and normalising: one definition for training, search and deployment."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas.errors import DataError

_FIXED: dict[str, Any] = {
    "filter": "bilinear",
    "antialias": True,
    "resize": "shorter side to round(resolution / crop), longer side in proportion, rounded down",
    "crop_position": "centre",
    "input_range": [0, 255],
    "colour": "RGB",
    "layout": "NCHW",
}
"""What is the same for every network; written into the metadata and demanded when read."""


@dataclass(frozen=True)
class Preprocess:
    """The one definition of resizing that training, search and deployment share.

    It travels in the metadata of exported files. Normalising, ``(x / 255 - mean) / std``, is left
    to the network.

    Attributes:
        mean: Per channel (red, green, blue), of pixels in 0..1.
        std: Likewise; positive.
        crop: Fraction of the shorter side that the central crop keeps, in (0, 1]: 0.875 is
            ImageNet's 224 of 256 pixels.

    Raises:
        DataError: A value is out of its range.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: float = 1.0

    def __post_init__(self) -> None:
        _check(len(self.mean) == 3 and all(0 <= m <= 1 for m in self.mean), "mean", self.mean)
        _check(len(self.std) == 3 and all(0 < s < math.inf for s in self.std), "std", self.std)
        _check(0 < self.crop <= 1, "crop", self.crop)

    def deploy(self, image: Image.Image, resolution: int) -> NDArray[np.uint8]:
        """The image as a network sees it in deployment: (resolution, resolution, 3), 0-255.

        The shorter side is resized to round(resolution / crop), by Pillow's bilinear filter, which
        antialiases where it reduces; then the centre is cropped, offsets rounded half to even.

        Args:
            image: RGB, of any size.
            resolution: Pixels.
        """
        width, height = image.size
        shorter, target = min(width, height), round(resolution / self.crop)
        left, right = _span(width, int(width * target / shorter), resolution)
        top, bottom = _span(height, int(height * target / shorter), resolution)
        # Resizing the box alone computes no pixel that would be cropped away.
        size, box = (resolution, resolution), (left, top, right, bottom)
        return np.array(image.resize(size, Image.Resampling.BILINEAR, box=box))

    def describe(self) -> dict[str, Any]:
        """All of it as JSON values, for the metadata of an exported file."""
        values = {"crop": self.crop, "mean": list(self.mean), "std": list(self.std)}
        return {**_FIXED, **values}

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "Preprocess":
        """The inverse of `describe`.

        Raises:
            DataError: Keys are missing or unknown, or a value is not one that `deploy` computes.
        """
        if not isinstance(description, dict):
            raise DataError(f"a description of preprocessing must be a mapping: {description!r}.")
        known = {*_FIXED, "crop", "mean", "std"}
        if wrong := known ^ set(description):
            raise DataError(
                f"the description of preprocessing lacks or does not know "
                f"{', '.join(sorted(map(str, wrong)))}; its keys are {', '.join(sorted(known))}."
            )
        for key, value in _FIXED.items():
            if description[key] != value:
                raise DataError(
                    f"preprocessing with {key} {description[key]!r} is not supported; it must be "
                    f"{value!r}."
                )
        mean, std = (_triple(key, description[key]) for key in ("mean", "std"))
        return cls(mean, std, _number("crop", description["crop"]))


def _span(old: int, new: int, resolution: int) -> tuple[float, float]:
    """Where, on an axis of `old` pixels, the central `resolution` of `new` pixels lie."""
    offset = round((new - resolution) / 2)
    return offset * old / new, min((offset + resolution) * old / new, old)


def _check(fine: bool, name: str, value: object) -> None:
    if not fine:
        rule = {
            "mean": "3 numbers from 0 to 1",
            "std": "3 positive numbers",
            "crop": "a number above 0 and at most 1",
        }[name]
        raise DataError(f"{name} of preprocessing must be {rule}, got {value!r}.")


def _number(name: str, value: object) -> float:
    _check(isinstance(value, int | float) and not isinstance(value, bool), name, value)
    return float(value)  # type: ignore[arg-type]


def _triple(name: str, value: object) -> tuple[float, float, float]:
    _check(isinstance(value, list | tuple) and len(value) == 3, name, value)
    red, green, blue = (_number(name, v) for v in value)  # type: ignore[attr-defined]
    return red, green, blue
