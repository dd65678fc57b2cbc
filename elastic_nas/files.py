"""Files: atomic writes, locks, and where data lies; `outside` reads."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from filelock import FileLock, Timeout

from elastic_nas.errors import RunFolderError

PACKAGE = Path(__file__).parent
LOCK = ".lock"
PARTIAL = ".partial"
"""Ending of files that are being written; a killed writer leaves them behind."""


def data_folder(name: str) -> Path:
    """``hardware_profiles`` or ``latency_tables``: inside the wheel, or beside the package.

    A wheel carries both folders inside the package; a checkout and an editable install have them
    beside it.
    """
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def user_folder() -> Path:
    """The per-user data folder; ``ELASTIC_NAS_HOME`` overrides it."""
    override = os.environ.get("ELASTIC_NAS_HOME")
    if override:
        return Path(override)
    from platformdirs import user_data_path

    return user_data_path("elastic-nas")


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part.

    Raises:
        RunFolderError: The file cannot be written (no permission, disk full, ...).
    """
    data = content.encode() if isinstance(content, str) else content
    with _replacing(path) as temporary:
        _write(temporary, data)


def link_atomic(source: Path, path: Path) -> None:
    """Make `path` a second name of the file `source`; a copy where there can be none.

    A crash leaves the old content or the new. Neither name may be written to in place.

    Raises:
        RunFolderError: It cannot be made (no permission, disk full, ...).
    """
    with _replacing(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # FAT and some network drives have no links
            _write(temporary, source.read_bytes())


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name beside `path`; what is written there takes the place of `path`, durably."""
    temporary = path.with_name(f".{path.name}.{token_hex(4)}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}. What was there before is untouched; "
            "free some space or choose another folder, then try again."
        ) from error
    finally:
        with suppress(OSError):  # renamed, or never made; two names of one file are not renamed
            os.unlink(temporary)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Let a rename outlast a power cut, on file systems that can sync a folder."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically; NaN and infinite numbers are a defect of ours."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _in_the_way(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file is in the way"
    name = Path(error.filename).name if isinstance(error.filename, str) else ""
    return f"{error.strerror or error}{f' ({name})' if name else ''}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder's lock, creating the folder where needed.

    A folder that was made for nothing, since the work failed before it wrote a file, is removed;
    so is what a killed writer left half written.

    Raises:
        RunFolderError: The folder cannot be made, or another process is writing there.
    """
    lock = FileLock(folder / LOCK)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"{folder} is in use: another elastic-nas process is writing there. Wait for it, or "
            "choose another folder with --out."
        ) from error
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {folder}: {_in_the_way(error)}. Choose another folder with --out."
        ) from error
    try:
        _remove_partial(folder)
        yield
    finally:
        if made and [entry.name for entry in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):  # the first that is not empty ends it
            for place in made:
                place.rmdir()


@contextmanager
def writing(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Keep other processes of this user from writing the same file or folder meanwhile.

    For what lies in no run folder: a table of the user's own, a folder to export to. Whoever reads
    first and writes later reads within the block.

    Args:
        path: The file or folder; need not exist.
        wait_s: Seconds to wait for others.

    Raises:
        RunFolderError: Another process is writing there.
    """
    name = sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    lock = FileLock(user_folder() / "locks" / f"{name}.lock")
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise RunFolderError(
            f"{path} is being written by another elastic-nas process. Wait for it, then try again; "
            "or name another place with --out."
        ) from error
    except OSError as error:
        raise RunFolderError(
            f"cannot lock {path}: {_in_the_way(error)}. Name a folder that can be written in "
            "ELASTIC_NAS_HOME."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _remove_partial(folder: Path) -> None:
    """Remove what killed writers left: whoever holds the lock is the only writer."""
    for pattern in (f".*.????????{PARTIAL}", f"*/.*.????????{PARTIAL}"):
        for path in folder.glob(pattern):
            with suppress(OSError):
                path.unlink()
