"""Which folders are parts, and which are classes: by their names, and never by a silent guess."""

from pathlib import Path

from elastic_nas.config import PARTS, DataConfig
from elastic_nas.data.doubtful import AS_CLASSES, are_parts, check_classes, check_other_tasks
from elastic_nas.data.listing import folders_in, has_images, innermost, option, told_names
from elastic_nas.data.part_words import is_fold, part_of
from elastic_nas.errors import DataError
from elastic_nas.plugins import suggest

ALL = "all"


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
    if named and len(named) == len(folders):
        return _all_named(root, named)
    others = [path for path in folders if path not in named]
    if len({part_of(path.name) for path in named}) > 1 or _alone_with_classes(named, others):
        raise _open(root, named, f"beside {told_names([path.name for path in others])}")
    check_classes(root, folders)
    return {ALL: [root]}


def _alone_with_classes(named: list[Path], others: list[Path]) -> bool:
    """Whether a part holds the folders, and none of those beside it holds anything to learn."""
    return (
        len(named) == 1
        and len(folders_in(named[0])) > 1
        and not any(folders_in(path) or has_images(path) for path in others)
    )


def _all_named(root: Path, named: list[Path]) -> dict[str, list[Path]]:
    """The parts, where all folders are called so."""
    inside = {path: [folder.name for folder in folders_in(path)] for path in named}
    parts: dict[str, list[Path]] = {}
    for path in named:
        parts.setdefault(part_of(path.name) or "", []).append(path)
    if len(parts) == 1 and len(named) > 1 and not any(inside.values()):
        return {ALL: [root]}  # such as bullet_train and steam_train: no other part is there
    for path, names in inside.items():
        check_other_tasks(path, names)
    _check_inner(root, named)
    _check_flat(root, inside)
    if any(len(paths) > 1 for paths in parts.values()):
        raise _open(root, named, "of which several name one part")
    _check_whole(root, parts)
    first = set(inside[parts["train"][0]])
    for (path,) in parts.values():
        if not first & set(inside[path]):
            raise _leaves(root, [p for p in named if p != path], path, "holds other folders")
    return {part: parts[part] for part in PARTS if part in parts}


def _check_flat(root: Path, inside: dict[Path, list[str]]) -> None:
    """Refuse parts without folders for classes in them.

    Raises:
        DataError: There are some.
    """
    flat = [path for path, names in inside.items() if not names]
    if not flat or len(inside) == 1:
        return
    trained = [path for path, names in inside.items() if names and part_of(path.name) == "train"]
    if trained:
        named = [path for path in inside if path not in flat]
        raise _leaves(root, named, flat[0], "holds no folders of classes")
    names = told_names([path.name for path in flat])
    raise DataError(
        f"{str(root)!r} holds folders that look like parts ({names}), without class folders in "
        f"{names}. If they are parts, sort the images of each into a folder for each class, as "
        f"their table of labels says. If they are classes: {AS_CLASSES}"
    )


def _leaves(root: Path, named: list[Path], path: Path, what: str) -> DataError:
    """The error of a part that cannot be scored, and may be left out."""
    pairs = [(part_of(kept.name) or "", kept.name) for kept in named]
    return DataError(
        f"{str(path)!r} looks like a part of {str(root)!r}, and {what}, so that nothing can be "
        f"scored on it. To leave it out:\n  {option(pairs)}\nElse give it a folder for each class, "
        f"called as those in train; if these folders are classes:\n  {AS_CLASSES}"
    )


def _check_inner(root: Path, named: list[Path]) -> None:
    """Refuse parts of one folder each that holds the classes: an archive in a folder of its name.

    Raises:
        DataError: They are; the innermost are named.
    """
    inner = [innermost(path) for path in named]
    if all(there != path for there, path in zip(inner, named, strict=True)):
        pairs = [
            (part_of(path.name) or "", there.relative_to(root).as_posix())
            for path, there in zip(named, inner, strict=True)
        ]
        raise DataError(
            f"{str(named[0])!r} holds one folder alone, and the classes seem to lie in "
            f"{str(inner[0])!r}. If so:\n  {option(pairs)}\nIf not:\n  {AS_CLASSES}"
        )


def _check_whole(root: Path, parts: dict[str, list[Path]]) -> None:
    if "train" not in parts:
        names = [path.name for paths in parts.values() for path in paths]
        raise DataError(
            f"{str(root)!r} has no folder 'train' beside {told_names(names)}. Add it, or put all "
            "class folders directly into one folder: it is split for you. If these are classes: "
            f"{AS_CLASSES}"
        )
    if len(parts) == 1:
        (path,) = parts["train"]
        raise DataError(
            f"{str(root)!r} has no folder 'test' or 'val' beside {path.name!r}. Add one, or use "
            f"{str(path)!r} as the source: it is split for you."
        )


def _given(root: Path, folders: list[Path], data: DataConfig) -> dict[str, list[Path]]:
    """The parts that the user names."""
    known = [path.name for path in folders]
    names = [name for of_part in data.given.values() for name in of_part]
    _check_apart(root, names, data)
    for name in names:
        if not (root / name).is_dir():
            raise DataError(
                f"data.parts={data.parts}: {str(root)!r} has no folder {name!r}"
                f"{suggest(name, known)} It has {told_names(known)}."
            )
        inner = [path.name for path in folders_in(root / name)]
        if are_parts(inner):
            raise DataError(
                f"data.parts={data.parts}: {str(root / name)!r} holds folders for parts itself "
                f"({told_names(inner)}). Use it as the source, or name folders that hold classes."
            )
    if "train" not in data.given:
        raise DataError(f"data.parts={data.parts} names no folder for train.")
    parts = {part: [root / name for name in of_part] for part, of_part in data.given.items()}
    if list(parts) == ["train"]:
        return {ALL: parts["train"]}
    return {part: parts[part] for part in PARTS if part in parts}


def _check_apart(root: Path, names: list[str], data: DataConfig) -> None:
    """Refuse folders outside of the source, and those that lie in each other.

    Raises:
        DataError: There are some.
    """
    paths = [Path(name) for name in names]
    if any(path.is_absolute() or ".." in path.parts for path in paths):
        raise DataError(f"data.parts={data.parts} names folders outside of {str(root)!r}.")
    for at, path in enumerate(paths):
        if any(path == other or path in other.parents for other in paths[:at] + paths[at + 1 :]):
            raise DataError(f"data.parts={data.parts} names what is in {str(path)!r} twice.")


def _check_folds(root: Path, folders: list[Path]) -> None:
    folds = [path for path in folders if is_fold(path.name)]
    parts = [path for path in folders if part_of(path.name)]
    if not folds or len(folds) + len(parts) < 2:
        return
    names = told_names([path.name for path in folds])
    if are_parts([path.name for path in folders_in(folds[0])]):
        raise DataError(
            f"{str(root)!r} holds folds ({names}) with parts in each of them. Use one of them as "
            f"the source, such as {str(folds[0])!r}."
        )
    pairs = [("train", path.name) for path in folds]
    pairs += [(part_of(path.name) or "", path.name) for path in parts]
    if not parts:
        pairs[-1] = ("test", folds[-1].name)
    raise DataError(
        f"{str(root)!r} holds folders that look like folds: {names}. Say which are trained on and "
        f"which are tested with:\n  {option(pairs)}\nor, if they are classes:\n  {AS_CLASSES}"
    )


def _open(root: Path, named: list[Path], what: str) -> DataError:
    """The error of folders that may be parts or classes."""
    pairs = [(part_of(path.name) or "", path.name) for path in named]
    return DataError(
        f"{str(root)!r} holds folders that look like parts "
        f"({told_names([path.name for path in named])}), {what}. If they are parts:\n"
        f"  {option(pairs)}\nIf they are classes:\n  {AS_CLASSES}"
    )
