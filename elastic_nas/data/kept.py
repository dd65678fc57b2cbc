"""Indices of shards in the per-user folder: made once, and anew where one is damaged."""

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from elastic_nas.data.identity import WIDTH
from elastic_nas.data.index import Index
from elastic_nas.errors import DataError, RunFolderError, printable
from elastic_nas.files import user_folder, write_atomic
from elastic_nas.outside import read_bytes, sealed, unsealed
from elastic_nas.strict import Strict

FORMAT = 3
"""Of the files that indices are kept in."""

MOST_BYTES = 1 << 30
"""Of such a file."""

ROW = 40
"""Bytes an image: where it begins, its size and its label, of 8 bytes each, and its identity."""

_Count = Annotated[int, Field(ge=0, le=1 << 62)]
_Kind = Annotated[str, Field(max_length=300)]


class _Head(Strict):
    """The second line of a file; then come numbers, identities, classes and names of members.

    The first line is the SHA-256 of all that follows it.
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    shard: _Count
    """Bytes of the shard."""
    images: Annotated[int, Field(gt=0, le=MOST_BYTES)]
    classes: _Count
    """Bytes of the names of classes, joined by NUL."""
    kind: Annotated[str, Field(pattern="^(names|numbers as text|numbers)$")]
    left_out: Annotated[dict[_Kind, _Count], Field(max_length=10_000)]
    version: Annotated[str, Field(max_length=1000)]


def kept(key: str, make: Callable[[], Index]) -> Index:
    """The index kept under `key`; made and kept where there is none, or a damaged one."""
    path = _place(key)
    with suppress(DataError, ValueError):  # pydantic's error is one of value
        return _loaded(read_bytes(path, MOST_BYTES, DataError))
    index = make()
    with suppress(RunFolderError):  # where nothing can be kept, it is made again the next time
        write_atomic(path, _dumped(index))
    return index


def is_kept(key: str) -> bool:
    """Whether an index is kept under `key`."""
    return _place(key).exists()


def forget(key: str) -> None:
    """Make the index anew the next time, since the shard is another one now."""
    with suppress(OSError):
        _place(key).unlink()


def _place(key: str) -> Path:
    digest = sha256(f"{FORMAT}\0{key}".encode(errors="surrogateescape")).hexdigest()
    return user_folder() / "indices" / f"{digest[:40]}.index"


def _dumped(index: Index) -> bytes:
    numbers = np.stack([index.offsets_N, index.sizes_N, index.labels_N]).astype("<i8").tobytes()
    classes = "\0".join(index.classes).encode(errors="surrogateescape")
    head = _Head(
        format=FORMAT,
        shard=index.size,
        images=len(index),
        classes=len(classes),
        kind=index.kind,
        left_out={printable(kind): count for kind, count in index.left_out.items()},
        version=index.version,
    ).model_dump_json()
    members = index.members.encode(errors="surrogateescape")
    identities = index.identities.tobytes()
    content = b"".join([head.encode(), b"\n", numbers, identities, classes, members])
    return sealed(content)


def _loaded(content: bytes) -> Index:
    """The index in such a file.

    Raises:
        ValueError: It is damaged, or says what cannot be.
    """
    line, _, rest = unsealed(content).partition(b"\n")
    head = _Head.model_validate_json(line)
    n, rows = head.images, ROW * head.images
    if len(rest) < rows + head.classes:
        raise ValueError("it is too short")
    classes = rest[rows : rows + head.classes].decode(errors="surrogateescape")
    members = rest[rows + head.classes :].decode(errors="surrogateescape")
    numbers = np.frombuffer(rest, "<i8", 3 * n).reshape(3, -1).astype(np.int64)
    identities = np.frombuffer(rest, np.uint8, WIDTH * n, 24 * n).reshape(n, WIDTH)
    index = Index(
        head.shard, numbers[0], numbers[1], numbers[2], identities, tuple(classes.split("\0")),
        head.kind, members, head.left_out, head.version,
    )  # fmt: skip
    _check(index)
    return index


def _check(index: Index) -> None:
    offsets_N, sizes_N = index.offsets_N, index.sizes_N
    fits: NDArray[np.bool_] = (offsets_N >= 0) & (sizes_N >= 0) & (offsets_N <= index.size)
    fits &= sizes_N <= index.size - offsets_N
    if not fits.all() or index.members.count("\0") != len(index) - 1:
        raise ValueError("its images lie outside of the shard")
    labels_N, classes = index.labels_N, len(index.classes)
    if labels_N.min() < 0 or labels_N.max() >= classes:
        raise ValueError("its labels are none of its classes")
