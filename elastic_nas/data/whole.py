"""Whether all pixels of a file were there: Pillow reads some that end early without a word."""

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from PIL import Image

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a PNG file, by its colour type."""

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip
"""First column and row, and steps, of the passes of an interlaced PNG file (RFC 2083)."""

_STEP = 1 << 20

MOST_IDLE = 1 << 16
"""Bytes of the codes of a GIF file beyond those that its pixels take at most."""

ROUNDED = 3
"""Brightness of 255 that a flat block may vary by."""

_END = b"\xff\xd9"
"""The mark at the end of JPEG files, and of the codes of JPEG 2000."""


def check_whole(image: Image.Image, content: bytes) -> None:
    """Refuse a loaded image of which the file holds a part only.

    Args:
        image: Loaded; pixels that were not there are 0.
        content: Of its file.

    Raises:
        ValueError: Its pixels end early, or are others than were written.
    """
    if image.format == "PNG":
        _check_sums(content)
    short = _SHORT.get(image.format or "")
    if short is not None and _may_be_short(image) and short(content):
        raise ValueError("its pixels end early")


def _may_be_short(image: Image.Image) -> bool:
    """Whether the end is empty, or flat, as it is where the file ended before; interlaced ones may
    be anyway."""
    if image.format in ("JPEG", "MPO"):
        return "progressive" in image.info or _ends_flat(image)
    if image.info.get("interlace") or image.format == "JPEG2000":
        return True
    last = image.crop((0, image.height - 1, image.width, image.height))
    return not np.asarray(last).any()


def _ends_flat(image: Image.Image) -> bool:
    """Whether the last block of a JPEG file is of one brightness; its colours may be smoothed."""
    left, top = (image.width - 1) // 8 * 8, (image.height - 1) // 8 * 8
    last = image.crop((left, top, image.width, image.height)).convert("L")
    low, high = last.getextrema()
    return bool(high - low <= ROUNDED)  # type: ignore[operator]


def _png_is_short(content: bytes) -> bool:
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    bits = depth * _CHANNELS.get(colour, 1)
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    expected = 0
    for left, top, right, down in passes:
        columns, rows = -((left - width) // right), -((top - height) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + -(-columns * bits // 8))
    return _inflated(content, expected) < expected


def _inflated(content: bytes, most: int) -> int:
    """Bytes that a PNG file's pixels take unpacked, as far as `most`."""
    packed, count = zlib.decompressobj(), 0
    for part in _image_data(content):
        left = part
        while left and count < most and not packed.eof:
            count += len(packed.decompress(left, _STEP))
            left = packed.unconsumed_tail
    return count


def _image_data(content: bytes) -> Iterator[bytes]:
    return (content[at + 8 : at + 8 + size] for at, size in _image_chunks(content))


def _image_chunks(content: bytes) -> Iterator[tuple[int, int]]:
    """Where the chunks with pixels of a PNG file begin, and how long their data are."""
    at = 8
    while at + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        if kind == b"IDAT":
            yield at, size
        at += size + 12


def _check_sums(content: bytes) -> None:
    """Refuse pixels whose checksum is wrong: Pillow does not look at those of pixels."""
    view = memoryview(content)
    for at, size in _image_chunks(content):
        end = at + 8 + size
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError("its pixels are damaged")


def _jpeg_is_short(content: bytes) -> bool:
    """Whether the codes end before the picture does, though the file has an end.

    The library fills up what is missing. Bytes put in before the end are read where codes are
    missing, and change the picture; where all were there, they are passed over.
    """
    end = content.rfind(_END)
    if end < 0:
        return False
    other = content[:end] + b"\x55" * 64 + content[end:]
    try:
        return _decoded(content) != _decoded(other)
    except OSError:  # it is the bytes put in that cannot be read
        return False


def _decoded(content: bytes) -> bytes:
    with Image.open(BytesIO(content), formats=("JPEG",)) as image:
        return image.tobytes()


def _gif_is_short(content: bytes) -> bool:
    """Whether the first picture of a GIF file has fewer pixels than it says (GIF89a, 20 and 22)."""
    at = 13 + _gif_palette(content[10])
    while content[at : at + 1] == b"!":  # extensions
        at = _gif_blocks(content, at + 2)[1]
    width, height, flags = struct.unpack("<HHB", content[at + 5 : at + 10])
    at += 10 + _gif_palette(flags)
    packed, _ = _gif_blocks(content, at + 1)
    wanted = int(width) * int(height)
    return _lzw_pixels(packed, content[at], wanted) < wanted


def _gif_palette(flags: int) -> int:
    """Bytes of the palette that flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 128 else 0


def _gif_blocks(content: bytes, at: int) -> tuple[bytes, int]:
    """The data of the blocks that begin at a place, and the place behind them."""
    parts = []
    while at < len(content) and content[at]:
        parts.append(content[at + 1 : at + 1 + content[at]])
        at += 1 + content[at]
    return b"".join(parts), at + 1


def _lzw_pixels(packed: bytes, least: int, most: int) -> int:
    """How many pixels the codes of a GIF file stand for, as far as `most`: lengths are unpacked.

    Codes that stand for nothing are not followed without end.
    """
    clear, end = 1 << least, (1 << least) + 1
    lengths: list[int] = []
    pixels, held, bits, width, last = 0, 0, 0, least + 1, 0
    for byte in packed[: 4 * most + MOST_IDLE]:
        if pixels >= most:
            break
        held |= byte << bits
        bits += 8
        while bits >= width:
            code, held, bits = held & ((1 << width) - 1), held >> width, bits - width
            if code == end:
                return pixels
            if code == clear:
                lengths, width, last = [1] * (end + 1), least + 1, 0
                continue
            length = lengths[code] if code < len(lengths) else last + 1
            pixels += length
            if last and len(lengths) < 4096:
                lengths.append(last + 1)
            last = length
            if len(lengths) == 1 << width and width < 12:
                width += 1
    return pixels


def _jpeg2000_is_short(content: bytes) -> bool:
    """Whether the codes have no end (ISO 15444-1, A.4.4); its mark occurs within none of them."""
    return _END not in content


_SHORT: dict[str, Callable[[bytes], bool]] = {
    "PNG": _png_is_short,
    "GIF": _gif_is_short,
    "JPEG2000": _jpeg2000_is_short,
    "JPEG": _jpeg_is_short,
    "MPO": _jpeg_is_short,
}
