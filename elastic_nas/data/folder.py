"""Finding the images of a folder: class folders alone, or below train/, val/ and test/."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from elastic_nas import progress
from elastic_nas.config import DataConfig
from elastic_nas.data.checked import check_files
from elastic_nas.data.images import SUFFIXES
from elastic_nas.data.place import local_path
from elastic_nas.data.split import Source
from elastic_nas.errors import DataError, UnknownName

PARTS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
"""Names of folders (in any case) that hold class folders of one split."""

MOST_DEPTH = 50
"""Folders within a class folder, one in the other."""

HELP = (
    "A source is 'digits', a folder with one folder of images for each class, a folder of tar "
    "shards (train-*.tar), a data file (.yaml) that lists shards, or hf:NAME."
)


@dataclass(frozen=True)
class Found:
    """The images below one folder of class folders, sorted by class, then by name.

    Attributes:
        classes: Names, sorted.
        names: Paths below the root of the source, with ``/``.
        labels: Indices into `classes`.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]


def find_folder(data: DataConfig) -> Source:
    """The images of a folder: under ``all``, or under ``train``, ``val`` and ``test``.

    Raises:
        UnknownName: There is no such folder.
        DataError: The folder is no set of classes; classes of its parts differ; too many files are
            damaged (found here up to 200,000 images, else when they are read).
    """
    root = _existing(data.source)
    finder = _Finder(root)
    found = {part: finder.classes_in(folder) for part, folder in _parts(root).items()}
    _check_classes(root, found)
    if finder.ignored:
        progress.say(
            f"Ignored {finder.ignored:,} entries of {root}: hidden, or no images in a class folder."
        )
    checked = check_files(root, {name: part.names for name, part in found.items()}, data)
    parts = {name: checked.part(part.names, part.labels) for name, part in found.items()}
    return Source(
        root.resolve().name,
        str(root),
        next(iter(found.values())).classes,
        parts,
        checked.left_out,
        checked.reading,
    )


def _existing(source: str) -> Path:
    root = local_path(source)
    if source and os.path.isdir(root):
        return root
    if source and os.path.exists(root):
        raise DataError(
            f"{source!r} is a file, not a folder; unpack it if it is an archive. {HELP}"
        )
    beside = _siblings(root) if source else []
    near = get_close_matches(root.name, [*beside, "digits"], n=3)
    named = [name if name == "digits" else str(root.parent / name) for name in near]
    hint = f"; did you mean {' or '.join(map(repr, named))}?" if near else "."
    raise UnknownName(f"no folder of images called {source!r}{hint}\n{HELP}")


def _siblings(path: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(path.parent) if (path.parent / name).is_dir())
    except OSError:
        return []


def _listed(folder: Path) -> list[Path]:
    """The entries of a folder, sorted.

    Raises:
        DataError: It cannot be listed.
    """
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except OSError as error:
        raise _unlisted(folder, error) from error


def _visible(paths: list[Path]) -> list[Path]:
    return [path for path in paths if not path.name.startswith(".")]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(_listed(folder)) if os.path.isdir(path)]


class _Finder:
    """Lists folders below a root, counting what it ignores."""

    def __init__(self, root: Path) -> None:
        self.root, self.ignored = root, 0

    def entries(self, folder: Path) -> list[Path]:
        """Visible entries, sorted."""
        entries = _listed(folder)
        visible = _visible(entries)
        self.ignored += len(entries) - len(visible)
        return visible

    def classes_in(self, folder: Path) -> Found:
        """The images in the class folders of `folder`."""
        entries = self.entries(folder)
        classes = [path for path in entries if os.path.isdir(path)]
        flat = [path for path in entries if path.suffix.lower() in SUFFIXES]
        if not classes:
            raise DataError(_no_classes(folder, len(flat), empty=not entries))
        self.ignored += len(entries) - len(classes)
        images = [
            (label, path)
            for label, class_folder in enumerate(classes)
            for path in self._nonempty(class_folder)
        ]
        names = (path.relative_to(self.root).as_posix() for _, path in images)
        return Found(
            tuple(path.name for path in classes),
            tuple(names),
            tuple(label for label, _ in images),
        )

    def _nonempty(self, class_folder: Path) -> list[Path]:
        images = list(self._images(class_folder, set()))
        if not images:
            raise DataError(
                f"the class folder {str(class_folder)!r} has no images "
                f"({', '.join(sorted(SUFFIXES))}). Add some, or remove the folder."
            )
        return images

    def _images(self, folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
        """Images at any depth; each real folder once, so that loops of links end."""
        real = _identity(folder)
        if real in seen:
            return
        seen.add(real)
        if len(folder.parts) - len(self.root.parts) > MOST_DEPTH:
            raise DataError(f"{str(folder)!r} lies more than {MOST_DEPTH} folders deep.")
        for path in self.entries(folder):
            if path.suffix.lower() in SUFFIXES:  # even if it is a folder or a dead link: damage
                yield path
            elif os.path.isdir(path):
                yield from self._images(path, seen)
            else:
                self.ignored += 1


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise _unlisted(folder, error) from error
    return status.st_dev, status.st_ino


def _unlisted(folder: Path, error: OSError) -> DataError:
    reason = error.strerror or error
    return DataError(f"cannot list the folder {str(folder)!r}: {reason}.")


def _no_classes(folder: Path, images: int, empty: bool) -> str:
    if empty:
        return f"the folder {str(folder)!r} is empty. {HELP}"
    if images:
        return (
            f"{str(folder)!r} has no class folders: its {images:,} images lie flat. Move them "
            f"into one folder for each class, named after the class."
        )
    return f"{str(folder)!r} has no class folders. {HELP}"


def _parts(root: Path) -> dict[str, Path]:
    """Which folders hold class folders: the root (``all``), or one for each part."""
    folders = _folders(root)
    named = [path for path in folders if path.name.lower() in PARTS]
    # A folder called train that holds no folders may be a class, beside bus and car.
    if not any(_folders(path) for path in named) and len(named) < len(folders):
        return {"all": root}
    parts = {PARTS[path.name.lower()]: path for path in named}
    for part in parts:
        same = [path.name for path in named if PARTS[path.name.lower()] == part]
        if len(same) > 1:
            names = ", ".join(same)
            raise DataError(f"{str(root)!r} has several folders for one split: {names}. Keep one.")
    if not parts:
        return {"all": root}
    _check_parts(root, parts)
    return {part: parts[part] for part in sorted(parts, key=["train", "val", "test"].index)}


def _check_parts(root: Path, parts: dict[str, Path]) -> None:
    if "train" not in parts:
        raise DataError(
            f"{str(root)!r} has no folder 'train' beside {' and '.join(sorted(parts))}. Add it, or "
            "put all class folders directly into one folder: it is split for you."
        )
    if len(parts) == 1:
        raise DataError(
            f"{str(root)!r} has no folder 'test' or 'val' beside 'train'. Add one, or use "
            f"{str(parts['train'])!r} as the source: it is split for you."
        )


def _check_classes(root: Path, parts: dict[str, Found]) -> None:
    first, *others = parts
    expected = parts[first].classes
    if len(expected) < 2:
        raise DataError(
            f"{str(root)!r} has only one class, {expected[0]!r}; a classifier needs at least two."
        )
    for other in others:
        for name in sorted(set(expected) ^ set(parts[other].classes)):
            there, missing = (first, other) if name in expected else (other, first)
            raise DataError(
                f"the class {name!r} is in {there} but not in {missing} of {str(root)!r}. All "
                "splits need the same class folders."
            )
