"""Shards behind URLs: fetched on demand into the per-user folder, which is kept below a bound."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import BinaryIO, TypeVar
from urllib.error import URLError

from filelock import FileLock, Timeout

from elastic_nas.data import web
from elastic_nas.data.versions import changed_at_server, check_same, tag_of, version_of
from elastic_nas.data.web import MayPass, Refused, Status, Watch
from elastic_nas.errors import DataError
from elastic_nas.files import user_folder

TRIES = 6
FIRST_WAIT_S = 1.0
"""Before the second try; then always twice as long: half a minute in all."""

LONGEST_S = 24 * 3600.0
"""For one shard, in all tries."""

PASSING = frozenset({408, 425, 429})
"""Client errors that may go away; so may all server errors, from 500 on."""

GROWTH = 64 << 20
"""Bytes by which room is taken for a shard whose server does not state its length."""

ROOM_WAIT_S = 0.2
"""Between looks for room that other downloads take."""

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
                download = _Download(url, file, self)
                tried(url, download.go_on)
                file.flush()
                os.fsync(file.fileno())
            _tag_of(path).write_text(download.version, encoding="utf-8", errors="replace")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def version(self, url: str) -> str:
        """What the server calls a shard that is here: its tag, if it has any, and its size.

        Raises:
            DataError: It cannot be asked.
        """
        path = _path(url)
        size = _age_and_size(path)[1]
        with suppress(FileNotFoundError):
            return version_of(url, _tag_of(path).read_text(encoding="utf-8"), size)
        tag, total = tried(url, lambda: _asked_for(url))  # of a version that kept no tags
        if total is not None and total != size:
            self.forget(url)
            raise changed_at_server(url)
        _tag_of(path).write_text(tag, encoding="utf-8", errors="replace")
        return version_of(url, tag, size)

    def read(self, url: str, offset: int, size: int, version: str) -> bytes:
        """Bytes of a shard: from its file, else just these, where the server gives parts.

        Args:
            url: Of the shard.
            offset: Of the first byte.
            size: In bytes.
            version: What the server called the shard, see `version`.

        Raises:
            ChangedShard: It is another one now.
            DataError: They cannot be fetched.
        """
        if not _path(url).exists():
            part = tried(url, lambda: _part(url, offset, size, version))
            if part is not None:
                return part
        with self.open(url) as file:
            if self.version(url) != version:
                raise changed_at_server(url)
            file.seek(offset)
            return file.read(size)

    def forget(self, url: str) -> None:
        """Delete a shard that turned out to be damaged."""
        _path(url).unlink(missing_ok=True)
        _tag_of(_path(url)).unlink(missing_ok=True)

    def reserve(self, file: BinaryIO, size: int) -> bool:
        """Give a file its size, deleting the shards used least recently where room is short.

        Returns:
            Whether there is room: other downloads may take it now.

        Raises:
            DataError: There never is.
        """
        if size > self.bound:
            raise DataError(
                f"a shard of {size:,} bytes does not fit into the {self.bound:,} bytes that "
                "fetched shards may take. Raise cache_gb in the data file."
            )
        folder, mine = Path(file.name).parent, Path(file.name)
        with FileLock(folder / "room.lock"):
            parts = [part for part in folder.glob("*.part") if part != mine and _is_written(part)]
            shards = sorted((*_age_and_size(path), path) for path in folder.glob("*.tar"))
            taken = sum(_age_and_size(part)[1] for part in parts)
            if taken + size > self.bound:
                return False
            surplus = taken + sum(bytes_ for _, bytes_, _ in shards) + size - self.bound
            for _, bytes_, path in shards:
                if surplus > 0:
                    path.unlink(missing_ok=True)
                    _tag_of(path).unlink(missing_ok=True)
                    surplus -= bytes_
            file.truncate(size)
        return True


def _is_written(part: Path) -> bool:
    """Whether a download goes on; what a killed process left behind is deleted."""
    try:
        with FileLock(part.with_suffix(".lock"), timeout=0):
            part.unlink(missing_ok=True)
    except Timeout:
        return True
    return False


def _path(url: str) -> Path:
    return user_folder() / "shards" / f"{sha256(url.encode()).hexdigest()[:40]}.tar"


def _tag_of(path: Path) -> Path:
    """The file that holds the server's tag of a fetched shard."""
    return path.with_suffix(".tag")


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


def tried(url: str, attempt: Callable[[], Result]) -> Result:
    """What `attempt` returns, tried again where it fails for a reason that may pass.

    Raises:
        DataError: It failed for good, or too often.
    """
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except (OSError, HTTPException, ValueError, MayPass, Refused, Status) as error:
            reason: Exception = error
        if number == TRIES or not _may_pass(reason):
            break
        time.sleep(FIRST_WAIT_S * 2 ** (number - 1))
    times = "once" if number == 1 else f"{number} times"
    raise DataError(
        f"cannot fetch {url}: {_words(reason)}; tried {times}. Check the address and the "
        "connection, then try again; a training goes on with --resume."
    ) from reason


def _may_pass(reason: Exception) -> bool:
    if isinstance(reason, Status):
        return reason.code >= 500 or reason.code in PASSING
    why = reason.reason if isinstance(reason, URLError) else reason
    return not isinstance(why, Refused | ValueError | SSLCertVerificationError)


def _words(reason: Exception) -> str:
    if isinstance(reason, URLError):
        return str(reason.reason)
    if isinstance(reason, TimeoutError):
        return f"nothing came for {web.STALLED_S:g} seconds"
    return str(reason)[:300] or type(reason).__name__


def _asked_for(url: str) -> tuple[str, int | None]:
    """The server's tag of a shard, and its size where the server says it."""
    with web.asked(url, {"Range": "bytes=0-0"}) as (response, _):
        given = web.range_of(response) if response.status == 206 else None
        size = web.length_of(response) if given is None else given[2]
        return tag_of(response), size


def _part(url: str, offset: int, size: int, version: str) -> bytes | None:
    """These bytes of a shard; None where the server gives whole shards, or other bytes."""
    last = offset + size - 1
    with web.asked(url, {"Range": f"bytes={offset}-{last}"}) as (response, watch):
        given = web.range_of(response)
        if response.status != 206 or given is None or given[:2] != (offset, last):
            return None
        check_same(response, url, given[2], version)
        content = bytearray()
        for chunk in web.body(response, watch):
            content += chunk
            if len(content) >= size:
                break
    if len(content) < size:
        raise MayPass(f"got {len(content):,} of {size:,} bytes")
    return bytes(content[:size])


class _Download:
    """A shard on its way into a file; each try goes on where the one before it stopped."""

    def __init__(self, url: str, file: BinaryIO, cache: Cache) -> None:
        self._url, self._file, self._cache = url, file, cache
        self._done, self._room, self._version = 0, 0, ""
        self._total: int | None = None
        self._ends = time.monotonic() + LONGEST_S

    def go_on(self) -> None:
        """Fetch what is missing."""
        headers = {}
        if self._done and self._version:
            headers = {"Range": f"bytes={self._done}-", "If-Range": self._version}
        with web.asked(self._url, headers) as (response, watch):
            length = web.length_of(response)
            if response.status == 206:
                self._check_range(response, length)
            else:
                self._done, self._total = 0, length
                self._version = tag_of(response)
            self._keep(response, watch)
        if self._total is not None and self._done < self._total:
            raise MayPass(f"got {self._done:,} of {self._total:,} bytes")
        with _writing(self._folder):
            self._file.truncate(self._done)

    @property
    def version(self) -> str:
        """The server's tag of what was fetched; empty where it gives none."""
        return self._version

    @property
    def _folder(self) -> Path:
        return Path(self._file.name).parent

    def _check_range(self, response: HTTPResponse, length: int | None) -> None:
        """See that these are the bytes that are missing, of the same file; else begin anew.

        Raises:
            MayPass: They are not.
        """
        given = web.range_of(response)
        same = given is not None and given[0] == self._done and tag_of(response) == self._version
        if given is not None and same:
            first, last, total = given
            fits = length in (None, last - first + 1)
            if fits and (self._total is None or total in (None, self._total)):
                self._total = self._total if total is None else total
                return
        self._version = ""
        raise MayPass("the server gives other bytes than those asked for")

    def _keep(self, response: HTTPResponse, watch: Watch) -> None:
        if self._done == 0:
            self._room = 0
            with _writing(self._folder):
                self._file.truncate(0)
        self._see_room(self._total or 0, watch)
        self._file.seek(self._done)
        for chunk in web.body(response, watch):  # none is lost where nothing comes after it
            if self._total is not None and self._done + len(chunk) > self._total:
                raise MayPass(f"got more than the {self._total:,} bytes that the server stated")
            self._see_room(self._done + len(chunk), watch)
            with _writing(self._folder):
                self._file.write(chunk)
            self._done += len(chunk)
            if time.monotonic() > self._ends:
                raise Refused(f"it is not here after {LONGEST_S / 3600:g} hours")

    def _see_room(self, size: int, watch: Watch) -> None:
        """Take room for so many bytes, in larger steps where the length is not known.

        What has room waits for more without end only where nothing is taken yet: two that held
        some would wait for each other.
        """
        if size <= self._room and self._room:
            return
        wanted = size if self._total is not None else max(size, self._room + GROWTH)
        wanted = max(size, min(wanted, self._cache.bound))
        while True:
            with _writing(self._folder):
                if self._cache.reserve(self._file, wanted):
                    break
            if self._room:
                raise DataError(
                    f"the shards that are fetched at once do not fit into the "
                    f"{self._cache.bound:,} bytes that they may take. Raise cache_gb in the data "
                    "file."
                )
            if time.monotonic() > self._ends:
                raise Refused(f"there is no room for it after {LONGEST_S / 3600:g} hours")
            watch.put_off()
            time.sleep(ROOM_WAIT_S)
        self._room = wanted
