"""Which folders are parts, and which are classes: by their names, and never by a silent guess."""

import os
from collections.abc import Sequence
from pathlib import Path

from elastic_nas.config import PARTS, DataConfig
from elastic_nas.data.formats import SUFFIXES
from elastic_nas.data.part_words import is_fold, part_of
from elastic_nas.data.passed_over import by_name
from elastic_nas.errors import DataError
from elastic_nas.plugins import suggest

_OTHER_TASKS = frozenset({
    "annotations", "annotation", "labels", "label", "masks", "mask", "segmentations", "bboxes",
})  # fmt: skip
"""Folders that sets for detection and segmentation have beside their images."""

_IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages"})

ALL = "all"
MOST_WRAPPED = 10
"""Folders of one folder each, one in the other, that are looked through."""
TOLD = 6
"""Folders that are named in a message."""


def listed(folder: Path) -> list[Path]:
    """The entries of a folder, sorted.

    Raises:
        DataError: It cannot be listed.
    """
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except OSError as error:
        raise unlisted(folder, error) from error


def unlisted(folder: Path, error: OSError) -> DataError:
    """What to raise where a folder cannot be listed."""
    return DataError(f"cannot list the folder {str(folder)!r}: {error.strerror or error}.")


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that are not passed over by name, sorted."""
    return [path for path in listed(folder) if not by_name(path.name) and path.is_dir()]


def parts_of(root: Path, data: DataConfig) -> dict[str, list[Path]]:
    """The folders whose folders are classes: under ``all`` the root, or some for each part.

    Folders are parts where all of a level are called so, and hold folders of the same classes.

    Args:
        root: The source.
        data: ``parts`` may say which they are.

    Raises:
        DataError: Two readings are possible; both are named, with the option that picks each.
    """
    if data.parts == "none":
        return {ALL: [root]}
    folders = folders_in(root)
    if data.given:
        return _given(root, folders, data)
    _check_folds(root, folders)
    named = [path for path in folders if part_of(path.name)]
    if len(named) < len(folders) or not named:
        others = [path for path in folders if path not in named]
        if len({part_of(path.name) for path in named}) > 1 or _alone_with_classes(named, others):
            what = f"beside {_names([path.name for path in others])}"
            raise _open(root, named, what, classes=True)
        _check_classes(root, folders)
        return {ALL: [root]}
    return _all_named(root, named)


def _alone_with_classes(named: list[Path], others: list[Path]) -> bool:
    """Whether a part holds the folders, and none of those beside it holds anything to learn."""
    return (
        len(named) == 1
        and len(folders_in(named[0])) > 1
        and not any(folders_in(path) or _has_images(path) for path in others)
    )


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in listed(folder))


def _all_named(root: Path, named: list[Path]) -> dict[str, list[Path]]:
    """The parts, where all folders are called so."""
    inside = {path: [folder.name for folder in folders_in(path)] for path in named}
    flat = [path for path in named if not inside[path]]
    parts: dict[str, list[Path]] = {}
    for path in named:
        parts.setdefault(part_of(path.name) or "", []).append(path)
    if len(parts) == 1 and len(named) > 1 and len(flat) == len(named):
        return {ALL: [root]}  # such as bullet_train and steam_train: no other part is there
    empty = [path for path in flat if not _has_images(path)]
    if empty and len(flat) < len(named):
        raise DataError(
            f"{str(empty[0])!r} holds no images. Add a folder of images for each class, or remove "
            f"it; what is left of {str(root)!r} alone is split for you if you use the folder of "
            "its classes as the source."
        )
    _check_doubled(named)
    if flat and len(named) > 1:
        raise _open(root, named, f"without class folders in {_names([p.name for p in flat])}")
    _check_other_tasks(root, {name for names in inside.values() for name in names})
    if any(len(paths) > 1 for paths in parts.values()):
        raise _open(root, named, "of which several name one part")
    _check_whole(root, parts)
    first = set(inside[parts["train"][0]])
    for part, (path,) in parts.items():
        if not first & set(inside[path]):
            raise _open(root, named, f"with other folders in {part} than in train", classes=True)
    return {part: parts[part] for part in PARTS if part in parts}


def _check_doubled(named: list[Path]) -> None:
    """Refuse parts of one folder each that holds the classes: an archive in a folder of its name.

    Raises:
        DataError: They are; the innermost are named.
    """
    inner = [_innermost(path) for path in named]
    if all(there != path for there, path in zip(inner, named, strict=True)):
        raise DataError(
            f"{str(named[0])!r} holds one folder alone, in which the classes lie: "
            f"{str(inner[0])!r}. Move the folders of the classes up, in each of "
            f"{_names([path.name for path in named])}."
        )


def _innermost(folder: Path) -> Path:
    """The first folder within folders of one folder each that holds several; or itself."""
    inside = folder
    for _ in range(MOST_WRAPPED):
        folders = folders_in(inside)
        if len(folders) != 1 or _has_images(inside):
            break
        inside = folders[0]
    return inside if len(folders_in(inside)) > 1 else folder


def _check_whole(root: Path, parts: dict[str, list[Path]]) -> None:
    if "train" not in parts:
        names = [path.name for paths in parts.values() for path in paths]
        raise DataError(
            f"{str(root)!r} has no folder 'train' beside {_names(names)}. Add it, or put all class "
            "folders directly into one folder: it is split for you. If these are classes: "
            "--set data.parts=none"
        )
    if len(parts) == 1:
        (path,) = parts["train"]
        raise DataError(
            f"{str(root)!r} has no folder 'test' or 'val' beside {path.name!r}. Add one, or use "
            f"{str(path)!r} as the source: it is split for you."
        )


def _given(root: Path, folders: list[Path], data: DataConfig) -> dict[str, list[Path]]:
    """The parts that the user names."""
    known = {path.name: path for path in folders}
    outside = [name for names in data.given.values() for name in names if ".." in Path(name).parts]
    if outside or any(Path(name).is_absolute() for names in data.given.values() for name in names):
        raise DataError(f"data.parts={data.parts} names folders outside of {str(root)!r}.")
    for names in data.given.values():
        for name in names:
            if name not in known and not (root / name).is_dir():
                raise DataError(
                    f"data.parts={data.parts}: {str(root)!r} has no folder {name!r}"
                    f"{suggest(name, list(known))} It has {_names(list(known))}."
                )
    named = [name for names in data.given.values() for name in names]
    if len(set(named)) < len(named):
        raise DataError(f"data.parts={data.parts} names a folder twice.")
    if "train" not in data.given:
        raise DataError(f"data.parts={data.parts} names no folder for train.")
    parts = {part: [root / name for name in names] for part, names in data.given.items()}
    if list(parts) == ["train"]:
        return {ALL: parts["train"]}
    return {part: parts[part] for part in PARTS if part in parts}


def _check_folds(root: Path, folders: list[Path]) -> None:
    folds = [path.name for path in folders if is_fold(path.name)]
    parts = [path.name for path in folders if part_of(path.name)]
    if not folds or len(folds) + len(parts) < 2:
        return
    *most, last = folds
    if parts:
        pairs = [*(f"train:{name}" for name in folds), *(f"{part_of(p)}:{p}" for p in parts)]
    else:
        pairs = [*(f"train:{name}" for name in most), f"test:{last}"]
    words = ",".join(pairs)
    raise DataError(
        f"{str(root)!r} holds folders that look like folds: {_names(folds)}. Say which are trained "
        f"on and which are tested with:\n  --set data.parts={words}\nor, if they are classes:\n"
        "  --set data.parts=none"
    )


def _check_classes(root: Path, folders: list[Path]) -> None:
    """Refuse what looks like classes and is probably something else.

    Raises:
        DataError: It does; what it may be is named, with what to do for each reading.
    """
    names = {path.name for path in folders}
    _check_other_tasks(root, names)
    if len(folders) > 1000:  # to look into each takes long, and that many are classes
        return
    inside = {path.name: [folder.name for folder in folders_in(path)] for path in folders}
    if len(folders) == 1 and (innermost := _innermost(root)) != root:
        raise DataError(
            f"{str(root)!r} holds one folder alone, {folders[0].name!r}. If the classes or parts "
            f"are the folders in {str(innermost)!r}: use that as the source."
        )
    for name, inner in inside.items():
        again = (names - {name}) & set(inner)
        if len(again) > 1 or (again and again == names - {name}):
            raise DataError(
                f"{str(root / name)!r} holds folders called as those beside it "
                f"({_names(sorted(again))}), as where an archive was unpacked into itself. Remove "
                f"what is there twice, or use {str(root / name)!r} as the source; if {name!r} is a "
                "class: --set data.parts=none"
            )
    parted = {
        name
        for name, inner in inside.items()
        if len({part_of(word) for word in inner} - {None}) > 1 and all(map(part_of, inner))
    }
    if parted:
        name = min(parted)
        raise DataError(
            f"{str(root / name)!r} holds folders for parts ({_names(inside[name])}) within a "
            f"class. Put the parts outside and the classes inside, such as {inside[name][0]}/"
            f"{name}; or take all images of a class together and split them anew: "
            "--set data.parts=none"
        )
    _check_alike(root, inside)


def _check_alike(root: Path, inside: dict[str, list[str]]) -> None:
    """Refuse folders that all hold folders of the same names: parts, or classes with groups.

    Raises:
        DataError: They do.
    """
    first = next(iter(inside.values()), [])
    if len(inside) > 1 and len(first) > 1 and all(inner == first for inner in inside.values()):
        *most, last = inside
        words = ",".join([*(f"train:{name}" for name in most), f"test:{last}"])
        raise DataError(
            f"the folders of {str(root)!r} ({_names(list(inside))}) all hold folders of the same "
            f"names ({_names(first)}). If these are the classes, say which of the outer ones is "
            f"which part:\n  --set data.parts={words}\nIf the outer ones are the classes:\n"
            "  --set data.parts=none"
        )


def _check_other_tasks(root: Path, names: set[str]) -> None:
    lower = {name.lower() for name in names}
    if lower & _IMAGES and lower & _OTHER_TASKS and len(lower) <= 4:
        raise DataError(
            f"{str(root)!r} holds {_names(sorted(names))}, as sets for detection or segmentation "
            "do. A classifier needs a folder of images for each class. If these are classes: "
            "--set data.parts=none"
        )


def _open(root: Path, named: list[Path], what: str, *, classes: bool = False) -> DataError:
    """The error of folders that may be parts or classes."""
    words = ",".join(f"{part_of(path.name)}:{path.name}" for path in named)
    sort = "" if classes else ", with a folder for each class in each of them"
    return DataError(
        f"{str(root)!r} holds folders that look like parts ({_names([p.name for p in named])}), "
        f"{what}. If they are parts{sort}:\n  --set data.parts={words}\nIf they are classes:\n"
        "  --set data.parts=none"
    )


def _names(names: Sequence[str]) -> str:
    more = [f"{len(names) - TOLD:,} more"] if len(names) > TOLD else []
    shown = [*map(repr, names[:TOLD]), *more]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
