"""Augmentation: a random resized crop, a flip and strong operations, drawn for each image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas.data.policies import CIFAR, IMAGENET, LARGEST_MAGNITUDE, auto, rand, trivial
from elastic_nas.errors import DataError

LARGEST_RATIO = 4 / 3
"""Of a crop's width to its height, or the reverse."""

STRONG = ("none", "trivial", "auto_imagenet", "auto_cifar", "rand")
"""Kinds of strong augmentation."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What a training image goes through: random resized crop, flip, strong operations.

    Attributes:
        crop_scale: Smallest and largest part of the image's area that the crop keeps.
        flip: Whether to mirror every other image.
        strong: ``trivial`` (TrivialAugment), ``auto_imagenet`` or ``auto_cifar`` (AutoAugment's
            policies), ``rand`` (RandAugment), or ``none``; sources: `elastic_nas.data.policies`.
        magnitude: Strength of RandAugment's operations, 0-30.
        operations: RandAugment's operations an image.

    Raises:
        DataError: A value is out of its range.
    """

    crop_scale: tuple[float, float] = (0.35, 1.0)
    flip: bool = True
    strong: str = "trivial"
    magnitude: int = 9
    operations: int = 2

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise DataError(
                f"crop_scale must be two ascending numbers above 0 and up to 1, got "
                f"{self.crop_scale!r}."
            )
        if self.strong not in STRONG:
            raise DataError(f"strong must be one of {', '.join(STRONG)}, got {self.strong!r}.")
        if self.magnitude not in range(LARGEST_MAGNITUDE + 1):
            raise DataError(
                f"magnitude must be a whole number from 0 to {LARGEST_MAGNITUDE}, got "
                f"{self.magnitude!r}."
            )
        if self.operations < 1:
            raise DataError(
                f"operations must be at least 1, got {self.operations!r}; strong='none' is without."
            )

    def __call__(
        self, image: Image.Image, resolution: int, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """One augmented image: (resolution, resolution, 3), 0-255.

        Args:
            image: RGB, of any size; left as it is.
            resolution: Pixels.
            rng: All that the result depends on beside the image.
        """
        draws = rng.random(5)
        box = crop_box(image.size, self.crop_scale, draws[:4])
        crop = image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=box)
        if self.flip and draws[4] < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(self._strengthened(crop, rng))

    def _strengthened(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        match self.strong:
            case "trivial":
                return trivial(image, rng)
            case "auto_imagenet":
                return auto(image, IMAGENET, rng)
            case "auto_cifar":
                return auto(image, CIFAR, rng)
            case "rand":
                return rand(image, self.magnitude, self.operations, rng)
        return image


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
