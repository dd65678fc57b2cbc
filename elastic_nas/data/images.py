"""Reading image files as RGB, whatever their mode, and telling damaged ones."""

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from elastic_nas import progress
from elastic_nas.data.formats import FORMATS, register
from elastic_nas.data.identity import identity_of
from elastic_nas.data.pixels import AS_IT_SAYS, Open, Reading, to_rgb
from elastic_nas.data.whole import check_whole
from elastic_nas.errors import DamagedImage, DataError
from elastic_nas.outside import open_file

MOST_BYTES = 200_000_000
"""Size of an encoded image; a larger one is refused."""

MOST_PIXELS = 64_000_000
"""Width times height of an image; a larger one is refused: a file of a few bytes may claim any."""

MOST_PIXELS_AT_ONCE = 128_000_000
"""Pixels that the threads of one process hold decoded at the same time; each takes 4 to 16 bytes
while it is converted."""

MOST_SCANNED = 4_000_000_000
"""Pixels times scans of a progressive JPEG file: each scan goes over all pixels, and a scan may
take 10 bytes of the file."""

ORIENTATION = 0x0112
"""The tag of EXIF data that tells how a picture was turned."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation."""

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


class _Room:
    """Keeps the images that threads hold decoded below a number of pixels in all.

    A thread holds one image at a time: its latest. In `in_parallel` that one counts until the
    thread's item is done, elsewhere until it is read.
    """

    def __init__(self) -> None:
        self._changed, self._used = threading.Condition(), 0
        self._mine = threading.local()

    def take(self, pixels: int) -> None:
        """Wait until so many pixels fit, or nobody else holds any."""
        self.give_back()
        with self._changed:
            self._changed.wait_for(
                lambda: not self._used or self._used + pixels <= MOST_PIXELS_AT_ONCE
            )
            self._used += pixels
        self._mine.pixels = pixels

    def give_back(self) -> None:
        """Say that this thread holds no image any more."""
        pixels, self._mine.pixels = getattr(self._mine, "pixels", 0), 0
        if pixels:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is taken within the block is given back at its end; of nested ones, the outer's."""
        outermost = not getattr(self._mine, "within", False)
        self._mine.within = True
        try:
            yield
        finally:
            if outermost:
                self._mine.within = False
                self.give_back()


_room = _Room()


def read_image(
    path: Path | str, content: bytes | None = None, reading: Reading = AS_IT_SAYS
) -> Image.Image:
    """The image in a file: RGB, upright by its EXIF orientation, transparency on white.

    Of a file with several images, the first.

    Args:
        path: Of the file; of an image that lies elsewhere, what it is called in messages.
        content: The bytes of an image that lies elsewhere.
        reading: What its pixels mean.

    Raises:
        DamagedImage: The file is missing, no regular file, damaged, no image, or larger than 200 MB
            or 64 million pixels.
        DataError: What its pixels mean is open, see `pixels`.
    """
    try:
        return _read(_content(Path(path)) if content is None else content, reading)[0]
    except Open as error:
        raise DataError(f"cannot read the image {str(path)!r}: {error}.") from error
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged bytes
        raise DamagedImage(str(path), _reason(error)) from error


@dataclass(frozen=True)
class Examined:
    """What reading an image once tells of it.

    Attributes:
        pixels: Identity of the decoded picture, see `identity`; empty where it cannot be decoded.
        damage: Why it cannot be read; empty where it can.
        open: What is open of the pixels' meaning, see `pixels`; else empty.
        peak: The largest value of pixels that are stored in more than 8 bits; 0 of others.
    """

    pixels: bytes = b""
    damage: str = ""
    open: str = ""
    peak: int = 0


def examine(content: bytes, reading: Reading = AS_IT_SAYS) -> Examined:
    """Read an image as it will be read, and tell what it is.

    Args:
        content: Of its file.
        reading: What its pixels mean, as far as that is known.
    """
    try:
        image, peak = _read(content, reading)
    except Open as error:
        return Examined(open=error.kind, peak=error.peak)
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged bytes
        return Examined(damage=_reason(error))
    size = f"{image.width}x{image.height}:".encode()
    return Examined(pixels=identity_of(size + image.tobytes()), peak=peak)


def find_damage(path: Path) -> str | None:
    """Why the file is no readable image, or None: by reading it as it will be read."""
    try:
        _read(_content(path), AS_IT_SAYS)
    except Exception as error:  # as above
        return _reason(error)
    return None


def _content(path: Path) -> bytes:
    with open(open_file(path), "rb") as file:
        return file.read(MOST_BYTES + 1)


def _read(content: bytes, reading: Reading) -> tuple[Image.Image, int]:
    """An image as it is used, and its largest value where it is stored in more than 8 bits."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    register()
    with _room.held(), _quiet, Image.open(BytesIO(content), formats=FORMATS) as image:
        _check_size(image, content)
        _room.take(image.width * image.height)
        image.load()
        check_whole(image, content)
        rgb, peak = to_rgb(image, content, reading)
        return _upright(image, rgb), peak


def _check_size(image: Image.Image, content: bytes) -> None:
    """Refuse what would take the memory or the time of very many images, before it is decoded."""
    pixels = image.width * image.height
    if pixels == 0:
        raise ValueError("it has no pixels")
    if pixels > MOST_PIXELS:
        raise ValueError(f"it has {pixels:,} pixels, {_too_large()}")
    tags = getattr(image, "tag_v2", {})  # a tile of a TIFF file may be larger than the image
    if _whole(tags.get(322)) * _whole(tags.get(323)) > MOST_PIXELS:
        raise ValueError("it is stored in tiles that are too large")
    if "progressive" in image.info and pixels * content.count(b"\xff\xda") > MOST_SCANNED:
        raise ValueError("it is stored in too many scans; save it anew")


def _too_large() -> str:
    return f"more than the {MOST_PIXELS:,} pixels that are read; scale it down"


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """`work` of each item, in order, by threads: Pillow decodes and resizes without the lock.

    Args:
        work: Called once an item.
        items: What to work on.
        title: Said with the progress where there are many items.
    """

    def held(item: Item) -> Result:
        with _room.held():
            return work(item)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(held, items)
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


def _upright(image: Image.Image, rgb: Image.Image) -> Image.Image:
    """The picture turned as the EXIF data of its file say."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF data do not make the picture unreadable
        return rgb
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return rgb if turn is None else rgb.transpose(turn)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has {_too_large()}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
