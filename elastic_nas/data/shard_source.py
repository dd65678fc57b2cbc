"""Tar shards as a source: indexed once, with labels that mean the same in all of them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from elastic_nas import progress
from elastic_nas.config import DataConfig
from elastic_nas.data.data_file import MOST_CLASSES, Listed, list_shards
from elastic_nas.data.index import Index
from elastic_nas.data.shards import ShardImages, index_of, is_indexed
from elastic_nas.data.split import Part, Source
from elastic_nas.errors import DataError

AT_ONCE = 4
"""Shards that are fetched and indexed at the same time."""


def find_shards(data: DataConfig) -> Source | None:
    """The labelled images in the shards that a source names; None if it names none.

    Raises:
        ConfigError: The data file is no YAML.
        DataError: See `data_file.list_shards`, `index.read_index`; a label is out of range.
    """
    listed = list_shards(data.source)
    if listed is None:
        return None
    images = _indexed(listed)
    classes = _classes(listed, images)
    parts = {
        name: Part(part.names(), _labels(part, classes, listed), part)
        for name, part in images.items()
    }
    names = listed.classes or tuple(map(str, classes or range(_count(parts))))
    return Source(listed.name, str(listed.place), names, parts)


def _count(parts: dict[str, Part]) -> int:
    return 1 + max(int(part.labels.max()) for part in parts.values())


def _indexed(listed: Listed) -> dict[str, ShardImages]:
    """The images of each part; progress is shown where shards are new."""
    shards = [shard for part in listed.parts.values() for shard in part]
    new = [shard for shard in shards if not is_indexed(shard)]
    if new:
        with (
            progress.track("Indexing shards (once)", len(new)) as tracker,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            for _ in pool.map(index_of, new):
                tracker.advance()
    return {
        part: ShardImages(of_part, [index_of(shard) for shard in of_part])
        for part, of_part in listed.parts.items()
    }


def _classes(listed: Listed, images: dict[str, ShardImages]) -> tuple[str, ...]:
    """Class names where the shards give names; none where they give numbers."""
    pairs = [
        (shard, index)
        for part in images.values()
        for shard, index in zip(part.shards, part.indices, strict=True)
    ]
    named = [bool(index.classes) for _, index in pairs]
    if not any(named):
        return ()
    if not all(named):
        raise DataError(
            f"the shard {pairs[named.index(True)][0].address!r} gives names for labels, but "
            f"{pairs[named.index(False)][0].address!r} numbers. All shards give one of the two."
        )
    return listed.classes or tuple(sorted({name for _, index in pairs for name in index.classes}))


def _labels(images: ShardImages, classes: tuple[str, ...], listed: Listed) -> NDArray[np.int64]:
    """Class indices of all images of a part, (n,)."""
    place = {name: number for number, name in enumerate(classes)}
    labels = np.concatenate([_of_shard(index, place) for index in images.indices])
    count = len(listed.classes) or MOST_CLASSES
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"the label of {images.member(row)!r} is {images.label(row)!r}, which is none of the "
            f"{count:,} classes{f' in {listed.place}' if listed.classes else ''}. Labels are class "
            "names, or numbers from 0 on; leave a part without labels out."
        )
    return labels


def _of_shard(index: Index, place: dict[str, int]) -> NDArray[np.int64]:
    if not index.classes:
        return index.labels_N
    numbers = np.array([place.get(name, -1) for name in index.classes], dtype=np.int64)
    return numbers[index.labels_N]
