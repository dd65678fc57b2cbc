"""Files of a kit, read and written on the machine it lies on, which trusts none of them.

Standard library only, in the syntax of Python 3.8: the portable kit carries this file verbatim.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
from typing import Any

from elastic_nas.kit_figures import digest

MOST_BYTES, MOST_DEPTH, MOST_DIGITS = 1 << 26, 40, 19
"""Of a plan or a result: its size, its levels of nesting, the digits of its whole numbers."""


class KitError(Exception):
    """What is wrong, and what to do about it."""


def read_json(path: str, schema: str, advice: str) -> dict[str, Any]:
    """A JSON object of that schema whose hash is right.

    Raises:
        KitError: It is anything else.
    """
    try:
        content = parse(read_regular(path).decode("utf-8"))
        sound = content["schema"] == schema and content["sha256"] == digest(content)
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise KitError(f"{path} is missing, damaged, edited or of another version: {advice}.")
    return dict(content)


def parse(text: str) -> Any:
    """The JSON value that a text spells, with no key twice, no absurd number and few levels.

    Raises:
        ValueError: It is no such text.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refused,
            parse_int=_whole,
            parse_float=_finite,
        )
    except RecursionError as reason:
        raise ValueError("it is nested too deeply") from reason
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = [i for i in level if isinstance(i, (dict, list))]
        level = [j for i in inner for j in (i.values() if isinstance(i, dict) else i)]
    if any(isinstance(item, (dict, list)) for item in level):
        raise ValueError("it is nested too deeply")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _refused(text: str) -> None:
    raise ValueError(text + " is not a number that may stand here")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS + 1:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def read_regular(path: str, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        OSError: It cannot be read, or is a pipe, a device or a folder.
        ValueError: It is larger.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(path + " is no regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return content


def check_writable(path: str) -> None:
    """Refuse a place that no result could be written to, before hours are spent on one.

    Raises:
        KitError: Its folder is missing, or may not be written in.
    """
    folder = os.path.dirname(os.path.abspath(path))
    why = "there is no such folder"
    if os.path.isdir(folder):
        why = "" if os.access(folder, os.W_OK | os.X_OK) else "it may not be written in"
    if why:
        raise KitError(f"cannot keep a result in {folder}: {why}. Name another file with --out.")


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write a JSON object with its hash, so that a crash leaves the old file or the new.

    Raises:
        KitError: It cannot be written; what was there before is untouched.
    """
    content["sha256"] = digest(content)
    partial = path + ".partial"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(content, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise KitError(
            f"cannot write {path}: {error.strerror or error}. What it holds is kept; free some "
            "space or name another file with --out, and run the same command again."
        ) from error


def inside(folder: str, name: str) -> str:
    """The path of a kit's file, which lies below the kit's folder.

    Raises:
        KitError: It lies elsewhere.
    """
    path, root = os.path.join(folder, name), os.path.realpath(folder)
    if not os.path.realpath(path).startswith(root + os.sep):
        raise KitError(f"{path} lies outside of the kit: unpack the kit again.")
    return path


def check_file(path: str, sha256: str) -> None:
    """Refuse a file that is not the kit's.

    Raises:
        KitError: It is missing or altered.
    """
    known = hashlib.sha256()
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                for chunk in iter(lambda: file.read(1 << 20), b""):
                    known.update(chunk)
    if known.hexdigest() != sha256:
        raise KitError(f"{path} is missing or altered: unpack the kit again.")
