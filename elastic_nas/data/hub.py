"""Hugging Face data sets: from the hub, or as saved on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elastic_nas import progress
from elastic_nas.config import DataConfig
from elastic_nas.data.class_names import alike
from elastic_nas.data.damage import allowed
from elastic_nas.data.hub_images import HubImages, JoinedImages, known_by, words
from elastic_nas.data.hub_parts import ALONE, chosen_parts, some
from elastic_nas.data.pixels import Reading, settled
from elastic_nas.data.place import HUB, name_of, saved_path
from elastic_nas.data.split import Part, Source
from elastic_nas.errors import ConfigError, DataError, ElasticNasError, UnknownName
from elastic_nas.outside import MOST_JSON

MOST_KIND = 300
"""Characters of what rows are counted under."""

EXAMINED = 200
"""Images of a part that are read at once, for what their pixels mean."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """A part of the data set, as it calls it.

    Attributes:
        name: Of the part.
        data: A `datasets.Dataset`.
        classes: Names by label.
        labels: Of all rows, (n,).
    """

    name: str
    data: Any
    classes: tuple[str, ...]
    labels: NDArray[np.int64]


def find_on_hub(data: DataConfig, *, tied: bool = False) -> Source | None:
    """The data set that ``hf:NAME``, ``hf:NAME:CONFIG`` or ``hf:/path`` names; None of others.

    Raises:
        ConfigError: The extra ``hub`` is not installed; ``data.parts`` names what there is not.
        UnknownName: There is no such data set.
        DataError: It has no columns of images and labels, or several of a kind; what its parts are
            is open; their classes differ; too many rows have no image.
    """
    if not data.source.startswith(HUB):
        return None
    loaded = _loaded(data.source)
    try:
        return _source(data, loaded, tied)
    except ElasticNasError:
        raise
    except Exception as error:  # the library raises nearly anything on odd columns
        raise DataError(f"cannot use {data.source}: {words(error)}.") from error


def _source(data: DataConfig, loaded: Any, tied: bool) -> Source:
    source = data.source
    given = dict(loaded) if isinstance(loaded, Mapping) else {ALONE: loaded}
    chosen = chosen_parts(data, given)
    first = given[next(iter(chosen.values()))[0]]
    image, label = (_column(first, kind, source) for kind in ("Image", "ClassLabel"))
    left_out: dict[str, int] = {}
    used = {key for keys in chosen.values() for key in keys}
    _leave_out(source, "not used", {k: len(v) for k, v in given.items() if k not in used}, left_out)
    pieces, bare = _pieces(data, given, chosen, (image, label))
    _leave_out(source, "without labels", bare, left_out)
    classes = _classes(source, [piece for of in pieces.values() for piece in of])
    images = {
        part: _images_of(data, [_renumbered(piece, classes) for piece in of], image, left_out)
        for part, of in pieces.items()
    }
    reading = Reading(data.bits, data.bands)
    if not tied:
        examined = [one for of in images.values() for one in of[0].examined(EXAMINED)]
        reading = settled(((one.open, one.peak) for one in examined), reading, source)
    parts = {
        part: Part(names, labels, of.with_reading(reading))
        for part, (of, labels, names) in images.items()
    }
    return Source(name_of(source), source, classes, parts, left_out, reading)


def _leave_out(source: str, kind: str, rows: Mapping[str, int], left_out: dict[str, int]) -> None:
    """Tell and count the parts whose rows are left out."""
    if not rows:
        return
    told = some([f"{name} ({n:,} rows)" for name, n in rows.items()])
    progress.say(f"note: parts of {source} that are {kind} are left out: {told}.")
    left_out[f"rows of parts {kind}: {some(list(rows))}"[:MOST_KIND]] = sum(rows.values())


def _pieces(
    data: DataConfig,
    given: Mapping[str, Any],
    chosen: Mapping[str, list[str]],
    columns: tuple[str, str],
) -> tuple[dict[str, list[_Piece]], dict[str, int]]:
    """What is labelled of each part, and the numbers of rows of what is not.

    Raises:
        DataError: A part that is needed has no labels.
    """
    pieces: dict[str, list[_Piece]] = {}
    bare: dict[str, int] = {}
    for part, names in chosen.items():
        for name in names:
            piece = _piece(name, given[name], columns, data.source)
            if piece is not None:
                pieces.setdefault(part, []).append(piece)
            elif data.given:
                raise DataError(
                    f"the part {name!r} of {data.source!r} has no labels. Take it out of data.parts"
                    f" (now {data.parts})."
                )
            else:
                bare[name] = len(given[name])
    if not pieces.keys() & {ALONE, "train"}:
        raise DataError(f"the training images of {data.source!r} have no labels.")
    return pieces, bare


def _piece(name: str, data: Any, columns: tuple[str, str], source: str) -> _Piece | None:
    """A part with its labels; None where it has none.

    Raises:
        DataError: It lacks a column, is empty, or has labels that are no classes.
    """
    image, label = columns
    if label not in data.features and not any(
        _is(of, "ClassLabel") for of in data.features.values()
    ):
        return None
    if not {image, label} <= set(data.features) or not _is(data.features[label], "ClassLabel"):
        raise DataError(
            f"{name} of {source} lacks the column {image!r} or {label!r} that other parts have. "
            "Name the parts that have them, such as --set data.parts=train:train"
        )
    labels = _labels(f"{name} of {source}", data, label)
    if (labels < 0).all():
        return None
    return _Piece(name, data, tuple(map(str, data.features[label].names)), labels)


def _is(feature: Any, kind: str) -> bool:
    return type(feature).__name__ == kind


def _labels(name: str, data: Any, label: str) -> NDArray[np.int64]:
    """Of all rows, (n,); -1 in all of them says that a part is not labelled."""
    given = data.select_columns([label]).with_format("arrow")[:].column(label)
    labels: NDArray[np.int64] = given.fill_null(-1).to_numpy().astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(data.features[label].names)))
    if len(labels) == 0:
        raise DataError(
            f"{name} is empty. Name the parts that are not, such as --set data.parts=train:train"
        )
    if len(wrong) and not (labels == -1).all():
        raise DataError(
            f"the label of row {wrong[0]} of {name} is {labels[wrong[0]]}, which is none of the "
            f"{len(data.features[label].names):,} classes. Leave such rows out."
        )
    return labels


def _classes(source: str, pieces: Sequence[_Piece]) -> tuple[str, ...]:
    """Names that all parts give their labels, in the order of the first part.

    A name without a row in any part is of no use, wherever it is listed.

    Raises:
        DataError: A part does not list a name that another one uses.
    """
    first, *others = pieces
    used = {
        piece.classes[label]: piece
        for piece in reversed(pieces)
        for label in set(piece.labels.tolist())
    }
    for piece in pieces:
        listed = set(piece.classes)
        if missing := [name for name in used if name not in listed]:
            owner = used[missing[0]]
            raise DataError(_unequal(source, owner, piece, missing))
    for other in others:
        if [name for name in other.classes if name in used] != [
            name for name in first.classes if name in used
        ]:
            progress.say(
                f"note: {other.name} of {source} lists its classes in another order than "
                f"{first.name}: labels are matched by name."
            )
    idle = sorted({name for piece in pieces for name in piece.classes} - used.keys())
    if idle:
        progress.say(
            f"note: no row of {source} is of {len(idle):,} of its classes, which are left out: "
            f"{some(list(map(repr, idle)))}."
        )
    return tuple(name for name in first.classes if name in used)


def _nearly(name: str, names: Sequence[str]) -> str:
    """Where one of the names differs by little from this one: what the difference is."""
    for other in names:
        if alike(other) == alike(name):
            return f" {name!a} and {other!a} differ only by case or by how Unicode spells them."
    return ""


def _unequal(source: str, owner: _Piece, other: _Piece, missing: Sequence[str]) -> str:
    lists = "".join(
        f"\n  {piece.name} ({len(piece.classes):,}): {some(list(map(repr, piece.classes)))}"
        for piece in (owner, other)
    )
    return (
        f"the parts of {source!r} do not have the same classes: "
        f"{some(list(map(repr, missing)))} of {owner.name} "
        f"{'is' if len(missing) == 1 else 'are'} not among those of {other.name}, so that its "
        f"labels may mean something else.{_nearly(missing[0], other.classes)}{lists}\n"
        "If the parts belong together, give both all names in Python (cast_column to one "
        "ClassLabel, or align_labels_with_mapping), save them with save_to_disk and use hf:/path. "
        "Else name those that do, such as --set data.parts=train:train."
    )


def _renumbered(piece: _Piece, classes: tuple[str, ...]) -> _Piece:
    """The same with labels that count in `classes`."""
    if piece.classes == classes:
        return piece
    place = {name: number for number, name in enumerate(classes)}
    numbers = np.array([place.get(name, -1) for name in piece.classes], dtype=np.int64)
    return _Piece(piece.name, piece.data, classes, numbers[piece.labels])


def _images_of(
    data: DataConfig, pieces: Sequence[_Piece], image: str, left_out: dict[str, int]
) -> tuple[HubImages | JoinedImages, NDArray[np.int64], list[str]]:
    """The images of a part, of one piece or of several that are joined, their labels and names."""
    images, labels, names = [], [], []
    for piece in pieces:
        of = _images(data, piece, image, left_out)
        images.append(of)
        labels.append(piece.labels[of.at_N])
        before = "" if len(pieces) == 1 else f"{piece.name}/"
        names += [f"{before}{row}" for row in of.at_N.tolist()]
    joined = images[0] if len(images) == 1 else JoinedImages(images)
    return joined, np.concatenate(labels), names


def _images(data: DataConfig, piece: _Piece, image: str, left_out: dict[str, int]) -> HubImages:
    """Those rows of a piece that have an image.

    Raises:
        DataError: More rows than may be have none.
    """
    import datasets

    # A saved data set may name a format of its rows, such as tensors.
    rows = piece.data.with_format(None).select_columns([image])
    rows = rows.cast_column(image, datasets.Image(decode=False))
    name = f"{piece.name} of {data.source}"
    known = known_by(piece.data, rows, image, f"Hashing {name} (once)")
    if known.reasons:
        _check_unreadable(data, name, len(rows), known.reasons)
        left_out["unreadable"] = left_out.get("unreadable", 0) + len(known.reasons)
    at_N = np.array([row for row in range(len(rows)) if row not in known.reasons], dtype=np.int64)
    reading = Reading(data.bits, data.bands)
    return HubImages(name, rows, image, at_N, known.identities[at_N], reading)


def _check_unreadable(data: DataConfig, name: str, n: int, reasons: Mapping[int, str]) -> None:
    told = some([f"row {row}: {reason}" for row, reason in reasons.items()], 5)
    what = f"{len(reasons):,} of {n:,} rows of {name} have no image that can be read ({told})"
    if len(reasons) > allowed(n, data.damaged):
        rule = "none may be, with data.damaged=stop" if data.damaged == "stop" else "1 % may be"
        raise DataError(
            f"{what}; {rule}. Leave such rows out in Python (filter), save the data set with "
            "save_to_disk and use hf:/path."
        )
    progress.say(f"note: {what}: left out.")


def _loaded(source: str) -> Any:
    """A `datasets.Dataset`, or a mapping of them."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"{source} needs Hugging Face's library 'datasets', which is not installed. "
            "Install it with: pip install 'elastic-nas[hub]'"
        ) from error
    try:
        saved = saved_path(source)
        if saved is not None:
            _check_files(saved)
            return datasets.load_from_disk(str(saved))
        name, _, config = source.removeprefix(HUB).partition(":")
        return datasets.load_dataset(name, config or None)
    except ElasticNasError:
        raise
    except FileNotFoundError as error:
        raise UnknownName(
            f"no data set is called {source}: {words(error)}. Write hf:NAME or hf:NAME:CONFIG for "
            "one of https://huggingface.co/datasets, hf:/path for one saved with save_to_disk."
        ) from error
    except Exception as error:  # the library raises nearly anything where a download fails
        raise DataError(f"cannot load {source}: {words(error)}.") from error


def _check_files(folder: Path) -> None:
    """Refuse a saved data set with a pipe or a device in it, for which the library would wait.

    Raises:
        DataError: It has one, or a description that is too large.
    """
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.is_dir() or not path.exists():
            continue
        if not path.is_file():
            raise DataError(f"{str(path)!r} is a pipe or a device, not a file of a data set.")
        if path.suffix == ".json" and path.stat().st_size > MOST_JSON:
            raise DataError(f"{str(path)!r} has more than {MOST_JSON:,} bytes.")


def _column(data: Any, kind: str, source: str) -> str:
    columns = [name for name, feature in data.features.items() if type(feature).__name__ == kind]
    if len(columns) == 1:
        return str(columns[0])
    what = ", ".join(f"{name} ({type(of).__name__})" for name, of in data.features.items())
    raise DataError(
        f"{source!r} has {len(columns) or 'no'} columns of type {kind} ({what}); it takes one. "
        "Change it in Python (class_encode_column, cast_column, remove_columns), save it with "
        "save_to_disk, and use hf:/path."
    )
