"""The members of a tar, read within bounds: its headers may claim anything.

The library's parser reads headers of any length into memory, searches them in quadratic time, goes
round in circles at their end and keeps every member. Here it reads through a file that refuses
what no shard needs, and forgets each member at once.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

MOST_HEADER = 1 << 16
"""Bytes of an extended header, such as a long name."""

MOST_READS = 1000
"""Of headers that belong to one member."""

MOST_NAME = 1024
"""Characters of a member's name."""

MOST_MEMBERS = 2_000_000

_DIGITS = re.compile(rb"[0-9]{300}")


class _Bounded:
    """A tar as the library may read it: blocks of headers, few and small, within the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.reads = file, 0
        self.size = os.fstat(file.fileno()).st_size

    def read(self, size: int) -> bytes:
        self.reads += 1
        if self.reads > MOST_READS:
            raise tarfile.ReadError("a member has too many headers")
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header has {size:.3g} bytes")
        content = self._file.read(size)
        if size > tarfile.BLOCKSIZE and _DIGITS.search(content):
            raise tarfile.ReadError("a header has a number of hundreds of digits")
        return content

    def seek(self, offset: int) -> int:
        if not 0 <= offset <= self.size:
            raise tarfile.ReadError("unexpected end of data")
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


def members_of(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The regular files in a tar, one after the other; the file may be moved in between.

    Raises:
        tarfile.TarError: It is no whole tar, or one that no shard needs; the message says why.
        OSError: It cannot be read.
    """
    bounded, end = _Bounded(file), 0
    with _opened(bounded) as tar:
        for _ in range(MOST_MEMBERS + 1):
            bounded.reads = 0
            member = _next(tar)
            if member is None:
                _check_end(file, tar.offset)
                return
            end = _checked(member, end, bounded.size)
            if member.isreg() and not member.issparse():
                yield member
            # The library would keep all of them.
            tar.members.clear()  # type: ignore[attr-defined]
    raise tarfile.ReadError(f"it has more than {MOST_MEMBERS:,} members")


def _opened(bounded: _Bounded) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=bounded, mode="r:")  # type: ignore[call-overload, no-any-return]
    except (tarfile.TarError, OSError):
        raise
    except Exception as error:
        raise tarfile.ReadError(_words(error)) from error


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member; its parser raises nearly anything on damaged headers."""
    try:
        return tar.next()
    except (tarfile.TarError, OSError):
        raise
    except Exception as error:
        raise tarfile.ReadError(_words(error)) from error


def _words(error: Exception) -> str:
    return f"damaged header: {str(error)[:100] or type(error).__name__}"


def _checked(member: tarfile.TarInfo, end: int, size: int) -> int:
    """The byte before which the next member cannot begin.

    Raises:
        tarfile.TarError: It lies where nothing can lie, or its name is none.
    """
    name = member.name
    if len(name) > MOST_NAME or "\0" in name:
        raise tarfile.ReadError(f"impossible name {name[:100]!r}")
    if member.size < 0 or member.offset < end:  # made to keep a reader in a circle
        raise tarfile.ReadError(f"impossible size of {name[:100]!r}")
    if not member.isreg() or member.issparse():  # the size of a sparse one is not that stored
        return member.offset_data
    if member.offset_data + member.size > size:
        raise tarfile.ReadError(f"truncated: {name[:100]!r} goes on behind the end")
    return member.offset_data + member.size


def _check_end(file: BinaryIO, end: int) -> None:
    """Refuse a tar without the zeros at its end, and joined ones, of which the rest would be lost.

    Raises:
        tarfile.TarError: It is one.
    """
    file.seek(end)
    rest = file.read(1 << 20)
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
        joined = "it goes on behind its end, as joined tars do"
        raise tarfile.ReadError(joined if rest.strip(b"\0") else "truncated")
