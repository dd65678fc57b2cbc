"""What strong augmentations do to one image: turn, shear, shift, change its colours."""

from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)
"""What is beyond the border of a rotated, sheared or shifted image."""

Operation = Callable[[Image.Image, float], Image.Image]
"""From an RGB image and a strength in -1..1 to another image of the same size."""


def _affine(image: Image.Image, a: float, b: float, c: float, d: float) -> Image.Image:
    """The linear map (a b; c d) from where a pixel is to where it was, about the centre."""
    x, y = image.width / 2, image.height / 2
    matrix = (a, b, x - a * x - b * y, c, d, y - c * x - d * y)
    return _moved(image, matrix)


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return image.transform(image.size, affine, matrix, bilinear, fillcolor=GREY)


def _operations(
    *, turn: float, change: float, bits: int, shear: float, shift: float
) -> dict[str, Operation]:
    """The 14 operations that TrivialAugment and RandAugment draw from.

    Args:
        turn: Largest rotation, in degrees.
        change: Largest change of colour, contrast, brightness and sharpness; 1 is the image's own.
        bits: Most bits that are taken from a channel's 8.
        shear: Largest shift of a row or column, of its distance from the centre.
        shift: Largest shift of the image, of its side.
    """
    return {
        "Identity": lambda image, m: image,
        "AutoContrast": lambda image, m: ImageOps.autocontrast(image),
        "Equalize": lambda image, m: ImageOps.equalize(image),
        "Rotate": lambda image, m: image.rotate(
            turn * m, Image.Resampling.BILINEAR, fillcolor=GREY
        ),
        "Solarize": lambda image, m: ImageOps.solarize(image, 256 - int(256 * abs(m))),
        "Color": lambda image, m: ImageEnhance.Color(image).enhance(1 + change * m),
        "Posterize": lambda image, m: ImageOps.posterize(image, 8 - round(bits * abs(m))),
        "Contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + change * m),
        "Brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + change * m),
        "Sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + change * m),
        "ShearX": lambda image, m: _affine(image, 1, shear * m, 0, 1),
        "ShearY": lambda image, m: _affine(image, 1, 0, shear * m, 1),
        "TranslateX": lambda image, m: _moved(image, (1, 0, shift * m * image.width, 0, 1, 0)),
        "TranslateY": lambda image, m: _moved(image, (1, 0, 0, 0, 1, shift * m * image.height)),
    }


WIDE: dict[str, Operation] = _operations(
    turn=135, change=0.99, bits=6, shear=0.99, shift=32 / 224
) | {
    # Of a uniform strength, this is as good as the reverse; it stays so that runs can be repeated.
    "Solarize": lambda image, m: ImageOps.solarize(image, round(256 * abs(m))),
}
"""TrivialAugment's wide space. The paper's shift of 32 pixels would move an image of 32 pixels out
of sight, so it is taken of a side of 224."""

NARROW = _operations(turn=30, change=0.9, bits=4, shear=0.3, shift=150 / 331)
"""RandAugment's space, as torchvision sets its ranges: 150 pixels were shifted in images of 331.
Solarize starts from 256, as published, so that no strength is no change."""

WITH_INVERT: dict[str, Operation] = NARROW | {"Invert": lambda image, m: ImageOps.invert(image)}
"""AutoAugment's space."""
