"""Tar shards as a source: indexed once, with labels that mean the same in all of them."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from elastic_nas import progress
from elastic_nas.config import DataConfig
from elastic_nas.data.data_file import MOST_CLASSES, Listed, list_shards
from elastic_nas.data.images import Examined, examine, in_parallel
from elastic_nas.data.index import Index
from elastic_nas.data.labels import NAMES, NUMBERS_AS_TEXT, together
from elastic_nas.data.pixels import Reading, settled
from elastic_nas.data.shards import ShardImages, index_of, is_indexed
from elastic_nas.data.split import Part, Source
from elastic_nas.errors import DataError

AT_ONCE = 4
"""Shards that are fetched and indexed at the same time."""

EXAMINED = 100
"""Images of a part that are read at once, for what their pixels mean."""


def find_shards(data: DataConfig, *, tied: bool = False) -> Source | None:
    """The labelled images in the shards that a source names; None if it names none.

    Args:
        data: Which shards, and how their images are read.
        tied: Whether they are held against a run, by which it is known what pixels mean.

    Raises:
        ConfigError: The data file is no YAML.
        DataError: See `data_file.list_shards`, `index.read_index`; a label is out of range, or may
            be read in two ways; what pixels mean is open.
    """
    listed = list_shards(data)
    if listed is None:
        return None
    images = _indexed(listed)
    classes = _classes(listed, images)
    labels = {name: _labels(part, classes, listed) for name, part in images.items()}
    reading = Reading(data.bits, data.bands) if tied else _reading(data, images, listed)
    parts = {
        name: Part(part.names(), labels[name], replace(part, reading=reading))
        for name, part in images.items()
    }
    left_out = Counter(listed.left_out)
    for part in images.values():
        for index in part.indices:
            left_out.update(index.left_out)
    names = listed.classes or tuple(classes)
    return Source(listed.name, str(listed.place), names, parts, dict(left_out), reading)


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


def _classes(listed: Listed, images: dict[str, ShardImages]) -> dict[str, int]:
    """What each label that occurs stands for, as its class index.

    Names are names. Numbers are indices into a list of classes where there is one; without a list
    each number is the name of a class, in the order of numbers.

    Raises:
        DataError: Numbers that stand in the list may be names as well as indices.
    """
    indices = [index for part in images.values() for index in part.indices]
    texts = {text for index in indices for text in index.classes}
    kind = together(index.kind for index in indices)
    if kind == NAMES:
        names = listed.classes or tuple(sorted(texts))
        return {name: number for number, name in enumerate(names)}
    if not listed.classes:
        known = sorted(map(int, texts))
        return {str(number): place for place, number in enumerate(n for n in known if n >= 0)}
    as_index = {text: int(text) for text in texts}
    as_name = {name: number for number, name in enumerate(listed.classes)}
    if kind == NUMBERS_AS_TEXT and texts <= as_name.keys():
        if max(as_index.values()) >= len(as_name) or min(as_index.values()) < 0:
            return as_name
        other = next((text for text in sorted(texts) if as_name[text] != as_index[text]), None)
        if other is not None:
            raise DataError(
                f"the label {other!r} of shards in {str(listed.place)!r} may be the class of that "
                f"name or the number of {listed.classes[int(other)]!r} in the list of classes. "
                f'Write names as JSON texts, {{"label": "{other}"}} in .json members, and numbers '
                f'as JSON numbers, {{"label": {other}}}; or take the list of classes away.'
            )
    return as_index


def _labels(images: ShardImages, classes: dict[str, int], listed: Listed) -> NDArray[np.int64]:
    """Class indices of all images of a part, (n,)."""
    labels = np.concatenate([_of_shard(index, classes) for index in images.indices])
    count = len(listed.classes) or min(len(classes), MOST_CLASSES)
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"the label of {images.member(row)!r} is {images.label(row)!r}, which is none of the "
            f"{count:,} classes{f' in {listed.place}' if listed.classes else ''}. Labels are class "
            "names, or numbers from 0 on; leave a part without labels out."
        )
    return labels


def _of_shard(index: Index, classes: dict[str, int]) -> NDArray[np.int64]:
    numbers = np.array([classes.get(text, -1) for text in index.classes], dtype=np.int64)
    return numbers[index.labels_N]


def _reading(data: DataConfig, images: dict[str, ShardImages], listed: Listed) -> Reading:
    """What the pixels mean, by some images of each part that are on this machine.

    Raises:
        DataError: It is open.
    """
    given = Reading(data.bits, data.bands)
    found: list[Examined] = []
    for part in images.values():
        if part.by_content:
            n = len(part.identities)
            rows = [row * n // min(n, EXAMINED) for row in range(min(n, EXAMINED))]
            contents = in_parallel(part.content, rows, "Reading images")
            found += in_parallel(partial(examine, reading=given), contents, "Examining images")
    return settled(((one.open, one.peak) for one in found), given, str(listed.place))
