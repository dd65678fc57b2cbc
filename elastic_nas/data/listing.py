"""Listing folders, and how their names are told."""

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from elastic_nas.data.formats import SUFFIXES
from elastic_nas.data.passed_over import by_name
from elastic_nas.errors import DataError

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
    return [folder / name for name in sorted(folder_names(folder)) if not by_name(name)]


def folder_names(folder: Path) -> set[str]:
    """Names of the folders in a folder, and of links to some.

    Raises:
        DataError: It cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is_folder(entry)}
    except OSError as error:
        raise unlisted(folder, error) from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def has_images(folder: Path) -> bool:
    """Whether images lie directly in a folder."""
    return any(path.suffix.lower() in SUFFIXES for path in listed(folder))


def innermost(folder: Path) -> Path:
    """The first folder within folders of one folder each that holds several; or itself."""
    inside = folder
    for _ in range(MOST_WRAPPED):
        folders = folders_in(inside)
        if len(folders) != 1 or has_images(inside):
            break
        inside = folders[0]
    return inside if len(folders_in(inside)) > 1 else folder


def option(pairs: Iterable[tuple[str, str]]) -> str:
    """``--set data.parts=train:Training,test:Testing``, as a shell takes it."""
    words = [f"{part}:{name}" for part, name in pairs]
    if any("," in word or word.count(":") > 1 for word in words):
        return "rename what has commas or colons in its name; then --set data.parts=..."
    return f"--set {shlex.quote('data.parts=' + ','.join(words))}"


def told_names(names: Sequence[str]) -> str:
    """``'a', 'b' and 'c'``; of many, the first and how many more there are."""
    more = [f"{len(names) - TOLD:,} more"] if len(names) > TOLD else []
    shown = [*map(repr, names[:TOLD]), *more]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
