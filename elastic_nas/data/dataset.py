"""A data set: labelled images in three splits, and how they are resized and normalised."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas.data.folder import Found, find
from elastic_nas.data.images import in_parallel, shrink
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.data.split import ArrayImages, FileImages, Split
from elastic_nas.data.stratify import stratified
from elastic_nas.errors import DataError

__all__ = ["Dataset", "Split", "load_dataset"]

SHARES_DIGITS = {"test": 0.2, "search-validation": 0.15}
SHARES_ALONE = {"test": 0.15, "search-validation": 0.15}
SHARE_OF_TRAIN = 0.12
"""Of a given training split, for search-validation."""

MOST_VALIDATION = 10_000
"""Images split off a given training split at most."""

SAMPLE = 500
"""Training images of a folder that statistics are taken of."""

LARGE_PX = 64
"""Shorter side from which a photograph loses its border to the central crop."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images for training, search and the final test.

    Attributes:
        name: ``digits``, or the folder's name.
        labels: Class names in the order of their indices, sorted.
        train: What the supernet learns from.
        validation: What the search selects on; never trained on.
        test: What finalists are judged by.
        preprocess: How images are resized and normalised.
        flip: Whether a horizontally flipped image keeps its label.
        typical_size: Median shorter side of (a sample of) the training images, in pixels.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    preprocess: Preprocess
    flip: bool
    typical_size: int


def load_dataset(source: str, seed: int = 0) -> Dataset:
    """The data set that `source` names, split the same way on every machine.

    Args:
        source: ``digits`` (scikit-learn's 1,797 scans of 8x8 pixels; write ``./digits`` for a
            folder of that name), or a folder. The folder holds class folders, which are split
            70 / 15 / 15, or ``train/`` with ``val/`` and ``test/``, each with class folders. One
            of the two alone is the test split, and search-validation is split off ``train/``.
        seed: Of the split.

    Raises:
        UnknownName: There is no such folder.
        DataError: The images cannot be read or split.
    """
    return _digits(seed) if source == "digits" else _from_folder(source, seed)


def _digits(seed: int) -> Dataset:
    """Optical recognition of handwritten digits (Alpaydin & Kaynak, 1998), by scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels_NHW = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = ArrayImages(np.repeat(pixels_NHW[..., None], 3, axis=3))
    labels = digits.target.astype(np.int64)
    names = [str(index) for index in range(len(labels))]
    splits = _split(names, labels, images, SHARES_DIGITS, seed)
    classes = tuple(str(name) for name in digits.target_names)
    return _dataset("digits", classes, splits, flip=False)


def _from_folder(source: str, seed: int) -> Dataset:
    root, parts = find(source)
    if "all" in parts:
        found = parts["all"]
        _check_counts(root, found, least=3)
        splits = _split_found(root, found, SHARES_ALONE, seed)
    else:
        splits = _given_splits(root, parts, seed)
    return _dataset(root.resolve().name, next(iter(parts.values())).classes, splits, flip=True)


def _given_splits(root: Path, parts: dict[str, Found], seed: int) -> dict[str, Split]:
    train = parts["train"]
    test = parts.get("test") or parts["val"]
    tested = {"test": _whole("test", root, test)}
    if len(parts) == 3:
        validation = _whole("search-validation", root, parts["val"])
        return {"train": _whole("train", root, train), "search-validation": validation, **tested}
    _check_counts(root, train, least=2)
    share = min(SHARE_OF_TRAIN, MOST_VALIDATION / len(train.names))
    return {**_split_found(root, train, {"search-validation": share}, seed), **tested}


def _check_counts(root: Path, found: Found, least: int) -> None:
    counts = np.bincount(found.labels)
    for name, count in zip(found.classes, counts, strict=True):
        if count < least:
            raise DataError(
                f"the class {name!r} in {str(root)!r} has {count} of the {least} images or more "
                "that it takes to have one in each split. Add images, or remove the class folder."
            )


def _whole(name: str, root: Path, found: Found) -> Split:
    return Split(name, _labels(found), FileImages(root, found.names, found.sizes))


def _labels(found: Found) -> NDArray[np.int64]:
    return np.array(found.labels, dtype=np.int64)


def _split_found(root: Path, found: Found, shares: dict[str, float], seed: int) -> dict[str, Split]:
    images = FileImages(root, found.names, found.sizes)
    return _split(found.names, _labels(found), images, shares, seed)


def _split(
    names: Sequence[str],
    labels: NDArray[np.int64],
    images: ArrayImages | FileImages,
    shares: dict[str, float],
    seed: int,
) -> dict[str, Split]:
    """One split for each share, and ``train`` of the rest."""
    rows = stratified(names, labels, list(shares.values()), seed)
    parts = zip([*shares, "train"], rows, strict=True)
    return {name: Split(name, labels[part], images, part) for name, part in parts}


def _dataset(
    name: str, classes: tuple[str, ...], splits: dict[str, Split], *, flip: bool
) -> Dataset:
    train = splits["train"]
    mean, std, typical_size = _statistics(train, SAMPLE if flip else len(train))
    crop = 0.875 if flip and typical_size >= LARGE_PX else 1.0
    return Dataset(
        name=name,
        labels=classes,
        train=train,
        validation=splits["search-validation"],
        test=splits["test"],
        preprocess=Preprocess(mean, std, crop),
        flip=flip,
        typical_size=typical_size,
    )


Triple = tuple[float, float, float]


def _statistics(train: Split, most: int) -> tuple[Triple, Triple, int]:
    """Mean and standard deviation per channel, and the median shorter side in pixels.

    Of at most `most` images, evenly spaced; each image counts the same, whatever its size.
    """
    count = min(len(train), most)
    indices = [index * len(train) // count for index in range(count)]
    rows = in_parallel(lambda index: _moments(train.image(index)), indices, "Sampling images")
    moments = np.mean([row[:2] for row in rows], axis=0)
    std = np.sqrt(np.maximum(moments[1] - moments[0] ** 2, 1 / 255**2))  # never 0
    return _triple(moments[0]), _triple(std), int(np.median([row[2] for row in rows]))


def _moments(image: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Means of pixels in 0..1 and of their squares, and the shorter side in pixels."""
    pixels = np.asarray(shrink(image, 256), dtype=np.float64) / 255
    return pixels.mean(axis=(0, 1)), (pixels**2).mean(axis=(0, 1)), min(image.size)


def _triple(values: NDArray[np.float64]) -> Triple:
    red, green, blue = (round(float(value), 6) for value in values)
    return red, green, blue
