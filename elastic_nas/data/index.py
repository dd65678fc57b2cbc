"""What a tar shard holds: found by reading its headers, whoever made them."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from elastic_nas.data.class_names import has_control_characters
from elastic_nas.data.images import MOST_BYTES
from elastic_nas.data.tar import members_of
from elastic_nas.errors import DataError
from elastic_nas.outside import parse_json

IMAGES = frozenset({"jpg", "jpeg", "png", "webp"})
LABELS = ("cls", "json")

MOST_LABEL_BYTES = 1_000_000
"""Of a member that gives a label; a shard may come from anywhere."""

MOST_IN_SAMPLE = 100
"""Members of one sample: an image, its label, and what else is known of it."""

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
        rows = [row for row in _samples(file, shard) if row is not None]
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


def _samples(file: BinaryIO, shard: str) -> Iterator[Row | None]:
    for key, group in groupby(members_of(file), key=lambda member: _parted(member.name)[0]):
        members = list(islice(group, MOST_IN_SAMPLE + 1))
        if len(members) > MOST_IN_SAMPLE:
            raise DataError(
                f"the shard {shard!r} has more than {MOST_IN_SAMPLE} members in a row that are "
                f"called {key[:100]!r} up to the first dot: a sample has fewer."
            )
        yield _sample(file, shard, members)


def _parted(name: str) -> tuple[str, str]:
    """``a/b.c/0001.seg.png`` is the sample ``a/b.c/0001`` and the ending ``seg.png``."""
    folder, slash, file = name.rpartition("/")
    key, _, ending = file.partition(".")
    return folder + slash + key, ending.lower()


def _sample(file: BinaryIO, shard: str, members: list[tarfile.TarInfo]) -> Row | None:
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
    if image.size > MOST_BYTES:
        raise DataError(
            f"the image {image.name!r} in the shard {shard!r} has {image.size:,} bytes."
        )
    return image.offset_data, image.size, _label(file, labels[0], shard), image.name


def _label(file: BinaryIO, member: tarfile.TarInfo, shard: str) -> Label:
    """The number or name that a ``.cls`` or ``.json`` member gives."""
    try:
        if member.size > MOST_LABEL_BYTES:
            raise ValueError(f"it has {member.size:,} bytes")
        file.seek(member.offset_data)
        text = file.read(member.size).decode().strip()
        label = parse_json(text)["label"] if member.name.lower().endswith(".json") else text
        return _checked(label)
    except (ValueError, KeyError, TypeError) as error:
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
        if 0 < len(label) <= MOST_NAME and not has_control_characters(label):
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
