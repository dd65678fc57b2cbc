"""Mixing pairs of images and their labels: mixup and cutmix."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from elastic_nas.errors import DataError

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Mix:
    """What a batch goes through: mixup, cutmix, or either with an equal chance.

    mixup adds two whole images (Zhang et al., 2018, section 2, https://arxiv.org/abs/1710.09412),
    cutmix pastes a box of one into the other (Yun et al., 2019, section 3.1,
    https://arxiv.org/abs/1905.04899). The share of both is drawn once a batch.

    Attributes:
        mixup: Alpha of the Beta distribution that mixup's share is drawn from; 0: no mixup.
        cutmix: The same of cutmix; with both at 0 nothing is mixed.

    Raises:
        DataError: An alpha is negative or no number.
    """

    mixup: float
    cutmix: float

    def __post_init__(self) -> None:
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= alpha < math.inf:
                raise DataError(f"{name} must be a number from 0 (off) on, got {alpha!r}.")

    def __call__(
        self, x_NCHW: Tensor, labels_N: Tensor, classes: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """The batch mixed with itself in reverse order, in the same type and memory format.

        Nothing waits for the device: what is drawn are Python numbers.

        Args:
            x_NCHW: Pixels, of any type; left as they are.
            labels_N: Class indices, int64.
            classes: How many there are.
            rng: Of shares, boxes and the choice between mixup and cutmix.

        Returns:
            Images (N, C, H, W); targets, float32 (N, classes), whose rows sum to 1.
        """
        cut = self.cutmix > 0 and (self.mixup == 0 or rng.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = float(rng.beta(alpha, alpha)) if alpha > 0 else 1.0
        if cut:
            height, width = x_NCHW.shape[-2:]
            box = _box(height, width, 1 - share, rng)
            mixed_NCHW, share = _pasted(x_NCHW, box), 1 - _area(box) / (height * width)
        else:
            mixed_NCHW = _added(x_NCHW, share)
        one_hot_NK = F.one_hot(labels_N, classes).float()
        return mixed_NCHW, share * one_hot_NK + (1 - share) * one_hot_NK.flip(0)


def _added(x_NCHW: Tensor, share: float) -> Tensor:
    """`share` of each image and the rest of its partner; pixels that are integers are rounded."""
    if x_NCHW.is_floating_point():
        return torch.lerp(x_NCHW.flip(0), x_NCHW, share)
    return _added(x_NCHW.float(), share).round().to(x_NCHW.dtype)


def _pasted(x_NCHW: Tensor, box: Box) -> Tensor:
    top, bottom, left, right = box
    mixed_NCHW = x_NCHW.clone()
    mixed_NCHW[..., top:bottom, left:right] = x_NCHW[..., top:bottom, left:right].flip(0)
    return mixed_NCHW


def _box(height: int, width: int, part: float, rng: np.random.Generator) -> Box:
    """Top, bottom, left and right of a box of `part` of the area, clipped to the image."""
    tall, wide = int(height * part**0.5), int(width * part**0.5)
    top = int(rng.integers(height)) - tall // 2
    left = int(rng.integers(width)) - wide // 2
    return max(0, top), min(height, top + tall), max(0, left), min(width, left + wide)


def _area(box: Box) -> int:
    top, bottom, left, right = box
    return (bottom - top) * (right - left)
