"""What stored pixels mean: RGB of 8 bits, from more bits and from other bands."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas.errors import DataError

BITS, COLOUR, NARROW = "bits", "colour", "a narrow range"
VALUES, BANDS = "values", "bands"
"""What may be open: the range of 16-bit pixels, grey, in colour or with an offset, that of 32-bit
ones, and what a fourth band is."""

_HALF = 1 << 15
"""From this value on, 16-bit pixels use all of their bits."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES, _MOST_VALUE = 258, 262, 277, 281
_EXTRA, _SAMPLE_FORMAT = 338, 339
"""Tags of TIFF (Adobe, TIFF 6.0)."""

DARK = 1 << 12
"""From this value on, 16-bit pixels are more than 12-bit ones."""

MOST_DARK = 0.01
"""Part of the 16-bit images of a set that may end below `DARK` where others use all bits."""

_SCALED = frozenset({"PPM", "JPEG2000", "AVIF", "HEIF"})
"""Formats that state the range, by which Pillow scales."""


@dataclass(frozen=True)
class Reading:
    """What pixels mean where files leave it open.

    Attributes:
        bits: Of pixels that are stored in more than 8; None: as the file says.
        bands: ``rgba``, ``rgb`` (a fourth band is left out) or None: as the file says.
    """

    bits: int | None = None
    bands: str | None = None


AS_IT_SAYS = Reading()


class Open(ValueError):
    """What the pixels of an image mean is open.

    Args:
        kind: One of `BITS`, `VALUES` and `BANDS`.
        peak: The largest value, where the range is open.
    """

    def __init__(self, kind: str, peak: int = 0) -> None:
        super().__init__(_question(kind, peak, "it has"))
        self.kind, self.peak = kind, peak


def _question(kind: str, peak: int, have: str) -> str:
    """What is open, and the options to say it."""
    if kind == BANDS:
        return (
            f"{have} a further band that may be opacity, or anything else, such as near infrared. "
            "Say which: --set data.bands=rgb leaves it out, --set data.bands=rgba takes it for "
            "opacity"
        )
    if kind == COLOUR:
        return (
            f"{have} 16 bits a channel in colour, of which the upper half is not used. Save 8 bits "
            "a channel; or, if dark is what they are: --set data.bits=16"
        )
    if kind == NARROW:
        return (
            f"{have} values in a narrow range, up to {peak:,}, as with an offset: few of 256 "
            "levels would be left. Save 8 bits a pixel; or, if they are so flat: --set data.bits=16"
        )
    fits = next(bits for bits in (8, 10, 12, 14, 16, 32) if peak < 1 << bits)
    if fits == 32:
        return f"{have} values up to {peak:,}, more than 16 bits hold; save 8 bits a pixel"
    dark = "" if fits == 16 else ", or --set data.bits=16 if dark is what they are"
    return (
        f"{have} pixels of more than 8 bits with values up to {peak:,}, and no file says which is "
        f"white. Say it: --set data.bits={fits} (white is {(1 << fits) - 1:,}){dark}"
    )


def settled(found: Iterable[tuple[str, int]], reading: Reading, place: str) -> Reading:
    """What the pixels of a set mean, by all of its images.

    One 16-bit image that uses all bits tells it of the others.

    Args:
        found: What is open of each image, or nothing, and its largest value (0 of 8-bit ones).
        reading: What is known.
        place: The set, for messages.

    Raises:
        DataError: It is open; the choices are named.
    """
    counts: dict[str, int] = {}
    peaks: dict[str, int] = {}
    highest, deep, dark = 0, 0, 0
    for kind, peak in found:
        if kind:
            counts[kind] = counts.get(kind, 0) + 1
            peaks[kind] = max(peaks.get(kind, 0), peak)
        if kind in ("", BITS, COLOUR, NARROW):
            highest = max(highest, peak)
            deep, dark = deep + (peak > 0), dark + (0 < peak < DARK)
    if reading.bits is None and highest >= _HALF and dark > MOST_DARK * deep:
        raise DataError(
            f"of {deep:,} images of 16 bits in {place!r} {dark:,} have no value from {DARK:,} on, "
            "and others use all bits: their white may not be the same. If they are really that "
            "dark: --set data.bits=16; else bring all to one range, or to 8 bits."
        )
    wide = highest >= _HALF and counts.get(NARROW, 0) < deep
    for kind in (BANDS, VALUES, BITS, COLOUR, NARROW):
        if kind in counts and not (kind in (BITS, COLOUR, NARROW) and wide):
            what = "image" if counts[kind] == 1 else "images"
            have = f"{counts[kind]:,} {what} of {place!r} {'has' if what == 'image' else 'have'}"
            raise DataError(f"{_question(kind, peaks[kind], have)}.")
    if counts:
        return Reading(16, reading.bands)
    return reading


def to_rgb(image: Image.Image, content: bytes, reading: Reading) -> tuple[Image.Image, int]:
    """A loaded image as RGB of 8 bits, and its largest value where it is stored in more.

    Args:
        image: As Pillow reads it.
        content: Of its file.
        reading: What its pixels mean.

    Raises:
        Open: It is open.
        ValueError: They have no meaning that can be read.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save 8 bits")
    if image.mode.startswith("I"):
        return _from_deep(image, reading)
    peak = _check_deep_colour(image, content, reading)
    return _flat(image, reading), peak


def _from_deep(image: Image.Image, reading: Reading) -> tuple[Image.Image, int]:
    """One band of 16 or 32 bits."""
    values: NDArray[Any] = np.asarray(image)
    if image.mode == "I" and _unsigned(image):
        values = values.view(np.uint32)
    least, peak = int(values.min()), int(values.max())
    if least < 0:
        raise ValueError(f"its pixels have values down to {least:,}; save 8 bits a pixel")
    scaled = image.format in _SCALED
    wide = image.mode == "I" and not scaled
    stated = 16 if scaled else _stated_bits(image)
    known = [bits for bits in (stated, reading.bits) if bits]
    if not known:
        if wide or peak < _HALF:
            raise Open(VALUES if wide else BITS, peak)
        if least > DARK and 0 < peak - least < DARK:
            raise Open(NARROW, peak)
        known = [16]
    white = (1 << min(known)) - 1
    if peak > white:
        raise ValueError(f"it has the value {peak:,}, and {min(known)} bits end at {white:,}")
    deep = values.astype(np.int64)
    grey = ((deep * 255 + white // 2) // white).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB"), 0 if wide else peak


def _unsigned(image: Image.Image) -> bool:
    """Whether a TIFF file says that its values have no sign."""
    stated = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (0,))
    return stated in (1, (1,))


def _stated_bits(image: Image.Image) -> int | None:
    """Bits that a TIFF file says its values have, where that is less than it stores them in."""
    tags = getattr(image, "tag_v2", {})
    bits, most = tags.get(_BITS_PER_SAMPLE, (16,)), tags.get(_MOST_VALUE)
    if bits and 8 < bits[0] < 16:
        return int(bits[0])
    value = most[0] if isinstance(most, tuple) else most
    if isinstance(value, int) and 255 <= value < _HALF and (value + 1).bit_count() == 1:
        return value.bit_length()
    return None


def _check_deep_colour(image: Image.Image, content: bytes, reading: Reading) -> int:
    """The largest value of a colour image of 16 bits a channel, of which Pillow reads the upper 8.

    Raises:
        Open: The uppermost bit is nowhere used.
        ValueError: Fewer bits are asked for than Pillow gives.
    """
    if not _is_deep_colour(image, content):
        return 0
    if reading.bits not in (None, 16):
        raise ValueError(
            f"it is in colour with 16 bits a channel, of which {reading.bits} cannot be read; save "
            "8 bits a channel"
        )
    extrema: Any = image.getextrema()
    highest = max(high for _, high in (extrema if isinstance(extrema[0], tuple) else (extrema,)))
    peak = int(highest) << 8 | 255
    if peak < _HALF and reading.bits is None:
        raise Open(COLOUR, peak)
    return peak


def _is_deep_colour(image: Image.Image, content: bytes) -> bool:
    if image.format == "PNG":
        return content[24:25] == b"\x10"
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
    return bool(bits) and max(bits) == 16


def _flat(image: Image.Image, reading: Reading) -> Image.Image:
    """8 bits a channel without opacity: on white, or without its band."""
    unnamed = _is_unnamed(image)
    open_band = reading.bands is None and unnamed
    if not image.has_transparency_data and not open_band:
        if reading.bands == "rgba" and unnamed:
            raise ValueError("its further band is marked as no opacity, and not read; save it anew")
        return image.convert("RGB")
    if reading.bands == "rgb":
        return image.convert("RGBA").convert("RGB")
    if open_band:
        raise Open(BANDS)
    opaque = image.convert("RGBA")
    if reading.bands is None and _hides_all(opaque):
        raise Open(BANDS)
    white = Image.new("RGBA", opaque.size, "white")
    return Image.alpha_composite(white, opaque).convert("RGB")


def _is_unnamed(image: Image.Image) -> bool:
    """Whether a TIFF file has a band more than its colours, and does not say that it is opacity."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return False
    colours = {0: 1, 1: 1, 2: 3, 3: 1}.get(tags.get(_PHOTOMETRIC, 2))
    samples, extra = tags.get(_SAMPLES, 1), tags.get(_EXTRA, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    return colours is not None and samples > colours and not set(extra[:1]) & {1, 2}


def _hides_all(image: Image.Image) -> bool:
    """Whether no pixel of a picture is opaque, as where the band is something else, or all 0."""
    extrema: Any = image.getextrema()
    *colours, (_, most) = extrema
    return most < 255 and any(high > 0 for _, high in colours)
