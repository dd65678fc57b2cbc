"""Folders that look like classes and are probably something else."""

from pathlib import Path

from elastic_nas.data.listing import folders_in, innermost, option, told_names
from elastic_nas.data.part_words import part_of
from elastic_nas.errors import DataError

_OTHER_TASKS = frozenset({
    "annotations", "annotation", "labels", "label", "masks", "mask", "segmentations", "bboxes",
})  # fmt: skip
"""Folders that sets for detection and segmentation have beside their images."""

_IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages"})

MOST_LOOKED_INTO = 1000
"""Classes; to look into each of more takes long, and that many are classes."""

AS_CLASSES = "--set data.parts=none"


def check_classes(root: Path, folders: list[Path]) -> None:
    """Refuse what looks like classes and is probably something else.

    Raises:
        DataError: It does; what it may be is named, with what to do for each reading.
    """
    check_other_tasks(root, [path.name for path in folders])
    if len(folders) > MOST_LOOKED_INTO:
        return
    if len(folders) == 1 and (inner := innermost(root)) != root:
        raise DataError(
            f"{str(root)!r} holds one folder alone, {folders[0].name!r}. If the classes or parts "
            f"are the folders in {str(inner)!r}: use that as the source."
        )
    inside = {path.name: [folder.name for folder in folders_in(path)] for path in folders}
    for name, names in inside.items():
        check_other_tasks(root / name, names)
        _check_again(root, name, inside)
    _check_parted(root, inside)
    _check_alike(root, inside)


def _check_again(root: Path, name: str, inside: dict[str, list[str]]) -> None:
    """Refuse a folder that holds folders called as those beside it."""
    others = set(inside) - {name}
    again = sorted(others & set(inside[name]))
    if len(again) < 2 and set(again) != others:
        return
    if not again:
        return
    there = str(root / name)
    if part_of(name):
        raise DataError(
            f"{there!r} looks like a part, and holds folders called as those beside it "
            f"({told_names(again)}). If it is one, put the others into a folder 'train'; if it is "
            f"a class: {AS_CLASSES}"
        )
    raise DataError(
        f"{there!r} holds folders called as those beside it ({told_names(again)}), as where an "
        f"archive was unpacked into itself. Remove what is there twice, or use {there!r} as the "
        f"source; if {name!r} is a class: {AS_CLASSES}"
    )


def are_parts(names: list[str]) -> bool:
    """Whether these names are all words for parts, of at least two."""
    return len({part_of(name) for name in names} - {None}) > 1 and all(map(part_of, names))


def _check_parted(root: Path, inside: dict[str, list[str]]) -> None:
    """Refuse parts within classes."""
    name = next((name for name, names in inside.items() if are_parts(names)), None)
    if name is not None:
        raise DataError(
            f"{str(root / name)!r} holds folders for parts ({told_names(inside[name])}) within a "
            f"class. Put the parts outside and the classes inside, such as {inside[name][0]}/"
            f"{name}; or take all images of a class together and split them anew: {AS_CLASSES}"
        )


def _check_alike(root: Path, inside: dict[str, list[str]]) -> None:
    """Refuse folders that all hold folders of the same names: parts, or classes with groups."""
    first = next(iter(inside.values()), [])
    if len(inside) > 1 and len(first) > 1 and all(names == first for names in inside.values()):
        *most, last = inside
        pairs = [*(("train", name) for name in most), ("test", last)]
        raise DataError(
            f"the folders of {str(root)!r} ({told_names(list(inside))}) all hold folders of the "
            f"same names ({told_names(first)}). If these are the classes, say which of the outer "
            f"ones is which part:\n  {option(pairs)}\nIf the outer ones are the classes:\n"
            f"  {AS_CLASSES}"
        )


def check_other_tasks(root: Path, names: list[str]) -> None:
    """Refuse folders as sets for detection and segmentation have them.

    Raises:
        DataError: They are.
    """
    lower = {name.lower() for name in names}
    if lower & _IMAGES and lower & _OTHER_TASKS and len(lower) <= 4:
        raise DataError(
            f"{str(root)!r} holds {told_names(sorted(names))}, as sets for detection or "
            "segmentation do. A classifier needs a folder of images for each class, without masks "
            f"and labels: move those away. If these are classes: {AS_CLASSES}"
        )
