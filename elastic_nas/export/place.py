"""A folder that takes another's place in one step, whatever ends the process meanwhile.

Where the system can exchange two names at once, the place is never empty. Elsewhere it takes two
renames, and a kill between them is repaired at the next start.
"""

import ctypes
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from elastic_nas.errors import RunFolderError
from elastic_nas.files import PARTIAL, writing

OLD = ".old"
EXCHANGE = 2
"""``RENAME_EXCHANGE`` of Linux and ``RENAME_SWAP`` of macOS have the same value."""
AT_CWD = {"linux": -100, "darwin": -2}
"""``AT_FDCWD``: paths are as the process sees them."""


@contextmanager
def replacing(folder: Path, own: Collection[str]) -> Iterator[Path]:
    """A fresh folder beside `folder` that takes its place when the block succeeds.

    What killed processes left beside it is removed first. Only within `files.writing`, so that
    no other process is at work there.

    Args:
        folder: The place; a link to a folder stays one.
        own: First parts of the names of the files that such a folder holds.

    Raises:
        RunFolderError: It cannot be written.
    """
    place = Path(os.path.realpath(folder))
    fresh = place.with_name(f".{place.name}.{token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _tidy(place, own)
        fresh.mkdir()
    except OSError as error:
        raise _not_writable(folder, error) from error
    try:
        yield fresh
        _take_place(fresh, place)
    except OSError as error:
        raise _not_writable(folder, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def repair(folder: Path, own: Collection[str]) -> None:
    """Put a folder back that a process, killed between two renames, had put aside.

    Raises:
        RunFolderError: Another process is writing there.
    """
    place = Path(os.path.realpath(folder))
    if not os.path.lexists(place) and _left(place, own):
        with writing(folder, wait_s=10), suppress(OSError):
            _put_back(place, own)


def _put_back(place: Path, own: Collection[str]) -> None:
    aside = [path for path in _left(place, own) if path.name.endswith(OLD)]
    if aside and not os.path.lexists(place):
        os.replace(max(aside, key=lambda path: path.stat().st_mtime), place)


def _tidy(place: Path, own: Collection[str]) -> None:
    """Put back what was put aside, and remove what is half written or replaced."""
    _put_back(place, own)
    for path in _left(place, own):
        shutil.rmtree(path, ignore_errors=True)


def _left(place: Path, own: Collection[str]) -> list[Path]:
    """Folders beside `place` that killed processes left: of such a name, with nothing foreign."""
    form = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-z_]{{8}}({re.escape(OLD)})?")
    parent = place.parent
    names = os.listdir(parent) if parent.is_dir() else []
    found = [parent / name for name in names if form.fullmatch(name)]
    return [
        path for path in found if not path.is_symlink() and path.is_dir() and _is_ours(path, own)
    ]


def _is_ours(path: Path, own: Collection[str]) -> bool:
    return all(name in own or name.endswith(PARTIAL) for name in os.listdir(path))


def _take_place(fresh: Path, place: Path) -> None:
    """Put `fresh` where `place` is; `fresh` then names what was there, to be removed."""
    if not place.exists():
        os.replace(fresh, place)
        return
    if exchanged(fresh, place):
        return
    old = fresh.with_name(fresh.name + OLD)
    try:
        os.replace(place, old)
        os.replace(fresh, place)
    except BaseException:
        if old.exists() and not place.exists():
            os.replace(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step, where the system and its file system can."""
    if sys.platform not in AT_CWD:
        return False
    try:
        library = ctypes.CDLL(None, use_errno=True)
        exchange = library.renameat2 if sys.platform == "linux" else library.renameatx_np
    except (OSError, AttributeError):  # an old system library
        return False
    here, names = AT_CWD[sys.platform], (os.fsencode(one), os.fsencode(other))
    return bool(exchange(here, names[0], here, names[1], EXCHANGE) == 0)


def _not_writable(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write {folder}: {error.strerror or error}. Choose another folder with --out."
    )
