"""Files from outside, read within bounds: whatever lies at a path costs little and runs nothing.

Everything that this package did not just write itself comes in here: run files, records of runs,
tables, results of kits, manifests, arrays, plugins. A path may name a pipe, a device or a folder,
and a file may be larger, deeper or stranger than any that was ever meant.
"""

import json
import os
import re
import stat
from collections import Counter
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_nas.errors import ElasticNasError, RunFolderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEGABYTE = 1 << 20
MOST_JSON = 64 * MEGABYTE
"""Bytes of a JSON file, unless its reader says otherwise."""
MOST_DEPTH = 40
"""Levels of lists and mappings in a file."""
MOST_DIGITS = 19
"""Of a whole number in a file: more than any count or size has."""
MOST_AXES = 8
"""Of an array in a file."""

_LONE = re.compile(r"\\u[dD][89a-fA-F]")


def read_bytes(
    path: Path, most: int = MOST_JSON, error: type[ElasticNasError] = RunFolderError
) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Pipes, devices and folders are refused before a byte of them is read, so that none of them can
    keep the reader waiting; of a file that is too large, one byte more than the limit is read.

    Args:
        path: The file.
        most: Bytes.
        error: What to raise.

    Raises:
        ElasticNasError: Of the given class: there is no such file, it is none, too large or
            unreadable.
    """
    try:
        handle = open_file(path)
        try:
            content = _at_most(handle, most + 1)
        finally:
            os.close(handle)
    except (OSError, ValueError) as reason:
        raise error(f"cannot read {path}: {_words(reason)}.") from reason
    if len(content) > most:
        raise error(f"{path} is larger than {most:,} bytes, the most that is read of such a file.")
    return content


def open_file(path: Path) -> int:
    """A handle of a regular file, to be closed by the caller; nothing else is waited for.

    Raises:
        OSError: There is no such file, it is unreadable, or it is a pipe, a device or a folder.
        ValueError: The name holds a NUL.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = _kind(os.fstat(handle).st_mode)
    if kind != FILE:
        os.close(handle)
        raise OSError(f"it is {kind}, not a file")
    return handle


def _at_most(handle: int, most: int) -> bytes:
    parts, left = [], most
    while left and (part := os.read(handle, min(left, MEGABYTE))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


FILE = "a file"
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _words(reason: OSError | ValueError) -> str:
    return getattr(reason, "strerror", None) or str(reason)


def read_text(
    path: Path, most: int = MOST_JSON, error: type[ElasticNasError] = RunFolderError
) -> str:
    """The content of a file of UTF-8 text, without a byte order mark; see `read_bytes`.

    Raises:
        ElasticNasError: Of the given class: it cannot be read, or is no such text.
    """
    content = read_bytes(path, most, error)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is no text file (UTF-8).") from reason


def sealed(content: bytes) -> bytes:
    """A content behind a line with its SHA-256, by which `unsealed` notices damage."""
    return sha256(content).hexdigest().encode() + b"\n" + content


def unsealed(content: bytes) -> bytes:
    """What `sealed` was given.

    Raises:
        ValueError: It is damaged.
    """
    digest, _, rest = content.partition(b"\n")
    if sha256(rest).hexdigest().encode() != digest:
        raise ValueError("it is damaged")
    return rest


def read_json(
    path: Path,
    error: type[ElasticNasError] = RunFolderError,
    *,
    missing: object = None,
    most: int = MOST_JSON,
) -> Any:
    """The JSON value in a file; `missing`, if given, where there is no such file.

    Raises:
        ElasticNasError: Of the given class: the file is missing, unreadable, too large or not JSON
            as `parse_json` takes it.
    """
    if missing is not None and not os.path.lexists(path):
        return missing
    text = read_text(path, most, error)
    try:
        return parse_json(text)
    except ValueError as reason:
        raise error(f"{path} is not valid JSON: {reason}.") from reason


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text spells.

    Refused beyond JSON's own grammar: a key that stands twice in a mapping, numbers that are not
    finite or have more than 19 digits, halves of characters, and more than 40 levels.

    Raises:
        ValueError: It is no such text; the message says why.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_whole,
            parse_float=_finite,
        )
    except RecursionError as reason:
        raise ValueError("it is nested too deeply") from reason
    _check_depth(value)
    source = text if isinstance(text, str) else text.decode("utf-8", "replace")
    if _LONE.search(source):
        check_characters(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:60]!r} stands there twice")
    return values


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number that may stand here")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS + 1:
        raise ValueError(f"{text[:20]}... is a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text[:40]} is not a number that may stand here")
    return value


def _check_depth(value: Any) -> None:
    """Refuse what the writers never nest so deeply, before anything recurses into it."""
    level, depth = [value], 0
    while level:
        if depth > MOST_DEPTH:
            raise ValueError("it is nested too deeply")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += [v for v in item.values() if isinstance(v, dict | list)]
            elif isinstance(item, list):
                inner += [v for v in item if isinstance(v, dict | list)]
        level, depth = inner, depth + 1


def check_characters(value: Any) -> None:
    """Refuse texts that hold halves of characters: nothing could write or print them.

    Args:
        value: Lists, mappings and plain values.

    Raises:
        ValueError: One does.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as reason:
        raise ValueError("a text holds half of a character") from reason


def read_array(
    path: Path, dtype: str, most: int, error: type[ElasticNasError] = RunFolderError
) -> "NDArray[np.generic]":
    """The array in a ``.npy`` file: of this type, in C order, exactly as long as its header says.

    Args:
        path: The file.
        dtype: Such as ``uint8``.
        most: Bytes of the file.
        error: What to raise.

    Raises:
        ElasticNasError: Of the given class: it cannot be read, or is no such array.
    """
    return parse_array(read_bytes(path, most, error), dtype, str(path), error)


def parse_array(
    content: bytes, dtype: str, place: str, error: type[ElasticNasError] = RunFolderError
) -> "NDArray[np.generic]":
    """The array in the content of a ``.npy`` file; see `read_array`.

    Raises:
        ElasticNasError: Of the given class.
    """
    import io

    import numpy as np
    from numpy.lib import format as npy

    file = io.BytesIO(content)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        version = npy.read_magic(file)
        shape, fortran, found = readers[version](file)
        wanted = np.dtype(dtype)
        if found != wanted or fortran:
            raise ValueError(f"it holds {found}, not {wanted} in C order")
        if len(shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"its shape {shape!s:.60} cannot be")
        count = 1
        for n in shape:
            count *= n
        if count * wanted.itemsize != len(content) - file.tell():
            raise ValueError(f"its shape {shape!s:.60} is not that of its {len(content):,} bytes")
        return np.frombuffer(content, wanted, count, file.tell()).reshape(shape)
    except Exception as reason:  # numpy parses the header with several libraries
        raise error(f"{place} is no array of {dtype}: {str(reason)[:200]}.") from reason
