"""Finding the images of a folder: class folders alone, or below train/, val/ and test/."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from elastic_nas.config import DataConfig
from elastic_nas.data.checked import check_files
from elastic_nas.data.class_names import alike, check_class_names
from elastic_nas.data.formats import SUFFIXES
from elastic_nas.data.layout import ALL, parts_of
from elastic_nas.data.listing import folder_names, listed, unlisted
from elastic_nas.data.passed_over import by_name, ending, told
from elastic_nas.data.place import HUB, local_path
from elastic_nas.data.split import Source
from elastic_nas.errors import DataError, UnknownName

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


def find_folder(data: DataConfig, known: tuple[str, ...] = (), *, tied: bool = False) -> Source:
    """The images of a folder: under ``all``, or under ``train``, ``val`` and ``test``.

    Args:
        data: Which folder, and how it is read.
        known: See `dataset.find_source`.
        tied: Likewise.

    Raises:
        UnknownName: There is no such folder.
        DataError: The folder is no set of classes, or may be read in two ways; classes of its parts
            differ; too many files are damaged (found here up to 200,000 images, else when they
            are read).
    """
    root = _existing(data.source)
    if any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise DataError(
            f"{str(root)!r} was saved by the library 'datasets' of Hugging Face: name it as "
            f"{HUB}{os.path.abspath(root)}"
        )
    finder = _Finder(root, known)
    folders = parts_of(root, data)
    finder.look_beside(root, folders)
    found = {part: finder.images_in(part, paths) for part, paths in folders.items()}
    if not known:
        _check_classes(root, found)
        check_class_names(sorted({n for part in found.values() for n in part.classes}), str(root))
    classes = tuple(sorted({name for part in found.values() for name in part.classes}))
    files = {name: part.names for name, part in found.items()}
    checked = check_files(root, files, data, tied=tied)
    parts = {name: checked.part(part.names, _among(classes, part)) for name, part in found.items()}
    left_out = {**finder.left_out, **checked.left_out}
    return Source(root.resolve().name, str(root), classes, parts, left_out, checked.reading)


def _among(classes: tuple[str, ...], found: Found) -> list[int]:
    """The labels of a part as indices into the classes of all parts."""
    place = {name: label for label, name in enumerate(classes)}
    of_own = [place[name] for name in found.classes]
    return [of_own[label] for label in found.labels]


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


class _Finder:
    """Lists folders below a root, counting what it passes over."""

    def __init__(self, root: Path, known: tuple[str, ...] = ()) -> None:
        self.root, self.known, self.left_out = root, frozenset(known), Counter[str]()

    def entries(self, folder: Path) -> list[Path]:
        """Entries that may be images or folders of images, sorted."""
        entries = []
        for path in listed(folder):
            kind = by_name(path.name)
            if kind is None:
                entries.append(path)
            else:
                self.left_out[kind] += 1
        return entries

    def look_beside(self, root: Path, parts: dict[str, list[Path]]) -> None:
        """Count what lies beside the folders of the parts."""
        if ALL in parts and parts[ALL] == [root]:
            return
        used = {path for paths in parts.values() for path in paths}
        for path in self.entries(root):
            if path not in used and not any(path in inner.parents for inner in used):
                self._leave(path, "folders beside the parts")

    def _leave(self, path: Path, folder: str) -> None:
        if path.is_symlink() and not path.exists() and not path.suffix:
            raise DataError(
                f"{str(path)!r} is a link that leads nowhere; it may have been a class. Put back "
                "what it leads to, or remove it."
            )
        if path.is_dir():
            self.left_out[folder] += 1
        elif path.suffix.lower() in SUFFIXES:
            self.left_out["images outside of class folders"] += 1
        else:
            self.left_out[ending(path.name)] += 1

    def images_in(self, part: str, folders: list[Path]) -> Found:
        """The images in the class folders of some folders, as one part."""
        images: dict[str, list[Path]] = {}
        for folder in folders:
            class_folders = self._class_folders(folder)
            # Links from within a class to others, or to what holds them, lead to no images of it.
            around = {_identity(path) for path in (self.root, folder, *class_folders)}
            for class_folder in class_folders:
                of_class = list(self._images(class_folder, around - {_identity(class_folder)}))
                if not of_class and part in (ALL, "train") and not self.known:
                    raise DataError(_no_images(class_folder))
                images.setdefault(class_folder.name, []).extend(of_class)
        used = (name for name, paths in images.items() if paths or name in self.known)
        classes = tuple(sorted(used))
        if not classes:
            raise DataError(f"the folders of {part} in {str(self.root)!r} hold no images.")
        pairs = [(label, path) for label, name in enumerate(classes) for path in images[name]]
        names = (path.relative_to(self.root).as_posix() for _, path in pairs)
        return Found(classes, tuple(names), tuple(label for label, _ in pairs))

    def _class_folders(self, folder: Path) -> list[Path]:
        entries = self.entries(folder)
        classes = [path for path in entries if path.is_dir()]
        if not classes:
            flat = sum(path.suffix.lower() in SUFFIXES for path in entries)
            raise DataError(_no_classes(folder, flat, empty=not entries))
        for path in entries:
            if not path.is_dir():
                self._leave(path, "")
        return classes

    def _images(self, folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
        """Images at any depth; each real folder once, so that loops of links end."""
        real = _identity(folder)
        if real in seen:
            return
        seen.add(real)
        if len(folder.parts) - len(self.root.parts) > MOST_DEPTH:
            raise DataError(f"{str(folder)!r} lies more than {MOST_DEPTH} folders deep.")
        folders = folder_names(folder)
        for path in self.entries(folder):
            if path.name in folders:
                yield from self._images(path, seen)
            elif path.suffix.lower() in SUFFIXES:  # even a dead link: that is damage
                yield path
            else:
                self.left_out[ending(path.name)] += 1


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise unlisted(folder, error) from error
    return status.st_dev, status.st_ino


def _no_images(class_folder: Path) -> str:
    inside = Counter(ending(path.name) for path in listed(class_folder) if path.is_file())
    has = f"It has {told(inside)}, which are not read. " if inside else ""
    if inside.keys() & {".heic", ".heif", ".hif"}:
        has += "For photographs of iPhones: pip install pillow-heif. "
    return (
        f"the class folder {str(class_folder)!r} has no images. {has}Add some "
        f"({', '.join(sorted(SUFFIXES))}), or remove the folder."
    )


def _no_classes(folder: Path, images: int, empty: bool) -> str:
    if empty:
        return f"the folder {str(folder)!r} is empty. {HELP}"
    if images:
        return (
            f"{str(folder)!r} has no class folders: its {images:,} images lie flat. Move them "
            f"into one folder for each class, named after the class."
        )
    return f"{str(folder)!r} has no class folders. {HELP}"


def _check_classes(root: Path, parts: dict[str, Found]) -> None:
    """Refuse a classifier without a choice, and classes that cannot be learned.

    Raises:
        DataError: There is one class alone, or one of another part is not in the first.
    """
    first, *others = parts
    expected = parts[first].classes
    if len(expected) < 2:
        raise DataError(
            f"{str(root)!r} has only one class, {expected[0]!r}; a classifier needs at least two."
        )
    for other in others:
        for name in sorted(set(parts[other].classes) - set(expected)):
            near = next((known for known in expected if alike(known) == alike(name)), None)
            hint = "" if near is None else f" There it is called {near!r} ({near!a})."
            raise DataError(
                f"the class {name!r} ({name!a}) is in {other} but not in {first} of "
                f"{str(root)!r}: it cannot be learned.{hint} Add its images to {first}, rename the "
                f"folder, or take it out of {other}."
            )
