"""Which strong operations an image goes through: TrivialAugment, AutoAugment, RandAugment."""

import numpy as np
from PIL import Image

from elastic_nas.data.operations import NARROW, WIDE, WITH_INVERT

LARGEST_LEVEL = 9
"""AutoAugment's strengths are 0-9."""

LARGEST_MAGNITUDE = 30
"""RandAugment's are 0-30, as in the paper's figures and in torchvision."""

Policy = tuple[tuple[tuple[str, float, int], ...], ...]
"""Sub-policies of two steps: name of the operation, its chance, its level."""


def trivial(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One operation of any strength (Müller & Hutter, 2021, https://arxiv.org/abs/2103.10158)."""
    place, strength = rng.random(2)
    operation = list(WIDE.values())[int(place * len(WIDE))]
    return operation(image, 2 * strength - 1)


def auto(image: Image.Image, policy: Policy, rng: np.random.Generator) -> Image.Image:
    """The two steps of one sub-policy, each by its chance, to a random side.

    Cubuk et al., 2019, https://arxiv.org/abs/1805.09501; as in torchvision, colours change to
    either side of the image's own.
    """
    steps = policy[int(rng.random() * len(policy))]
    for (name, chance, level), (hit, side) in zip(steps, rng.random((2, 2)), strict=True):
        if hit < chance:
            image = WITH_INVERT[name](image, _to_side(level / LARGEST_LEVEL, side))
    return image


def rand(
    image: Image.Image, magnitude: int, operations: int, rng: np.random.Generator
) -> Image.Image:
    """Some operations after another, all of one strength, each to a random side.

    Cubuk et al., 2020, https://arxiv.org/abs/1909.13719, with torchvision's operations.

    Args:
        image: RGB.
        magnitude: 0-30.
        operations: How many.
        rng: Of operations and sides.
    """
    for place, side in rng.random((operations, 2)):
        operation = list(NARROW.values())[int(place * len(NARROW))]
        image = operation(image, _to_side(magnitude / LARGEST_MAGNITUDE, side))
    return image


def _to_side(strength: float, draw: float) -> float:
    return strength if draw < 0.5 else -strength


def _policy(table: str) -> Policy:
    """From a table with a sub-policy a line: operation, chance and level, twice."""
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(
        tuple((row[i], float(row[i + 1]), int(row[i + 2])) for i in (0, 3)) for row in rows
    )


IMAGENET = _policy("""
    Posterize    0.4 8    Rotate       0.6 9
    Solarize     0.6 5    AutoContrast 0.6 5
    Equalize     0.8 8    Equalize     0.6 3
    Posterize    0.6 7    Posterize    0.6 6
    Equalize     0.4 7    Solarize     0.2 4
    Equalize     0.4 4    Rotate       0.8 8
    Solarize     0.6 3    Equalize     0.6 7
    Posterize    0.8 5    Equalize     1.0 2
    Rotate       0.2 3    Solarize     0.6 8
    Equalize     0.6 8    Posterize    0.4 6
    Rotate       0.8 8    Color        0.4 0
    Rotate       0.4 9    Equalize     0.6 2
    Equalize     0.0 7    Equalize     0.8 8
    Invert       0.6 4    Equalize     1.0 8
    Color        0.6 4    Contrast     1.0 8
    Rotate       0.8 8    Color        1.0 2
    Color        0.8 8    Solarize     0.8 7
    Sharpness    0.4 7    Invert       0.6 8
    ShearX       0.6 5    Equalize     1.0 9
    Color        0.4 0    Equalize     0.6 3
    Equalize     0.4 7    Solarize     0.2 4
    Solarize     0.6 5    AutoContrast 0.6 5
    Invert       0.6 4    Equalize     1.0 8
    Color        0.6 4    Contrast     1.0 8
    Equalize     0.8 8    Equalize     0.6 3
""")
"""Found on ImageNet: Cubuk et al., 2019, appendix; five of the 25 stand there twice."""

CIFAR = _policy("""
    Invert       0.1 7    Contrast     0.2 6
    Rotate       0.7 2    TranslateX   0.3 9
    Sharpness    0.8 1    Sharpness    0.9 3
    ShearY       0.5 8    TranslateY   0.7 9
    AutoContrast 0.5 8    Equalize     0.9 2
    ShearY       0.2 7    Posterize    0.3 7
    Color        0.4 3    Brightness   0.6 7
    Sharpness    0.3 9    Brightness   0.7 9
    Equalize     0.6 5    Equalize     0.5 1
    Contrast     0.6 7    Sharpness    0.6 5
    Color        0.7 7    TranslateX   0.5 8
    Equalize     0.3 7    AutoContrast 0.4 8
    TranslateY   0.4 3    Sharpness    0.2 6
    Brightness   0.9 6    Color        0.2 8
    Solarize     0.5 2    Invert       0.0 3
    Equalize     0.2 0    AutoContrast 0.6 0
    Equalize     0.2 8    Equalize     0.6 4
    Color        0.9 9    Equalize     0.6 6
    AutoContrast 0.8 4    Solarize     0.2 8
    Brightness   0.1 3    Color        0.7 0
    Solarize     0.4 5    AutoContrast 0.9 3
    TranslateY   0.9 9    TranslateY   0.7 9
    AutoContrast 0.9 2    Solarize     0.8 3
    Equalize     0.8 8    Invert       0.1 3
    TranslateY   0.7 9    AutoContrast 0.9 1
""")
"""Found on CIFAR-10: Cubuk et al., 2019, appendix."""
