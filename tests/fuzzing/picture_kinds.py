"""Pictures of several formats."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from made_shards import pixels
from PIL import Image

from elastic_nas.data.images import find_damage, read_image
from fuzzing.kinds import Kind, RefusedError, nothing_wrong
from fuzzing.mutate import damaged_bytes
from fuzzing.run_kinds import written
from fuzzing.seeds import Seeds


def png_image(seeds: Seeds) -> Kind:
    return _picture("PNG")


def jpeg_image(seeds: Seeds) -> Kind:
    return _picture("JPEG")


def webp_image(seeds: Seeds) -> Kind:
    return _picture("WEBP")


def tiff_image(seeds: Seeds) -> Kind:
    return _picture("TIFF")


def _picture(form: str) -> Kind:
    buffer = BytesIO()
    image = Image.fromarray(pixels(5, 40))
    options: dict[str, Any] = {"exif": Image.Exif()} if form == "JPEG" else {}
    image.save(buffer, form, **options)
    content = buffer.getvalue()
    whole = np.asarray(read_image("x", content)).copy()

    def read(changed: bytes, folder: Path) -> Any:
        place = written(folder, f"picture.{form.lower()}", changed)
        if damage := find_damage(place):
            raise RefusedError(damage)
        return np.asarray(read_image(place)), np.asarray(read_image("x", changed))

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        found, again = result
        if not np.array_equal(found, again):
            return "a file and its content differ"
        if form == "PNG" and changed.startswith(content[:8]) and not _forged(changed):
            return "" if np.array_equal(found, whole) else "other pixels than its checksums are of"
        return ""

    judged = judge if form == "PNG" else nothing_wrong
    return Kind(f"{form} image", content, read, judged, fields=_chunks if form == "PNG" else None)


def _pieces(content: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _forged(changed: bytes) -> bool:
    """Whether it was written with checksums of its own: chunks are others, and all are sound."""
    at = 8
    while at + 12 <= len(changed):
        (length,) = struct.unpack(">I", changed[at : at + 4])
        end = at + 8 + length
        if changed[end : end + 4] != struct.pack(">I", zlib.crc32(changed[at + 4 : end])):
            return False
        at = end + 4
    return True


def _chunks(content: bytes, rng: Random) -> tuple[bytes, str]:
    """A PNG of changed chunks, with checksums that are right."""
    pieces = _pieces(content)
    at = rng.randrange(len(pieces))
    name, data = pieces[at]
    what = rng.choice(["size", "size", "mode", "bytes", "text bomb", "lose", "double", "data bomb"])
    if what == "size":
        sizes = rng.choice(
            [(1, 1), (2**31 - 1, 1), (60_000, 60_000), (0, 0), (13_000, 13_000), (400, 400)]
        )
        pieces[0] = (b"IHDR", struct.pack(">II", *sizes) + pieces[0][1][8:])
    elif what == "mode":
        pieces[0] = (
            b"IHDR",
            pieces[0][1][:8]
            + bytes(
                [rng.choice([1, 8, 16]), rng.choice([0, 2, 3, 4, 6]), 0, 0, rng.choice([0, 1])]
            ),
        )
    elif what == "bytes":
        pieces[at] = (name, damaged_bytes(data, rng)[0])
    elif what == "text bomb":
        bomb = zlib.compress(b"\0" * 200_000_000, 1)
        pieces.insert(1, (rng.choice([b"zTXt", b"iCCP"]), b"x\0\0" + bomb))
    elif what == "data bomb":
        pieces[at] = (b"IDAT", zlib.compress(b"\0" * 100_000_000, 1))
    elif what == "lose":
        del pieces[at]
    else:
        pieces.insert(rng.randrange(len(pieces) + 1), (name, data))
    parts = [
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in pieces
    ]
    return content[:8] + b"".join(parts), what
