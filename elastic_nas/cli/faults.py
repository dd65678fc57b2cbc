"""What no error of this package foresees: one sentence for the person, all else into a file."""

import os
import platform
import sys
import tempfile
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from elastic_nas._version import __version__
from elastic_nas.errors import printable

FAULT = 70
DEBUG = "ELASTIC_NAS_DEBUG"
"""Developers set it in the environment to 1: then such an error comes through."""

PACKAGES = ("numpy", "torch", "onnx", "onnxruntime", "pydantic", "typer", "rich", "pillow")
WORDS = 200
"""Characters of the error itself in the sentence."""


def tell(error: BaseException) -> int:
    """Say that this program failed, and where the traceback is; returns the exit status.

    Raises:
        BaseException: The error itself, where a developer asked for it.
    """
    if os.environ.get(DEBUG) == "1":
        raise error
    place = _kept(_record(error))
    where = f"the traceback is in {place}" if place else "its traceback could not be written"
    message = (
        f"fault: {_words(error)}. This is a fault of elastic-nas: {where}. Please send that file "
        "to whoever maintains your copy; see 'Reporting a fault' in CONTRIBUTING.md."
    )
    print(printable(message), file=sys.stderr, flush=True)
    return FAULT


def _words(error: BaseException) -> str:
    """``ValueError: what it says``, on one line."""
    try:
        said = str(error)
    except Exception:
        said = "its message cannot be read"
    said = printable(" ".join(said.split()), WORDS).rstrip(".")
    return f"{type(error).__name__}{': ' * bool(said)}{said}"


def _record(error: BaseException) -> str:
    """What a maintainer needs: versions, the command line, the traceback."""
    try:
        trace = "".join(traceback.format_exception(error))
    except Exception as second:  # such as no memory left
        trace = f"{type(error).__name__}; no traceback: {type(second).__name__}"
    installed = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return (
        f"elastic-nas {__version__}; Python {platform.python_version()}; {platform.platform()}\n"
        f"{installed}\n{sys.argv!r} in {os.environ.get('PWD', '')!r}\n\n{trace}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _kept(record: str) -> Path | None:
    """Where the record was written: the per-user folder, or else the one for temporary files."""
    from elastic_nas.files import user_folder

    content = record.encode(errors="backslashreplace")
    name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}.txt"
    try:
        folder = user_folder() / "faults"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    except (OSError, RuntimeError):
        return _temporary(content, name)
    return folder / name


def _temporary(content: bytes, name: str) -> Path | None:
    try:
        # Others may write to that folder: a name that nobody can foresee.
        handle, place = tempfile.mkstemp(suffix=f"-{name}", prefix="elastic-nas-fault-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except OSError:
        return None
    return Path(place)
