"""What a tar shard holds: found once by reading its headers, then kept in the per-user folder."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import DataError, RunFolderError
from elastic_nas.files import user_folder, write_atomic

FORMAT = 1
"""Of the files that indices are kept in."""

IMAGES = frozenset({"jpg", "jpeg", "png", "webp"})
LABELS = ("cls", "json")

MOST_LABEL_BYTES = 1_000_000
"""Of a member that gives a label; a shard may come from anywhere."""

MOST_IMAGE_BYTES = 200_000_000

MOST_NAME = 255
"""Characters of a class name."""


@dataclass(frozen=True, eq=False)
class Index:
    """The images of one shard, in its order.

    Attributes:
        size: Of the shard, in bytes.
        offsets_N: Where the images begin, in bytes.
        sizes_N: Of the images, in bytes.
        labels_N: The numbers that the shard gives, or indices into `classes`.
        classes: Sorted names, where the shard gives names for labels; else empty.
        members: Names of the images in the shard, joined by NUL.
    """

    size: int
    offsets_N: NDArray[np.int64]
    sizes_N: NDArray[np.int64]
    labels_N: NDArray[np.int64]
    classes: tuple[str, ...]
    members: str

    def __len__(self) -> int:
        return len(self.offsets_N)

    def names(self) -> list[str]:
        """Of the images, made on demand: a million of them would fill the memory."""
        return self.members.split("\0") if len(self) else []


def kept(key: str, make: Callable[[], Index]) -> Index:
    """The index kept under `key`; made and kept where there is none, or a damaged one."""
    path = _place(key)
    with suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return _loaded(path)
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
    return user_folder() / "indices" / f"{digest[:40]}.npz"


def _dumped(index: Index) -> bytes:
    buffer = io.BytesIO()
    classes, members = (
        np.frombuffer(text.encode(errors="surrogateescape"), dtype=np.uint8)
        for text in ("\0".join(index.classes), index.members)
    )
    numbers = np.stack([index.offsets_N, index.sizes_N, index.labels_N])
    size = np.int64(index.size)
    np.savez(buffer, size=size, numbers=numbers, classes=classes, members=members)
    return buffer.getvalue()


def _loaded(path: Path) -> Index:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        offsets_N, sizes_N, labels_N = file["numbers"]
        classes, members = (_text(file[key].tobytes()) for key in ("classes", "members"))
        size = int(file["size"])
    names = tuple(classes.split("\0")) if classes else ()
    return Index(size, offsets_N, sizes_N, labels_N, names, members)


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


def read_index(file: BinaryIO, shard: str) -> Index:
    """The index of a tar: of each sample the image, and its label from ``.cls`` or ``.json``.

    Samples are members in a row that have the name up to the first dot in common, as WebDataset
    (https://github.com/webdataset/webdataset) writes them.

    Args:
        file: The tar; what is in it is never unpacked.
        shard: Its name in messages.

    Raises:
        DataError: The tar is compressed, truncated or damaged; an image has no label, or a label
            no image; labels cannot be read, or are numbers here and names there.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            rows = [row for row in _samples(tar, shard) if row is not None]
            _check_end(tar, file, shard)
    except tarfile.TarError as error:
        raise DataError(
            f"the shard {shard!r} is no readable tar ({error}): it is damaged, truncated or "
            "compressed. Shards are plain tars; unpack it with gunzip, or fetch it again."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the shard {shard!r}: {error.strerror or error}.") from error
    if not rows:
        raise DataError(
            f"the shard {shard!r} holds no images. A sample is an image "
            f"({', '.join(sorted(IMAGES))}) followed by its label, such as 0001.jpg and 0001.cls."
        )
    offsets, sizes, labels, members = zip(*rows, strict=True)
    numbers, classes = _numbered(labels, members, shard)
    return Index(
        os.fstat(file.fileno()).st_size,
        np.array(offsets, dtype=np.int64),
        np.array(sizes, dtype=np.int64),
        numbers,
        classes,
        "\0".join(members),
    )


Label = int | str
Row = tuple[int, int, Label, str]


def _samples(tar: tarfile.TarFile, shard: str) -> Iterator[Row | None]:
    for _, group in groupby(_files(tar), key=lambda member: _parted(member.name)[0]):
        yield _sample(tar, shard, list(group))


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    end = 0
    for member in tar:
        if member.size < 0 or member.offset < end:  # made to keep a reader in a circle
            raise tarfile.ReadError(f"impossible size of {member.name!r}")
        end = member.offset_data
        if member.isreg() and not member.issparse():
            yield member


def _parted(name: str) -> tuple[str, str]:
    """``a/b.c/0001.seg.png`` is the sample ``a/b.c/0001`` and the ending ``seg.png``."""
    folder, slash, file = name.rpartition("/")
    key, _, ending = file.partition(".")
    return folder + slash + key, ending.lower()


def _sample(tar: tarfile.TarFile, shard: str, members: list[tarfile.TarInfo]) -> Row | None:
    endings = {_parted(member.name)[1]: member for member in members}
    images = [member for ending, member in endings.items() if ending in IMAGES]
    labels = [endings[ending] for ending in LABELS if ending in endings]
    if not images and "cls" not in endings:
        return None  # a file that is no part of a sample: a licence, a list
    if len(images) != 1 or not labels or len(endings) < len(members):
        raise DataError(
            f"{members[0].name!r} in the shard {shard!r} has {len(images) or 'no'} image"
            f"{'s' if len(images) > 1 else ''} and {'a' if labels else 'no'} label. A sample is "
            "one image, with its label as .cls or .json right beside it under the same name."
        )
    image = images[0]
    if image.size > MOST_IMAGE_BYTES:
        raise DataError(
            f"the image {image.name!r} in the shard {shard!r} has {image.size:,} bytes."
        )
    return image.offset_data, image.size, _label(tar, labels[0], shard), image.name


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: str) -> Label:
    """The number or name that a ``.cls`` or ``.json`` member gives."""
    try:
        if member.size > MOST_LABEL_BYTES:
            raise ValueError(f"it has {member.size:,} bytes")
        file = tar.extractfile(member)
        text = file.read().decode().strip() if file else ""
        label = json.loads(text)["label"] if member.name.lower().endswith(".json") else text
        return _checked(label)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{member.name!r} in the shard {shard!r} gives no label: {_why(error)}. A .cls member "
            'holds a number or a class name, a .json member {"label": ...} with one of the two.'
        ) from error


def _why(error: Exception) -> str:
    return "it has no key 'label'" if isinstance(error, KeyError) else str(error)


def _checked(label: object) -> Label:
    if isinstance(label, str):
        if label.removeprefix("-").isdecimal() and len(label) < 12:
            return int(label)
        if 0 < len(label) <= MOST_NAME and "\0" not in label:
            return label
    elif isinstance(label, int) and not isinstance(label, bool) and abs(label) < 10**12:
        return label
    raise ValueError(f"{label!r:.60} is neither a number nor a class name")


def _numbered(
    labels: tuple[Label, ...], members: tuple[str, ...], shard: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    named = [isinstance(label, str) for label in labels]
    if any(named) and not all(named):
        number, name = members[named.index(False)], members[named.index(True)]
        raise DataError(
            f"the shard {shard!r} gives a number as the label of {number!r}, but a name as that of "
            f"{name!r}. Labels are all numbers or all names."
        )
    if not any(named):
        return np.array(labels, dtype=np.int64), ()
    classes = tuple(sorted({str(label) for label in labels}))
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place[str(label)] for label in labels], dtype=np.int64), classes


def _check_end(tar: tarfile.TarFile, file: BinaryIO, shard: str) -> None:
    """A whole tar ends with zeros: one cut between two members would not be noticed otherwise."""
    file.seek(_end(tar))
    rest = file.read(1 << 20)
    if len(rest) < 512 or rest.strip(b"\0"):
        what = "goes on behind its end, as joined tars do" if rest.strip(b"\0") else "is truncated"
        raise DataError(f"the shard {shard!r} {what}. Make or fetch it again.")


def _end(tar: tarfile.TarFile) -> int:
    members = tar.getmembers()
    if not members:
        return 0
    last = members[-1]
    return last.offset_data + (-(-last.size // 512) * 512 if last.isreg() else 0)
