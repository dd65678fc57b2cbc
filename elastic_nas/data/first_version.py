"""What version 0.1.0 knew images by, for runs that it made: they have no record of their images."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from elastic_nas.config import DataConfig
from elastic_nas.data.hub_images import HubImages, JoinedImages
from elastic_nas.data.listing import folders_in
from elastic_nas.data.shards import ShardImages
from elastic_nas.data.split import ArrayImages, FileImages, Images, Part, Source, Split
from elastic_nas.errors import ConfigError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Endings, in lower case, of the files that it took for images."""


PARTS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
"""Names of folders, in lower case, that it took for parts."""


def asked_then(data: DataConfig) -> DataConfig:
    """The section that finds what that version found: parts by fewer names, copies as they are,
    and no damaged images, without which the rest would be split otherwise.

    Raises:
        DataError: The folder cannot be listed.
    """
    same = data.model_copy(update={"duplicates": "keep", "damaged": "stop"})
    root = Path(data.source).expanduser()
    if data.parts != "auto" or not root.is_dir() or any(root.glob("*.tar")):
        return same
    folders = folders_in(root)
    named = [path for path in folders if path.name.lower() in PARTS]
    if not any(folders_in(path) for path in named) and len(named) < len(folders):
        named = []
    pairs = [f"{PARTS[path.name.lower()]}:{path.name}" for path in named]
    return same.model_copy(update={"parts": ",".join(pairs) or "none"})


def as_then(source: Source) -> Source:
    """The images that it read: files of other formats would change how the rest is split."""
    return replace(source, parts={name: _as_then(part) for name, part in source.parts.items()})


def _as_then(part: Part) -> Part:
    if not isinstance(part.images, FileImages):
        return part
    read = [name.lower().endswith(SUFFIXES) for name in part.images.names]
    if all(read):
        return part
    rows, names = np.flatnonzero(read), list(part.names)
    files = [part.images.names[row] for row in rows.tolist()]
    return replace(
        part,
        names=[names[row] for row in rows.tolist()],
        labels=part.labels[rows],
        images=replace(part.images, names=files, identities=part.images.identities[rows]),
        pixels_NB=None if part.pixels_NB is None else part.pixels_NB[rows],
    )


def split_sha256(split: Split) -> str:
    """Hex hash of a split as that version computed it: what a run's search history is tied to.

    Of the labels, and of each image's pixels (in memory), name and size (files), or shard and place
    there (shards). Files that were changed without a change of their size are not told apart.
    """
    identity, digest = _identity(split.images), sha256()
    for label, row in zip(split.labels.tolist(), split.rows.tolist(), strict=True):
        known = identity(row)
        digest.update(b"%d %d\n%b\n" % (label, len(known), known))
    return digest.hexdigest()


def fingerprint(split: Split) -> str:
    """Hex hash that checkpoints held of a split for a while, see their header's `splits`."""
    if isinstance(split.images, ArrayImages | FileImages):
        return split_sha256(split)
    digest = sha256(split.labels.astype("<i8").tobytes())
    digest.update(np.asarray(split.rows).astype("<i8").tobytes())
    return digest.hexdigest()


def _identity(images: Images) -> Callable[[int], bytes]:
    if isinstance(images, ArrayImages):
        return lambda row: images.pixels_NHWC[row].tobytes()
    if isinstance(images, FileImages):
        return lambda row: _named(images.names[row], _size(images, row))
    if isinstance(images, ShardImages):
        return lambda row: _in_shard(images, row)
    if isinstance(images, HubImages):
        return lambda row: _in_table(images, row)
    if isinstance(images, JoinedImages):
        raise ConfigError(
            "parts of a data set are joined by data.parts, which version 0.1.0 did not do: leave "
            "data.parts out for runs that it made."
        )
    raise TypeError(f"that version had no {type(images).__name__}")


def _in_shard(images: ShardImages, row: int) -> bytes:
    number = int(images.shard_of(np.array([row]))[0])
    place = row - sum(map(len, images.indices[:number]))
    index = images.indices[number]
    name = images.shards[number].address.rpartition("/")[2]
    return _named(name, index.offsets_N[place], index.sizes_N[place])


def _in_table(images: HubImages, row: int) -> bytes:
    cell = images.rows[int(images.at_N[row])][images.column] or {}
    content: bytes | None = cell.get("bytes")
    return str(cell.get("path") or "").encode() if content is None else content


def _named(*words: object) -> bytes:
    # Encoded so that names which are not valid UTF-8 have an identity, too.
    return "\0".join(map(str, words)).encode(errors="surrogateescape")


def _size(images: FileImages, row: int) -> int:
    return (images.root / images.names[row]).stat().st_size
