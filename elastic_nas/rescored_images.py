"""The images that an exported child is scored on again: those that it was scored on, or others."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elastic_nas.config import DataConfig
from elastic_nas.data.identity import split_up
from elastic_nas.errors import ConfigError, DataError, some
from elastic_nas.export.artefact import Contents, label_lines
from elastic_nas.export.known_images import SEEN_WIDTH, KnownImages
from elastic_nas.export.manifest import Manifest
from elastic_nas.progress import say
from elastic_nas.run_file import parse_run

if TYPE_CHECKING:
    from elastic_nas.data.dataset import Dataset
    from elastic_nas.data.split import Part, Source, Split

MOST_LOST = 0.01
"""Part of the test images that may be missing."""


@dataclass(frozen=True)
class Rescored:
    """Images to score a child on again.

    Attributes:
        data: Their data set; of its other images those that gave an int8 form its ranges.
        missing: Test images of the export that are not there.
        told: What the images are, as the end of a sentence.
        known: Whether they are among those that the child was scored on.
    """

    data: "Dataset"
    missing: int
    told: str
    known: bool


def source_of(manifest: Manifest, data: str | None, settings: list[str]) -> DataConfig | None:
    """Where the person says that images lie, and how they are read: as the run read them.

    Raises:
        ConfigError: A setting is none of how images are read, or there are no images.
    """
    if data is None and settings:
        raise ConfigError("--set tells how the images of --data are read; name them with --data.")
    if other := [text for text in settings if not text.startswith("data.")]:
        raise ConfigError(
            f"--set {other[0]}: verify takes keys of the section data alone, such as "
            "data.missing=accept."
        )
    if data is None:
        return None
    known = {} if manifest.reading is None else manifest.reading.model_dump()
    return parse_run({"data": {"source": data, **known}}, settings, "--set").data


def images_again(contents: Contents, data: DataConfig) -> Rescored:
    """The test images of an export, found in what a person names by their content.

    Args:
        contents: The export.
        data: Where images lie, how they are read, and whether some may be missing.

    Raises:
        ConfigError: Their classes are others, or too many test images are missing.
        DataError: They cannot be used, or all of them were trained on.
    """
    from elastic_nas.data.dataset import find_source

    manifest, known = contents.manifest, contents.known
    if known is None:
        return _as_then(contents, data)
    source = find_source(data, tuple(contents.labels.split("\n")[:-1]))
    _check_classes(contents, source.classes, data.source)
    found = {name: _rows_of(part, known) for name, part in source.parts.items()}
    name = max(found, key=lambda part: int((found[part] >= 0).sum()))
    rows, part = found[name], source.parts[name]
    here = rows >= 0
    if not here.any():
        return _others(contents, known, data)
    missing = int((~here).sum())
    _check_missing(missing, len(rows), data)
    images = sum(len(of.labels) for of in source.parts.values())
    seen = sum(int(known.is_seen(of.images.identities).sum()) for of in source.parts.values())
    _tell(missing, len(rows), images - seen - len(np.unique(rows[here])), data)
    test = _split("test", part, rows[here])
    told = f"{len(test):,} of the {len(rows):,} images" if missing else "the images"
    return Rescored(
        _dataset(manifest, source, test, _trained(known, manifest, source)),
        missing,
        f"{told} that it was scored on",
        True,
    )


def _rows_of(part: "Part", known: KnownImages) -> NDArray[np.int64]:
    """For each test image of the export its row in a part, or -1: (n,).

    An image that lies in another class now is another one.
    """
    keys = zip(split_up(part.images.identities), part.labels.tolist(), strict=True)
    at = {key: row for row, key in enumerate(keys)}
    wanted = zip(split_up(known.identities), known.labels_N.tolist(), strict=True)
    return np.array([at.get(key, -1) for key in wanted], dtype=np.int64)


def _trained(known: KnownImages, manifest: Manifest, source: "Source") -> "Split":
    """Training images of the run that are there, in its order: the most that one part has."""
    counts = manifest.images
    n = 0 if counts is None else counts.used.train + counts.missing.train
    wanted = [row.tobytes() for row in known.seen[:n]]
    best: Split | None = None
    for part in source.parts.values():
        beginnings = np.ascontiguousarray(part.images.identities[:, :SEEN_WIDTH])
        at = {row.tobytes(): index for index, row in enumerate(beginnings)}
        rows = np.array([at[key] for key in wanted if key in at], dtype=np.int64)
        if best is None or len(rows) > len(best):
            best = _split("train", part, rows)
    assert best is not None  # a source has a part
    return best


def _split(name: str, part: "Part", rows: NDArray[np.int64]) -> "Split":
    from elastic_nas.data.split import Split

    return Split(name, part.labels[rows], part.images, rows)


def _dataset(manifest: Manifest, source: "Source", test: "Split", train: "Split") -> "Dataset":
    from elastic_nas.data.dataset import dataset_of, recorded

    none = train.subset([])
    splits = {"train": train, "search-validation": none, "test": test}
    facts = {
        "seed": manifest.seed or 0,
        "statistics": manifest.statistics or "data",
        "preprocess": manifest.preprocess,
        "flip": False,
        "typical_size": manifest.resolution,
    }
    return dataset_of(recorded(source, splits, facts), splits)


def _check_missing(missing: int, n: int, data: DataConfig) -> None:
    if missing > MOST_LOST * n and data.missing != "accept":
        raise ConfigError(
            f"{missing:,} of the {n:,} test images that the child was scored on are not in "
            f"{data.source!r}, were changed, or lie in another class now: what is left may be "
            "easier or harder. Bring them back, or score it on what is left: --set "
            "data.missing=accept"
        )


def _tell(missing: int, n: int, new: int, data: DataConfig) -> None:
    if missing:
        say(
            f"note: {missing:,} of the {n:,} test images that the child was scored on are not in "
            f"{data.source!r}, were changed, or lie in another class now; scoring it on the other "
            f"{n - missing:,}."
        )
    if new > 0:
        say(
            f"note: {new:,} images of {data.source!r} are none that the child was trained or "
            "scored on; they are left out."
        )


def _others(contents: Contents, known: KnownImages, data: DataConfig) -> Rescored:
    """The test split of a source that has none of the test images, without any that were seen.

    Raises:
        DataError: All of it was.
    """
    found = _loaded(contents.manifest, data)
    test = found.test
    seen = known.is_seen(test.images.identities[test.rows])
    if seen.all():
        raise DataError(
            f"{data.source!r} has none of the test images of the child, and its own test split "
            f"({len(test):,} images) was trained or selected on: nothing is left to score it on. "
            "Name the images that it was made for, or new ones."
        )
    fresh = test.subset(np.flatnonzero(~seen))
    n = int(seen.sum())
    left = f", without {n:,} that were trained or selected on" if n else ""
    say(
        f"note: {data.source!r} has none of the images that the child was scored on: it is other "
        f"data (or the same, written anew). Scoring it on {len(fresh):,} images of its own test "
        f"split{left}."
    )
    return Rescored(replace(found, test=fresh), 0, f"other data: its own test split{left}", False)


def _as_then(contents: Contents, data: DataConfig) -> Rescored:
    """The test split of today, for exports that do not tell which images were test images."""
    found = _loaded(contents.manifest, data)
    _check_classes(contents, found.labels, data.source)
    if contents.manifest.test_sha256 == found.test.sha256:
        return Rescored(found, 0, "the images that it was scored on", True)
    told = (
        "the export was made before exports told which images were test images: some of these may "
        "have been trained on"
    )
    say(f"note: {told}.")
    return Rescored(found, 0, told, False)


def _loaded(manifest: Manifest, data: DataConfig) -> "Dataset":
    from elastic_nas.data.dataset import load_dataset

    found = load_dataset(data, manifest.seed or 0, manifest.statistics or "data")
    return replace(found, preprocess=manifest.deployed)


def _check_classes(contents: Contents, classes: tuple[str, ...], source: str) -> None:
    """Refuse images of other classes, or of the same in another order.

    Raises:
        ConfigError: Both lists are named.
    """
    if label_lines(classes) == contents.labels:
        return
    labels = contents.labels.split("\n")[:-1]
    same = sorted(labels) == sorted(label_lines(classes).split("\n")[:-1])
    how = "the same in another order" if same else "others"
    raise ConfigError(
        f"the classes of {source!r} are {how} than those of labels.txt.\n"
        f"  labels.txt ({len(labels):,}): {some(labels, 10)}\n"
        f"  {source} ({len(classes):,}): {some(classes, 10)}\n"
        "Its answers would be held against wrong names: name images of the classes that the child "
        "was made for with --data."
    )
