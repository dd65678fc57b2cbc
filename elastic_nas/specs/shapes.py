"""Arithmetic of shapes that specs and spaces share."""


def strided(size: int, stride: int) -> int:
    """Output size of a stride-s layer with padding kernel // 2: (size - 1) // s + 1."""
    return (size - 1) // stride + 1


def round8(value: float) -> int:
    """The multiple of 8 nearest to `value`, at least 8 and never below 0.9 of it.

    The rounding of MobileNet's published code, which all the golden MAC counts use.
    """
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded
