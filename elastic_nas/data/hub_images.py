"""Images in the columns of Hugging Face data sets: reading them, and what each is known by."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas import progress
from elastic_nas.data.identity import WIDTH, identity_of
from elastic_nas.data.images import (
    MOST_BYTES,
    SAY_PROGRESS_FROM,
    Examined,
    examine,
    in_parallel,
    read_image,
)
from elastic_nas.data.pixels import AS_IT_SAYS, Reading
from elastic_nas.errors import DamagedImage, DataError, RunFolderError
from elastic_nas.files import user_folder, write_atomic
from elastic_nas.outside import open_file, read_bytes

FORMAT = 1
"""Of the files that identities are kept in."""

AT_ONCE = 100
"""Rows that are read together, since each may hold megabytes."""

STAMP = 3
"""Numbers that a file is taken for the same by."""

EMBEDDED, UNKNOWN = (-1,) * STAMP, (-2,) * STAMP
"""Instead of them: the image lies in the row itself; it cannot be read, or changed just now."""

AT_REST_NS = 2 * 10**9
"""Since a file changed before it is known by its times, which file systems round."""


@dataclass(frozen=True, eq=False)
class HubImages:
    """Images of a column, undecoded.

    Attributes:
        name: Of the data set and its part, for messages.
        rows: Give ``{column: {"bytes": ..., "path": ...}}``.
        column: With the images.
        at_N: The row of each image, (n,).
        identities: Of the images' bytes, wherever these lie, (n, 16).
        reading: What their pixels mean.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    column: str
    at_N: NDArray[np.int64]
    identities: NDArray[np.uint8] = field(repr=False)
    reading: Reading = AS_IT_SAYS

    def read(self, index: int) -> Image.Image:
        """One image, RGB.

        Raises:
            DataError: It is missing or damaged.
        """
        row = int(self.at_N[index])
        cell = self._cell(row)
        content, path = cell.get("bytes"), cell.get("path")
        if content is not None:
            return read_image(f"row {row} of {self.name}", content, self.reading)
        if not path:
            raise DamagedImage(f"row {row} of {self.name}", "the row has no image")
        return read_image(Path(path), reading=self.reading)

    def with_reading(self, reading: Reading) -> "HubImages":
        """The same images, where their pixels mean this."""
        return replace(self, reading=reading)

    def examined(self, most: int) -> list[Examined]:
        """What reading tells of up to `most` images, evenly spaced; see `images.examine`."""
        n = len(self.at_N)
        rows = self.at_N[np.arange(min(n, most)) * n // max(min(n, most), 1)]
        return in_parallel(self._examine, rows.tolist(), "Examining images")

    def _examine(self, row: int) -> Examined:
        cell = self._cell(row)
        content, path = cell.get("bytes"), cell.get("path")
        if content is None:
            try:
                content = read_bytes(Path(str(path)), MOST_BYTES, DataError)
            except DataError as error:
                return Examined(damage=str(error))
        return examine(content, self.reading)

    def _cell(self, row: int) -> Mapping[str, Any]:
        try:
            return self.rows[row][self.column] or {}
        except Exception as error:  # the library raises nearly anything on damaged files
            raise DataError(f"cannot read row {row} of {self.name}: {words(error)}.") from error


@dataclass(frozen=True, eq=False)
class JoinedImages:
    """The images of several parts, one after the other.

    Attributes:
        pieces: The parts.
    """

    pieces: Sequence[HubImages]

    def examined(self, most: int) -> list[Examined]:
        """See `HubImages.examined`; of each part as many."""
        return [one for piece in self.pieces for one in piece.examined(most)]

    def with_reading(self, reading: Reading) -> "JoinedImages":
        """The same images, where their pixels mean this."""
        return JoinedImages([piece.with_reading(reading) for piece in self.pieces])

    def read(self, index: int) -> Image.Image:
        """One image, RGB.

        Raises:
            DataError: It is missing or damaged.
        """
        for piece in self.pieces:
            if index < len(piece.at_N):
                return piece.read(index)
            index -= len(piece.at_N)
        raise IndexError(index)

    @property
    def identities(self) -> NDArray[np.uint8]:
        """Of the images' bytes, (n, 16)."""
        return np.concatenate([piece.identities for piece in self.pieces])


@dataclass(frozen=True, eq=False)
class Known:
    """What the images of a column are known by.

    Attributes:
        identities: Of the images' bytes, (n, 16).
        stamps: Size, and times of change of content and status in ns, of the files that hold them,
            (n, 3); `EMBEDDED` where the row itself does, `UNKNOWN` where the file is to be read
            again the next time.
        reasons: Why not, by row.
    """

    identities: NDArray[np.uint8]
    stamps: NDArray[np.int64]
    reasons: dict[int, str] = field(default_factory=dict)


def known_by(data: Any, rows: Any, column: str, title: str) -> Known:
    """What the images of a column are known by; kept in the per-user folder for the next time.

    Args:
        data: The part of the data set, whose fingerprint and files tell whether it is the same.
        rows: Its images, undecoded.
        column: With the images.
        title: Said with the progress.
    """
    place = _place(data, column)
    before = None if place is None else _kept(place, len(rows))
    if before is not None and (before.stamps == EMBEDDED).all():
        return before
    known = _computed(rows, column, title, before)
    if place is not None and (before is None or (before.stamps != known.stamps).any()):
        content = known.identities.tobytes() + known.stamps.astype("<i8").tobytes()
        with suppress(RunFolderError):  # where nothing can be kept, it is made again the next time
            write_atomic(place, sha256(content).digest() + content)
    return known


def _place(data: Any, column: str) -> Path | None:
    """Where the identities are kept; None of a part that lies in memory.

    The fingerprint tells how a part was made, not of what: its files are looked at, too.
    """
    files = [Path(file["filename"]) for file in data.cache_files]
    if not files:
        return None
    status = [file.stat() for file in files]
    stamps = [str(_stamp(of)) for of in status]
    key = "\0".join([str(FORMAT), str(data._fingerprint), column, *stamps])
    digest = sha256(key.encode(errors="surrogateescape")).hexdigest()
    return user_folder() / "identities" / f"{digest[:40]}.hub"


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _kept(place: Path, n: int) -> Known | None:
    """What is kept there of `n` rows; None where there is nothing, or a damaged file."""
    size = n * (WIDTH + 8 * STAMP)
    try:
        content = read_bytes(place, size + 32, DataError)
    except DataError:
        return None
    digest, content = content[:32], content[32:]
    if len(content) != size or sha256(content).digest() != digest:
        return None
    identities = np.frombuffer(content, np.uint8, n * WIDTH).reshape(n, WIDTH)
    stamps = np.frombuffer(content, "<i8", STAMP * n, n * WIDTH).reshape(n, STAMP)
    return Known(identities, stamps.astype(np.int64))


def _computed(rows: Any, column: str, title: str, before: Known | None) -> Known:
    n = len(rows)
    identities, stamps = np.zeros((n, WIDTH), np.uint8), np.full((n, STAMP), UNKNOWN, np.int64)
    known = Known(identities, stamps)

    def fill(row: int, content: Any, path: str | None) -> None:
        try:
            if content is not None:
                found, stamp = _embedded(content, row, before), EMBEDDED
            else:
                found, stamp = _of_file(path, row, before)
            identities[row], stamps[row] = np.frombuffer(found, np.uint8), stamp
        except (OSError, ValueError) as error:
            known.reasons[row] = getattr(error, "strerror", None) or str(error)

    tracker = progress.track(title, n) if n >= SAY_PROGRESS_FROM else nullcontext()
    with tracker as told, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for batch in _batches(rows, column):
            list(pool.map(fill, *zip(*batch, strict=True)))
            if told is not None:
                told.advance(len(batch))
    return known


def _embedded(content: Any, row: int, before: Known | None) -> bytes:
    """The identity of an image in its row, which changes only with the whole part."""
    if before is not None and tuple(before.stamps[row].tolist()) == EMBEDDED:
        return bytes(before.identities[row])
    return identity_of(content)


def _of_file(path: str | None, row: int, before: Known | None) -> tuple[bytes, tuple[int, ...]]:
    """The identity of a file's content, and its stamp; what is known of the same file stands.

    Raises:
        OSError: It cannot be read.
        ValueError: There is no path, or it can be none.
    """
    if not path:
        raise ValueError("it has no image")
    with open(open_file(Path(path)), "rb") as file:
        stamp = _stamp(os.fstat(file.fileno()))
        if before is not None and tuple(before.stamps[row].tolist()) == stamp:
            return before.identities[row].tobytes(), stamp
        rests = max(stamp[1:]) < time.time_ns() - AT_REST_NS
        return identity_of(file.read(MOST_BYTES + 1)), stamp if rests else UNKNOWN


def _batches(rows: Any, column: str) -> Iterator[list[tuple[int, Any, str | None]]]:
    """Row, content (a buffer or None) and path of some images at a time; nothing is copied."""
    table = rows.with_format("arrow")
    for start in range(0, len(rows), AT_ONCE):
        found: list[tuple[int, Any, str | None]] = []
        for chunk in table[start : start + AT_ONCE].column(column).chunks:
            names = [field.name for field in chunk.type]
            contents, paths = (chunk.flatten()[names.index(name)] for name in ("bytes", "path"))
            for content, path in zip(contents, paths, strict=True):
                found.append((start + len(found), content.as_buffer(), path.as_py()))
        yield found


def words(error: Exception) -> str:
    """What a library says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300].rstrip(".")
