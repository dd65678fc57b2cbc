"""A data set: labelled images in three splits, and how they are resized and normalised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from elastic_nas import progress
from elastic_nas.config import DataConfig
from elastic_nas.data.class_names import check_class_names
from elastic_nas.data.damage import Rule
from elastic_nas.data.duplicates import Usable, sort_out
from elastic_nas.data.first_version import as_then, asked_then
from elastic_nas.data.folder import find_folder
from elastic_nas.data.hub import find_on_hub
from elastic_nas.data.moments import statistics_of
from elastic_nas.data.passed_over import told
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.data.record import SCHEMA, SIDES, DataRecord, Head
from elastic_nas.data.shard_source import find_shards
from elastic_nas.data.sides import kept_on_sides, sides_of
from elastic_nas.data.split import ArrayImages, Part, Source, Split
from elastic_nas.data.stratify import stratified
from elastic_nas.data.tied import check_same_classes
from elastic_nas.errors import ConfigError, DataError
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


def load_dataset(
    source: str | DataConfig,
    seed: int = 0,
    statistics: str = "data",
    *,
    first: tuple[str, ...] = (),
) -> Dataset:
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
        first: Classes of a run of version 0.1.0, for which images are found and split as it did.

    Raises:
        UnknownName: There is no such folder or data set.
        ConfigError: A data file is no YAML; an extra is not installed.
        DataError: The images cannot be read or split.
    """
    data = DataConfig().model_copy(update={"source": source}) if isinstance(source, str) else source
    if first:
        data = asked_then(data)
    found = as_then(find_source(data, first, tied=False)) if first else find_source(data)
    splits, copies = _drawn(found, data, seed)
    photographs = data.source != DIGITS
    sample = SAMPLE if photographs else len(splits["train"])
    mean, std, typical_size = statistics_of(splits["train"], sample, data.damaged)
    if statistics == "imagenet":
        mean, std = IMAGENET
    crop = 0.875 if photographs and typical_size >= LARGE_PX else 1.0
    facts = {
        "seed": seed,
        "statistics": statistics,
        "preprocess": Preprocess(mean, std, crop).describe(),
        "flip": photographs,
        "typical_size": typical_size,
        "copies": copies,
    }
    return dataset_of(recorded(found, splits, facts), splits, data.damaged)


def _drawn(source: Source, data: DataConfig, seed: int) -> tuple[dict[str, Split], dict[str, int]]:
    """The splits of a source, and its equal pictures by kind; tells what is left out of it."""
    if source.left_out:
        progress.say(f"Left out of {source.place}: {told(source.left_out)}.")
    _say_unchecked(source)
    copies = sort_out(source, data.duplicates)
    copies.tell()
    alone = SHARES_DIGITS if data.source == DIGITS else SHARES_ALONE
    return _splits(source, seed, alone, copies.parts), dict(copies.counts)


def _say_unchecked(source: Source) -> None:
    """Tell what is not known of images that were not decoded before."""
    parts = source.parts.values()
    if all(part.pixels_NB is not None or isinstance(part.images, ArrayImages) for part in parts):
        return
    by_content = all(getattr(part.images, "by_content", True) for part in parts)
    equal = (
        "equal pictures are found only where all of their bytes are the same"
        if by_content
        else "equal pictures are not looked for behind URLs"
    )
    progress.say(
        f"note: the images of {source.place} are not decoded beforehand: damaged ones are met when "
        f"they are read, and {equal}."
    )


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


def load_begun(data: DataConfig, seed: int, origin: DataRecord, place: str) -> Dataset:
    """The data set of a training that begins with the weights of another run.

    Images that the run knows keep their sides, new ones are split as usual; images are resized
    and normalised as the weights expect.

    Args:
        data: Which images.
        seed: Of the split of new ones.
        origin: What the run keeps of its images.
        place: The run, for messages.

    Raises:
        ConfigError: They are of other classes; or see `sides.kept_on_sides`.
        ElasticNasError: See `load_dataset`.
    """
    found = find_source(known_reading(data, origin, place))
    without = "train without --init"
    check_same_classes(origin.classes, found.classes, place, found.place, without)
    drawn, copies = _drawn(found, data, seed)
    splits = kept_on_sides(origin, found, drawn, place, accept=data.missing == "accept")
    same = {"statistics", "preprocess", "flip", "typical_size"}
    facts = {"seed": seed, "copies": copies, **origin.head.model_dump(include=same)}
    return dataset_of(recorded(found, splits, facts), splits, data.damaged)


def known_reading(data: DataConfig, record: DataRecord, place: str) -> DataConfig:
    """The section with what pixels meant when a run was trained.

    Raises:
        ConfigError: It says otherwise.
    """
    known = {"bits": record.head.bits, "bands": record.head.bands}
    for key, then in known.items():
        now = getattr(data, key)
        if now not in (None, then):
            raise ConfigError(
                f"{place} was trained with data.{key}: {then or 'as the files say'}, which cannot "
                f"become {now}: the weights expect other pixels. Leave data.{key} out, or train in "
                "another folder with --out."
            )
    return data.model_copy(update=known)


def recorded(source: Source, splits: Mapping[str, Split], facts: Mapping[str, Any]) -> DataRecord:
    """What a run keeps of a source that was split."""
    sides = sides_of(source, splits)
    given = list(source.parts.values())
    head = {
        "schema": SCHEMA,
        "name": _text(source.name),
        "place": _text(source.place),
        "classes": list(source.classes),
        "given": list(source.parts),
        "bits": source.reading.bits,
        "bands": source.reading.bands,
        "left_out": {_text(kind): count for kind, count in source.left_out.items()},
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


def _text(name: str) -> str:
    """A name of a file as text that can be written anywhere; question marks for what is none."""
    return name.encode(errors="replace").decode()


def find_source(
    data: DataConfig, known: tuple[str, ...] = (), *, tied: bool | None = None
) -> Source:
    """The labelled images that a section names, as they lie there.

    Args:
        data: Which images, and how they are read.
        known: Classes of a run or an export that they are held against; any of them may have none.
        tied: Whether what is wrong with single images only leaves them out, as the run knows which
            it needs; by default where there are known classes.

    Raises:
        ElasticNasError: See `load_dataset`.
    """
    if data.source == DIGITS:
        return _digits()
    tied = bool(known) if tied is None else tied
    found = find_on_hub(data, tied=tied) or find_shards(data, tied=tied)
    found = found or find_folder(data, known, tied=tied)
    if not known:
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
    check_class_names(source.classes, source.place)
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


def _splits(
    source: Source, seed: int, alone: dict[str, float], usable: Mapping[str, Usable]
) -> dict[str, Split]:
    parts = source.parts
    if len(parts) == 1:
        ((name, part),) = parts.items()
        _check_counts(source, name, usable[name], least=3)
        return _split(part, alone, seed, usable[name])
    tested = {"test": _whole(source, "test" if "test" in parts else "val", "test", usable)}
    _check_counts(source, "train", usable["train"], least=4 - len(parts))
    if len(parts) == 3:
        train = _whole(source, "train", "train", usable)
        validation = _whole(source, "val", "search-validation", usable)
        return {"train": train, "search-validation": validation, **tested}
    share = min(SHARE_OF_TRAIN, MOST_VALIDATION / len(usable["train"].rows))
    drawn = _split(parts["train"], {"search-validation": share}, seed, usable["train"])
    return {**drawn, **tested}


def _whole(source: Source, part: str, side: str, usable: Mapping[str, Usable]) -> Split:
    """All images of a part that are used."""
    of, rows = source.parts[part], usable[part].rows
    if not len(rows):
        raise DataError(
            f"{source.place!r} has no images left in {part}: all of them have copies elsewhere and "
            "are left out. Add others, delete the copies, or keep them: --set data.duplicates=keep"
        )
    return Split(side, of.labels[rows], of.images, rows)


def _check_counts(source: Source, name: str, usable: Usable, least: int) -> None:
    """Refuse a class that has too few pictures to have one on each side of a part.

    Copies go to train together: what is drawn has none.
    """
    counts = np.bincount(source.parts[name].labels, minlength=len(source.classes))
    for label, count in enumerate(counts.tolist()):
        pictures, single = int(usable.pictures[label]), int(usable.single[label])
        if pictures >= least and single >= least - 1:
            continue
        place = f"the class {source.classes[label]!r} in {source.place!r}"
        if count == single:
            raise DataError(
                f"{place} has {count} of the {least} images or more that it takes to have one in "
                "each split. Add images, or remove the class."
            )
        some = f"all {count:,}" if not pictures else f"all but {pictures:,} of its {count:,}"
        raise DataError(
            f"{place}: {some} images in {name} are copies of others, in another part or class or "
            f"of each other, and too few are left to have one in each split (it takes {least} "
            "different pictures). Add others, delete the copies (is a folder a copy or a link of "
            "another one?), or keep them: --set data.duplicates=keep"
        )


def _split(part: Part, shares: dict[str, float], seed: int, usable: Usable) -> dict[str, Split]:
    """One split for each share, and ``train`` of the rest and of what has copies."""
    single = usable.rows[~usable.copied]
    names = part.names
    if len(single) < len(part.labels):
        all_names = list(names)
        names = [all_names[row] for row in single]
    *drawn, rest = stratified(names, part.labels[single], list(shares.values()), seed)
    train = np.sort(np.concatenate([single[rest], usable.rows[usable.copied]]))
    chosen = zip([*shares, "train"], [*(single[rows] for rows in drawn), train], strict=True)
    return {name: Split(name, part.labels[of], part.images, of) for name, of in chosen}
