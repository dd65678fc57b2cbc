"""What a tar shard holds: found by reading its headers, whoever made them."""

import os
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elastic_nas.data.identity import identity_of, stacked
from elastic_nas.data.images import MOST_BYTES
from elastic_nas.data.labels import Label, kind_of, read_label
from elastic_nas.data.passed_over import told
from elastic_nas.data.samples import Sample, samples_of
from elastic_nas.data.tar import members_of
from elastic_nas.errors import DataError


@dataclass(frozen=True, eq=False)
class Index:
    """The images of one shard, in its order.

    Attributes:
        size: Of the shard, in bytes.
        offsets_N: Where the images begin, in bytes.
        sizes_N: Of the images, in bytes.
        labels_N: Indices into `classes`.
        identities: What each image is known by, (n, 16).
        classes: Sorted labels as the shard writes them.
        kind: What the labels are, see `labels`.
        members: Names of the images in the shard, joined by NUL.
        left_out: Members that are no sample: numbers by kind.
        version: What the server calls the shard; empty for one on this machine.
    """

    size: int
    offsets_N: NDArray[np.int64]
    sizes_N: NDArray[np.int64]
    labels_N: NDArray[np.int64]
    identities: NDArray[np.uint8]
    classes: tuple[str, ...]
    kind: str
    members: str
    left_out: Mapping[str, int]
    version: str = ""

    def __len__(self) -> int:
        return len(self.offsets_N)

    def names(self) -> list[str]:
        """Of the images, made on demand: a million of them would fill the memory."""
        return self.members.split("\0") if len(self) else []


class _Row(NamedTuple):
    offset: int
    size: int
    label: Label
    identity: bytes
    member: str


def read_index(file: BinaryIO, shard: str, version: str = "") -> Index:
    """The index of a tar: of each sample the image, and its label from ``.cls`` or ``.json``.

    Args:
        file: The tar; what is in it is never unpacked.
        shard: Its name in messages.
        version: What the server calls it: its images are then known by that and their names. Those
            of a shard on this machine are known by their bytes.

    Raises:
        DataError: The tar is compressed, truncated or damaged; labels cannot be read; which image
            a label is of is open.
    """
    left_out: Counter[str] = Counter()
    try:
        found = samples_of(members_of(file), shard, left_out)
        rows = [_row(file, sample, shard, version) for sample in found]
    except tarfile.TarError as error:
        raise DataError(
            f"the shard {shard!r} is no readable tar ({error}): it is damaged, truncated or "
            "compressed. Shards are plain tars; unpack it with gunzip, or fetch it again."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the shard {shard!r}: {error.strerror or error}.") from error
    if not rows:
        has = f" It has {told(left_out)}." if left_out else ""
        raise DataError(
            f"the shard {shard!r} holds no images with labels.{has} A sample is an image and its "
            "label under the same name, such as 0001.jpg and 0001.cls."
        )
    return _index(os.fstat(file.fileno()).st_size, rows, left_out, version)


def _index(size: int, rows: Sequence[_Row], left_out: Mapping[str, int], version: str) -> Index:
    texts = [row.label.text for row in rows]
    classes = tuple(sorted(set(texts)))
    place = {name: number for number, name in enumerate(classes)}
    return Index(
        size,
        np.array([row.offset for row in rows], dtype=np.int64),
        np.array([row.size for row in rows], dtype=np.int64),
        np.array([place[text] for text in texts], dtype=np.int64),
        stacked(row.identity for row in rows),
        classes,
        kind_of(row.label for row in rows),
        "\0".join(row.member for row in rows),
        dict(left_out),
        version,
    )


def _row(file: BinaryIO, sample: Sample, shard: str, version: str) -> _Row:
    image = sample.image
    if image.size > MOST_BYTES:
        raise DataError(
            f"the image {image.name!r} in the shard {shard!r} has {image.size:,} bytes."
        )
    label = read_label(file, sample.label, shard)
    if version:
        identity = identity_of(f"{version}\0{image.name}".encode(errors="surrogateescape"))
    else:
        file.seek(image.offset_data)
        identity = identity_of(file.read(image.size))
    return _Row(image.offset_data, image.size, label, identity, image.name)
