"""A data set: labelled images in three splits, and how they are resized and normalised."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas.config import DataConfig
from elastic_nas.data.damage import Rule, allowed, listed, stand_ins, too_many
from elastic_nas.data.folder import find_folder
from elastic_nas.data.hub import find_on_hub
from elastic_nas.data.images import in_parallel, shrink
from elastic_nas.data.index import has_control_characters
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.data.record import LEFT_OUT, SCHEMA, SIDES, DataRecord, Head
from elastic_nas.data.shard_source import find_shards
from elastic_nas.data.split import ArrayImages, Part, Source, Split
from elastic_nas.data.stratify import stratified
from elastic_nas.errors import DamagedImage, DataError
from elastic_nas.progress import say
from elastic_nas.strict import checked

__all__ = ["Dataset", "Split", "load_dataset"]

DIGITS = "digits"
SHARES_DIGITS = {"test": 0.2, "search-validation": 0.15}
SHARES_ALONE = {"test": 0.15, "search-validation": 0.15}
SHARE_OF_TRAIN = 0.12
"""Of a given training split, for search-validation."""

MOST_VALIDATION = 10_000
"""Images split off a given training split at most."""

SAMPLE = 500
"""Training images of a folder that statistics are taken of."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation per channel that published ImageNet networks are trained with."""

LARGE_PX = 64
"""Shorter side from which a photograph loses its border to the central crop."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images for training, search and the final test.

    Attributes:
        name: ``digits``, or that of the folder, the data file or the data set on the hub.
        labels: Class names in the order of their indices, sorted.
        train: What the supernet learns from.
        validation: What the search selects on; never trained on.
        test: What finalists are judged by.
        preprocess: How images are resized and normalised.
        flip: Whether a horizontally flipped image keeps its label.
        typical_size: Median shorter side of (a sample of) the training images, in pixels.
        record: What a run keeps of all that.
        damaged: What is done about images that turn out to be unreadable.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    preprocess: Preprocess
    flip: bool
    typical_size: int
    record: DataRecord
    damaged: Rule = "skip"

    def readable(self, split: Split, resolution: int) -> Split:
        """One of the splits, or a part of it, without the images that cannot be read.

        Raises:
            DataError: There are too many of them; see `Split.readable`.
        """
        return split.readable(self.preprocess, resolution, self.damaged)


def load_dataset(source: str | DataConfig, seed: int = 0, statistics: str = "data") -> Dataset:
    """The data set that `source` names, split the same way on every machine.

    Args:
        source: A run file's section ``data``, or the name of a source alone: one of

            - ``digits``: scikit-learn's 1,797 scans of 8x8 pixels (write ``./digits`` for a folder
              of that name);
            - a folder that holds class folders, or ``train/`` with ``val/`` and ``test/``, each
              with class folders;
            - a folder that holds tar shards, ``train-*.tar`` with ``val-*.tar`` and ``test-*.tar``;
            - a data file (``.yaml``) that lists shards, local ones or URLs;
            - ``hf:NAME``, ``hf:NAME:CONFIG`` or ``hf:/path``, a Hugging Face data set.

            One part alone is split 70 / 15 / 15. Where ``val`` or ``test`` is missing, the other
            one is the test split, and search-validation is split off ``train``.
        seed: Of the split.
        statistics: Images are normalised by those of the training images (``data``), or by
            ImageNet's (``imagenet``).

    Raises:
        UnknownName: There is no such folder or data set.
        ConfigError: A data file is no YAML; an extra is not installed.
        DataError: The images cannot be read or split.
    """
    data = DataConfig().model_copy(update={"source": source}) if isinstance(source, str) else source
    found = find_source(data)
    photographs = data.source != DIGITS
    splits = _splits(found, seed, SHARES_ALONE if photographs else SHARES_DIGITS)
    sample = SAMPLE if photographs else len(splits["train"])
    mean, std, typical_size = _statistics(splits["train"], sample, data.damaged)
    if statistics == "imagenet":
        mean, std = IMAGENET
    crop = 0.875 if photographs and typical_size >= LARGE_PX else 1.0
    facts = {
        "seed": seed,
        "statistics": statistics,
        "preprocess": Preprocess(mean, std, crop).describe(),
        "flip": photographs,
        "typical_size": typical_size,
    }
    return dataset_of(recorded(found, splits, facts), splits, data.damaged)


def dataset_of(record: DataRecord, splits: Mapping[str, Split], damaged: Rule = "skip") -> Dataset:
    """The data set that a record describes, of these images.

    Args:
        record: Of a run.
        splits: By their sides.
        damaged: What is done about images that turn out to be unreadable.
    """
    train, validation, test = (splits[side] for side in SIDES)
    head = record.head
    return Dataset(
        name=head.name,
        labels=record.classes,
        train=train,
        validation=validation,
        test=test,
        preprocess=record.preprocess,
        flip=head.flip,
        typical_size=head.typical_size,
        record=record,
        damaged=damaged,
    )


def recorded(source: Source, splits: Mapping[str, Split], facts: Mapping[str, Any]) -> DataRecord:
    """What a run keeps of a source that was split."""
    sides = {part: np.full(len(of.labels), LEFT_OUT, np.uint8) for part, of in source.parts.items()}
    for number, side in enumerate(SIDES):
        split = splits[side]
        part = next(name for name, of in source.parts.items() if of.images is split.images)
        sides[part][split.rows] = number
    given = list(source.parts.values())
    head = {
        "schema": SCHEMA,
        "name": source.name,
        "place": source.place,
        "classes": list(source.classes),
        "given": list(source.parts),
        "bits": source.reading.bits,
        "bands": source.reading.bands,
        "left_out": dict(source.left_out),
        **facts,
    }
    return DataRecord(
        checked(Head, head, DataError),
        np.concatenate([part.images.identities for part in given]),
        np.concatenate([part.labels for part in given]),
        np.concatenate(list(sides.values())),
        np.repeat(np.arange(len(given), dtype=np.uint8), [len(part.labels) for part in given]),
        [name for part in given for name in part.names],
    )


def find_source(data: DataConfig) -> Source:
    """The labelled images that a section names, as they lie there.

    Raises:
        ElasticNasError: See `load_dataset`.
    """
    if data.source == DIGITS:
        return _digits()
    found = find_on_hub(data) or find_shards(data) or find_folder(data)
    _check_classes(found)
    return found


def _digits() -> Source:
    """Optical recognition of handwritten digits (Alpaydin & Kaynak, 1998), by scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels_NHW = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = ArrayImages(np.repeat(pixels_NHW[..., None], 3, axis=3))
    labels = digits.target.astype(np.int64)
    names = [str(index) for index in range(len(labels))]
    classes = tuple(str(name) for name in digits.target_names)
    return Source(DIGITS, DIGITS, classes, {"all": Part(names, labels, images)})


def _check_classes(source: Source) -> None:
    """Refuse a class that cannot be learned or named, and a classifier without a choice."""
    for name in source.classes:
        if has_control_characters(name):
            raise DataError(
                f"the class {name!r} of {source.place!r} has control characters in its name, such "
                "as a line break: lists of classes have one a line. Rename it."
            )
    first, *others = source.parts
    images = np.bincount(source.parts[first].labels, minlength=len(source.classes))
    for other in others:
        missing = np.flatnonzero(images[source.parts[other].labels] == 0)
        if len(missing):
            row, part = int(missing[0]), source.parts[other]
            raise DataError(
                f"the class {source.classes[part.labels[row]]!r} is in {other} but not in {first} "
                f"of {source.place!r}: {part.where(row)!r} is of it. It cannot be learned."
            )
    if not images.all():
        name = source.classes[int(np.argmin(images))]
        raise DataError(
            f"the class {name!r} of {source.place!r} has no images in {first}. Add some, or take "
            "it from the classes; labels count from 0 without gaps."
        )
    if len(images) < 2:
        raise DataError(
            f"{source.place!r} has only one class, {source.classes[0]!r}; a classifier needs at "
            "least two."
        )


def _splits(source: Source, seed: int, alone: dict[str, float]) -> dict[str, Split]:
    parts = source.parts
    if len(parts) == 1:
        (part,) = parts.values()
        _check_counts(source, part, least=3)
        return _split(part, alone, seed)
    train = parts["train"]
    tested = {"test": (parts.get("test") or parts["val"]).whole("test")}
    if len(parts) == 3:
        validation = parts["val"].whole("search-validation")
        return {"train": train.whole("train"), "search-validation": validation, **tested}
    _check_counts(source, train, least=2)
    share = min(SHARE_OF_TRAIN, MOST_VALIDATION / len(train.labels))
    return {**_split(train, {"search-validation": share}, seed), **tested}


def _check_counts(source: Source, part: Part, least: int) -> None:
    for name, count in zip(source.classes, np.bincount(part.labels), strict=True):
        if count < least:
            raise DataError(
                f"the class {name!r} in {source.place!r} has {count} of the {least} images or more "
                "that it takes to have one in each split. Add images, or remove the class."
            )


def _split(part: Part, shares: dict[str, float], seed: int) -> dict[str, Split]:
    """One split for each share, and ``train`` of the rest."""
    rows = stratified(part.names, part.labels, list(shares.values()), seed)
    chosen = zip([*shares, "train"], rows, strict=True)
    return {name: Split(name, part.labels[of], part.images, of) for name, of in chosen}


Triple = tuple[float, float, float]


def _statistics(train: Split, most: int, rule: Rule) -> tuple[Triple, Triple, int]:
    """Mean and standard deviation per channel, and the median shorter side in pixels.

    Of at most `most` images, evenly spaced; each image counts the same, whatever its size. An
    image that cannot be read is replaced as in the training, see `damage.stand_ins`.

    Raises:
        DataError: More images cannot be read than may be.
    """
    count = min(len(train), most)
    indices = [index * len(train) // count for index in range(count)]
    damaged: dict[int, str] = {}

    def sampled(index: int) -> _Moments:
        for candidate in chain([index], stand_ins(train.labels, index)):
            try:
                return _moments(train.image(candidate))
            except DamagedImage as error:
                damaged[candidate] = error.told
                if len(damaged) > allowed(len(train), rule):
                    break
        raise too_many(_in_order(damaged), len(train), train.name, rule)

    rows = in_parallel(sampled, indices, "Sampling images")
    if damaged:
        say(
            f"note: {len(damaged):,} of {len(train):,} {train.name} images cannot be read "
            f"({listed(_in_order(damaged))}); others take their places in the statistics."
        )
    moments = np.mean([row[:2] for row in rows], axis=0)
    std = np.sqrt(np.maximum(moments[1] - moments[0] ** 2, 1 / 255**2))  # never 0
    return _triple(moments[0]), _triple(std), int(np.median([row[2] for row in rows]))


def _in_order(damaged: dict[int, str]) -> list[str]:
    """As threads find them in no order."""
    return [damaged[index] for index in sorted(damaged)]


_Moments = tuple[NDArray[np.float64], NDArray[np.float64], int]


def _moments(image: Image.Image) -> _Moments:
    """Means of pixels in 0..1 and of their squares, and the shorter side in pixels."""
    pixels = np.asarray(shrink(image, 256), dtype=np.float64) / 255
    return pixels.mean(axis=(0, 1)), (pixels**2).mean(axis=(0, 1)), min(image.size)


def _triple(values: NDArray[np.float64]) -> Triple:
    red, green, blue = (round(float(value), 6) for value in values)
    return red, green, blue
