"""Reading image files as RGB, whatever their mode, and telling damaged ones."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from elastic_nas import progress
from elastic_nas.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings, in lower case, of the files that count as images."""

SAY_PROGRESS_FROM = 2000
"""Images; fewer are read without a word."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Quiet:
    """Silences Pillow's warnings while any thread reads an image.

    `warnings.catch_warnings` alone, entered by several threads, may restore filters in the wrong
    order and leave the process silenced: here the first reader enters it and the last one leaves.
    """

    def __init__(self) -> None:
        self._lock, self._readers = Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._readers += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._caught.__exit__(kind, error, trace)


_quiet = _Quiet()


def read_image(path: Path | str, content: bytes | None = None) -> Image.Image:
    """The image in a file: RGB, upright by its EXIF orientation, transparency on white.

    Args:
        path: Of the file; of an image that lies elsewhere, what it is called in messages.
        content: The bytes of an image that lies elsewhere.

    Raises:
        DataError: The file is missing, damaged, no image, of floating-point pixels, or larger than
            Pillow's limit against decompression bombs.
    """
    try:
        with _quiet, Image.open(path if content is None else BytesIO(content)) as image:
            return _rgb(_upright(image))
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged bytes
        raise DataError(
            f"cannot read the image {str(path)!r}: {_reason(error)}. Delete or replace it."
        ) from error


def find_damage(path: Path) -> str | None:
    """Why the file is no readable image, or None.

    Cheaper than reading it: PNG files are checked by their checksums, JPEG files decoded at an
    eighth of their size (their headers alone would not show that the end is missing).
    """
    try:
        with _quiet, Image.open(path) as image:
            if image.format == "PNG":
                image.verify()
            else:
                image.draft("RGB", (1, 1))
                _rgb(image)
    except Exception as error:  # as above
        return _reason(error)
    return None


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """`work` of each item, in order, by threads: Pillow decodes and resizes without the lock.

    Args:
        work: Called once an item.
        items: What to work on.
        title: Said with the progress where there are many items.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(work, items)
        if len(items) < SAY_PROGRESS_FROM:
            return list(results)
        with progress.track(title, len(items)) as tracker:
            return [_counted(result, tracker) for result in results]


def _counted(result: Result, tracker: progress.Tracker) -> Result:
    tracker.advance()
    return result


def shrink(image: Image.Image, shorter_side: int) -> Image.Image:
    """The image reduced so that its shorter side is at most `shorter_side` pixels."""
    shorter = min(image.size)
    if shorter <= shorter_side:
        return image
    width, height = (max(1, round(side * shorter_side / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data do not make the picture unreadable
        return image


def _rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """0-65535 to 0-255; Pillow's own conversion clips at 255."""
    values: np.ndarray[Any, np.dtype[Any]] = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return "it has more pixels than Pillow's limit against decompression bombs allows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
