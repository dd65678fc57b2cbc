"""Augmentation: a random resized crop, a flip and one strong operation, drawn for each image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from elastic_nas.errors import DataError

GREY = (128, 128, 128)
"""What is beyond the border of a rotated, sheared or shifted image."""

LARGEST_RATIO = 4 / 3
"""Of a crop's width to its height, or the reverse."""

Operation = Callable[[Image.Image, float], Image.Image]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What a training image goes through: random resized crop, flip, one strong operation.

    Attributes:
        crop_scale: Smallest and largest part of the image's area that the crop keeps.
        flip: Whether to mirror every other image.
        strong: ``trivial`` (TrivialAugment, Müller & Hutter, 2021, https://arxiv.org/abs/2103.10158)
            or ``none``.

    Raises:
        DataError: A value is out of its range.
    """

    crop_scale: tuple[float, float] = (0.35, 1.0)
    flip: bool
    strong: str = "trivial"

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise DataError(
                f"crop_scale must be two ascending numbers above 0 and up to 1, got "
                f"{self.crop_scale!r}."
            )
        if self.strong not in ("trivial", "none"):
            raise DataError(f"strong must be 'trivial' or 'none', got {self.strong!r}.")

    def __call__(
        self, image: Image.Image, resolution: int, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """One augmented image: (resolution, resolution, 3), 0-255.

        Args:
            image: RGB, of any size; left as it is.
            resolution: Pixels.
            rng: All that the result depends on beside the image.
        """
        draws = rng.random(7)
        box = crop_box(image.size, self.crop_scale, draws[:4])
        crop = image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=box)
        if self.flip and draws[4] < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.strong == "trivial":
            operation = OPERATIONS[int(draws[5] * len(OPERATIONS))]
            crop = operation(crop, 2 * draws[6] - 1)
        return np.asarray(crop)


def crop_box(
    size: tuple[int, int], scale: tuple[float, float], draws: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a random crop, in fractions of pixels.

    As Inception's (Szegedy et al., 2014, https://arxiv.org/abs/1409.4842): the area uniform in
    `scale`, the logarithm of the ratio uniform in 3/4..4/3, the place uniform. A crop larger than
    the image is clipped to it, keeping its ratio in that range, where others draw again.

    Args:
        size: Width and height of the image, in pixels.
        scale: Smallest and largest part of the area.
        draws: 4 uniform numbers in [0, 1): area, ratio, left, top.
    """
    width, height = size
    area = width * height * (scale[0] + (scale[1] - scale[0]) * draws[0])
    ratio = LARGEST_RATIO ** (2 * draws[1] - 1)
    crop_width, crop_height = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
    crop_width = min(crop_width, crop_height * LARGEST_RATIO)
    crop_height = min(crop_height, crop_width * LARGEST_RATIO)
    left, top = (width - crop_width) * draws[2], (height - crop_height) * draws[3]
    return left, top, min(left + crop_width, width), min(top + crop_height, height)


def _affine(image: Image.Image, a: float, b: float, c: float, d: float) -> Image.Image:
    """The linear map (a b; c d) from where a pixel is to where it was, about the centre."""
    x, y = image.width / 2, image.height / 2
    matrix = (a, b, x - a * x - b * y, c, d, y - c * x - d * y)
    return _moved(image, matrix)


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return image.transform(image.size, affine, matrix, bilinear, fillcolor=GREY)


SHIFT = 32 / 224
"""Of the side, at most: the paper's 32 pixels would move an image of 32 pixels out of sight."""


OPERATIONS: tuple[Operation, ...] = (
    lambda image, m: image,
    lambda image, m: ImageOps.autocontrast(image),
    lambda image, m: ImageOps.equalize(image),
    lambda image, m: image.rotate(135 * m, Image.Resampling.BILINEAR, fillcolor=GREY),
    lambda image, m: ImageOps.solarize(image, round(256 * abs(m))),
    lambda image, m: ImageEnhance.Color(image).enhance(1 + 0.99 * m),
    lambda image, m: ImageOps.posterize(image, 8 - round(6 * abs(m))),
    lambda image, m: ImageEnhance.Contrast(image).enhance(1 + 0.99 * m),
    lambda image, m: ImageEnhance.Brightness(image).enhance(1 + 0.99 * m),
    lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + 0.99 * m),
    lambda image, m: _affine(image, 1, 0.99 * m, 0, 1),
    lambda image, m: _affine(image, 1, 0, 0.99 * m, 1),
    lambda image, m: _moved(image, (1, 0, SHIFT * m * image.width, 0, 1, 0)),
    lambda image, m: _moved(image, (1, 0, 0, 0, 1, SHIFT * m * image.height)),
)
"""TrivialAugment's wide space: 14 operations, each of a strength in -1..1."""
