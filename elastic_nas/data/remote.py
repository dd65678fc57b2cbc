"""Shards behind URLs: fetched on demand into the per-user folder, which is kept below a bound."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock

from elastic_nas._version import __version__
from elastic_nas.errors import DataError
from elastic_nas.files import user_folder

TRIES = 6
FIRST_WAIT_S = 1.0
"""Before the second try; then always twice as long: half a minute in all."""

STALLED_S = 30.0
"""Without a byte, after which a try has failed."""

ABANDONED_S = 3600.0
"""Age from which a half-fetched shard is nobody's any more."""

PASSING = frozenset({408, 425, 429})
"""Client errors that may go away; so may all server errors, from 500 on."""

CHUNK = 1 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cache:
    """Fetched shards in the per-user folder, shared by all processes of this machine.

    Attributes:
        bound: Bytes; those used least recently are deleted to stay below.
    """

    bound: int

    def open(self, url: str) -> BinaryIO:
        """The whole shard, fetched where it is not here yet.

        Raises:
            DataError: It cannot be fetched or kept.
        """
        while True:
            self.fetch(url)
            with suppress(FileNotFoundError):  # deleted by another process, just now
                return _path(url).open("rb")

    def fetch(self, url: str) -> None:
        """See that the shard is here; say that it was used.

        Raises:
            DataError: It cannot be fetched or kept.
        """
        path = _path(url)
        with _writing(path.parent):
            if _used(path):
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not _used(path):  # nor has another process fetched it meanwhile
                    self._fetch(url, path, path.with_suffix(".part"))

    def _fetch(self, url: str, path: Path, part: Path) -> None:
        try:
            with part.open("wb") as file:
                tried(url, _Download(url, file, self).go_on)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def read(self, url: str, offset: int, size: int) -> bytes:
        """Bytes of a shard: from its file, else just these, where the server gives parts.

        Raises:
            DataError: They cannot be fetched.
        """
        if not _path(url).exists():
            part = tried(url, lambda: _part(url, offset, size))
            if part is not None:
                return part
        with self.open(url) as file:
            file.seek(offset)
            return file.read(size)

    def forget(self, url: str) -> None:
        """Delete a shard that turned out to be damaged."""
        _path(url).unlink(missing_ok=True)

    def reserve(self, file: BinaryIO, size: int) -> None:
        """Give a file its size, deleting the shards used least recently where room is short."""
        if size > self.bound:
            raise DataError(
                f"a shard of {size:,} bytes does not fit into the {self.bound:,} bytes that "
                "fetched shards may take. Raise cache_gb in the data file."
            )
        folder = Path(file.name).parent
        with FileLock(folder / "room.lock"):
            file.truncate(0)
            paths = [*folder.glob("*.tar"), *folder.glob("*.part")]
            files = sorted((*_age_and_size(path), path) for path in paths)
            surplus = sum(bytes_ for _, bytes_, _ in files) + size - self.bound
            for used, bytes_, path in files:
                if surplus > 0 and (path.suffix == ".tar" or used < time.time() - ABANDONED_S):
                    path.unlink(missing_ok=True)
                    surplus -= bytes_
            file.truncate(size)


def _path(url: str) -> Path:
    return user_folder() / "shards" / f"{sha256(url.encode()).hexdigest()[:40]}.tar"


def _used(path: Path) -> bool:
    """Whether the file is there; if so, it was used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _age_and_size(path: Path) -> tuple[float, int]:
    with suppress(FileNotFoundError):  # deleted by another process
        status = path.stat()
        return status.st_mtime, status.st_size
    return 0.0, 0


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Tell a full disk from a bad connection: trying again does not mend it."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot keep fetched shards in {folder}: {error.strerror or error}. Free some space, "
            "lower cache_gb in the data file, or name another place in ELASTIC_NAS_HOME."
        ) from error


class _Failed(Exception):
    """A try failed in a way that the standard library does not notice."""


def tried(url: str, attempt: Callable[[], Result]) -> Result:
    """What `attempt` returns, tried again where it fails for a reason that may pass.

    Raises:
        DataError: It failed for good, or too often.
    """
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except (OSError, HTTPException, _Failed) as error:
            reason: Exception = error
            if isinstance(error, HTTPError):
                error.close()
        if number == TRIES or not _may_pass(reason):
            break
        time.sleep(FIRST_WAIT_S * 2 ** (number - 1))
    times = "once" if number == 1 else f"{number} times"
    raise DataError(
        f"cannot fetch {url}: {_words(reason)}; tried {times}. Check the address and the "
        "connection, then try again; a training goes on with --resume."
    ) from reason


def _may_pass(reason: Exception) -> bool:
    return not isinstance(reason, HTTPError) or reason.code >= 500 or reason.code in PASSING


def _words(reason: Exception) -> str:
    if isinstance(reason, HTTPError):
        return f"the server answers {reason.code} {reason.reason}".rstrip()
    if isinstance(reason, URLError):
        return str(reason.reason)
    if isinstance(reason, TimeoutError):
        return f"nothing came for {STALLED_S:g} seconds"
    return str(reason) or type(reason).__name__


def _asked(url: str, headers: dict[str, str]) -> HTTPResponse:
    always = {"User-Agent": f"elastic-nas/{__version__}", "Accept-Encoding": "identity"}
    response: HTTPResponse = urlopen(Request(url, headers=always | headers), timeout=STALLED_S)
    return response


def _part(url: str, offset: int, size: int) -> bytes | None:
    """These bytes of a shard; None where the server gives whole shards only."""
    with _asked(url, {"Range": f"bytes={offset}-{offset + size - 1}"}) as response:
        if response.status != 206:
            return None
        content = response.read(size)
    if len(content) < size:
        raise _Failed(f"got {len(content):,} of {size:,} bytes")
    return content


class _Download:
    """A shard on its way into a file; each try goes on where the one before it stopped."""

    def __init__(self, url: str, file: BinaryIO, cache: Cache) -> None:
        self._url, self._file, self._cache = url, file, cache
        self._done, self._version = 0, ""

    def go_on(self) -> None:
        """Fetch what is missing."""
        headers = {}
        if self._done and self._version:
            headers = {"Range": f"bytes={self._done}-", "If-Range": self._version}
        with _asked(self._url, headers) as response:
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {self._done}-")
            if response.status != 206 or not goes_on:
                self._done = 0
            self._version = _version(response)
            length = response.headers.get("Content-Length")
            total = self._done + int(length) if length and length.isdecimal() else None
            self._keep(response, total)
        if total is not None and self._done < total:
            raise _Failed(f"got {self._done:,} of {total:,} bytes")

    def _keep(self, response: HTTPResponse, total: int | None) -> None:
        folder = Path(self._file.name).parent
        if not self._done:
            with _writing(folder):
                self._cache.reserve(self._file, total or 0)
        self._file.seek(self._done)
        while chunk := response.read1(CHUNK):  # not lost where nothing comes after it
            with _writing(folder):
                self._file.write(chunk)
            self._done += len(chunk)


def _version(response: HTTPResponse) -> str:
    """What tells the server that a shard is still the one that was begun."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
