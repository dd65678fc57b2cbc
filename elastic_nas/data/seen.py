"""What is kept of the files of a folder that were checked: a file of the per-user folder."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from elastic_nas.data.formats import FORMATS
from elastic_nas.data.identity import WIDTH, split_up, stacked
from elastic_nas.data.images import Examined
from elastic_nas.data.pixels import Reading
from elastic_nas.errors import DataError, RunFolderError
from elastic_nas.files import user_folder, write_atomic
from elastic_nas.outside import read_bytes, sealed, unsealed

FORMAT = 1
"""Of such files, and of what reading an image means: another number, and all are looked at anew."""

MOST_BYTES = 1 << 30
"""Of such a file; 200,000 images take about 20 MB."""

AT_REST_S = 2.0
"""Since a file changed before it is known by its times: file systems round them, and what is
written within that time after a look may bear the same ones."""

Stamp = tuple[int, int, int]
"""Of a file: bytes, and nanoseconds of its last change of content and of status."""


@dataclass(frozen=True)
class Seen:
    """What a file is.

    Attributes:
        stamp: Of the file when it was read; None where it could not be opened.
        identity: Of its bytes.
        examined: What decoding it told.
        decoded: Whether it was decoded.
    """

    stamp: Stamp | None
    identity: bytes
    examined: Examined
    decoded: bool

    @property
    def damage(self) -> str:
        """Why it cannot be read; empty where it can."""
        return self.examined.damage


def stamp_of(status: os.stat_result) -> Stamp:
    """What a file is taken for the same by. Swapped names and restored times show in the last."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def place_of(root: Path, reading: Reading) -> Path:
    """Where what was seen of the files of a folder is kept: other rules, another file."""
    rules = (FORMAT, PIL.__version__, FORMATS, reading.bits, reading.bands)
    key = f"{rules}\0{os.path.realpath(root)}".encode(errors="surrogateescape")
    return user_folder() / "checked" / f"{sha256(key).hexdigest()[:40]}.checked"


def load_seen(place: Path) -> dict[str, Seen]:
    """What is kept there; nothing where there is no such file, or a damaged one."""
    if not place.exists():
        return {}
    try:
        return _decoded(read_bytes(place, MOST_BYTES, DataError))
    except Exception:  # of the library, or of values that cannot be: all are looked at anew
        return {}


def save_seen(place: Path, seen: Mapping[str, Seen]) -> None:
    """Keep what was seen, but for damaged files, which are looked at again the next time.

    What damages them may lie elsewhere: a missing plug-in, permissions, a disk that was away.
    """
    since = time.time_ns() - int(AT_REST_S * 1e9)
    kept = {
        name: one
        for name, one in seen.items()
        if one.stamp and not one.damage and max(one.stamp[1:]) < since and "\0" not in name
    }
    if kept:
        with suppress(RunFolderError, OSError):  # where nothing can be kept, it is made again
            write_atomic(place, _encoded(kept))


_TYPES = {
    "names": np.uint8,
    "open": np.uint8,
    "stamps": np.int64,
    "identities": np.uint8,
    "pixels": np.uint8,
    "peaks": np.int64,
    "decoded": np.uint8,
}


def _encoded(seen: Mapping[str, Seen]) -> bytes:
    """A line with the SHA-256 of the rest, which is safetensors."""
    from safetensors.numpy import save

    found = list(seen.values())
    absent = bytes(WIDTH)
    tensors: dict[str, NDArray[Any]] = {
        "names": _joined(list(seen)),
        "open": _joined([one.examined.open for one in found]),
        "stamps": np.array([one.stamp for one in found], np.int64),
        "identities": stacked(one.identity for one in found),
        "pixels": stacked(one.examined.pixels or absent for one in found),
        "peaks": np.array([one.examined.peak for one in found], np.int64),
        "decoded": np.array([one.decoded for one in found], np.uint8),
    }
    return sealed(save(tensors))


def _joined(texts: list[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)


def _decoded(content: bytes) -> dict[str, Seen]:
    """What such a file holds.

    Raises:
        Exception: It is damaged, or holds what cannot be.
    """
    from safetensors.numpy import load

    tensors = load(unsealed(content))
    if {name: array.dtype for name, array in tensors.items()} != _TYPES:
        raise ValueError("it holds other arrays")
    names, opens = (
        tensors[name].tobytes().decode(errors="surrogateescape").split("\0")
        for name in ("names", "open")
    )
    n = len(names)
    shapes = {"stamps": (n, 3), "identities": (n, WIDTH), "pixels": (n, WIDTH)}
    for name in ("stamps", "identities", "pixels", "peaks", "decoded"):
        if tensors[name].shape != shapes.get(name, (n,)):
            raise ValueError("its arrays have unequal lengths")
    absent = bytes(WIDTH)
    pixels = [b"" if one == absent else one for one in split_up(tensors["pixels"])]
    rows = zip(
        names,
        opens,
        tensors["stamps"].tolist(),
        split_up(tensors["identities"]),
        pixels,
        tensors["peaks"].tolist(),
        tensors["decoded"].tolist(),
        strict=True,
    )
    return {
        name: Seen((size, content_ns, status_ns), identity, Examined(px, "", why, peak), bool(of))
        for name, why, (size, content_ns, status_ns), identity, px, peak, of in rows
    }
