"""Images in tar shards, read where they lie: each is a stretch of bytes of its shard."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas.data.images import read_image
from elastic_nas.data.index import Index, read_index
from elastic_nas.data.kept import forget, is_kept, kept
from elastic_nas.data.pixels import AS_IT_SAYS, Reading
from elastic_nas.data.remote import Cache
from elastic_nas.data.versions import ChangedShard, changed_at_server
from elastic_nas.errors import DataError
from elastic_nas.outside import open_file

MUCH = 0.25
"""Part of a shard from which it is fetched whole rather than image by image."""


class Shard(Protocol):
    """Where a shard lies."""

    @property
    def address(self) -> str:
        """Its path or URL."""

    @property
    def key(self) -> str:
        """What its index is kept under."""

    def make_index(self) -> Index:
        """Read its headers."""

    def read(self, offset: int, size: int, version: str) -> bytes:
        """Some of its bytes, fewer where it ends too early.

        Args:
            offset: Of the first byte.
            size: In bytes.
            version: What its index says that the server called it.
        """

    def fetch(self, version: str) -> None:
        """See that all of it is on this machine.

        Args:
            version: What its index says that the server called it.
        """


@dataclass(frozen=True)
class LocalShard:
    """A shard on this machine.

    Raises:
        DataError: In all methods: it is not there, or cannot be read.
    """

    path: Path

    @property
    def address(self) -> str:
        return str(self.path)

    @cached_property
    def key(self) -> str:
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._lost(error) from error
        return f"{os.path.realpath(self.path)}\0{status.st_size}\0{status.st_mtime_ns}"

    def make_index(self) -> Index:
        try:
            with open(open_file(self.path), "rb") as file:
                return read_index(file, self.address)
        except OSError as error:
            raise self._lost(error) from error

    def read(self, offset: int, size: int, version: str) -> bytes:
        try:
            handle = open_file(self.path)
            try:
                return os.pread(handle, size, offset)
            finally:
                os.close(handle)
        except OSError as error:
            raise self._lost(error) from error

    def fetch(self, version: str) -> None:
        """It is here."""

    def _lost(self, error: OSError) -> DataError:
        return DataError(
            f"cannot read the shard {self.address!r}: {error.strerror or error}. Put it back, then "
            "try again; a training goes on with --resume."
        )


@dataclass(frozen=True)
class RemoteShard:
    """A shard behind a URL.

    Raises:
        DataError: In all methods: it cannot be fetched.
    """

    url: str
    cache: Cache

    @property
    def address(self) -> str:
        return self.url

    @property
    def key(self) -> str:
        return self.url

    def make_index(self) -> Index:
        with self.cache.open(self.url) as file:
            try:
                return read_index(file, self.url, self.cache.version(self.url))
            except DataError:
                self.cache.forget(self.url)  # a mended one is fetched the next time
                raise

    def read(self, offset: int, size: int, version: str) -> bytes:
        return self.cache.read(self.url, offset, size, version)

    def fetch(self, version: str) -> None:
        self.cache.fetch(self.url)
        if self.cache.version(self.url) != version:
            self.cache.forget(self.url)
            raise changed_at_server(self.url)


def index_of(shard: Shard) -> Index:
    """The index of a shard, made where none is kept.

    Raises:
        DataError: The shard cannot be read or used.
    """
    return kept(shard.key, shard.make_index)


def is_indexed(shard: Shard) -> bool:
    """Whether the index of a shard is kept."""
    return is_kept(shard.key)


@contextmanager
def _forgetting(shard: Shard) -> Iterator[None]:
    """Make the index anew the next time where the shard turns out to be another one."""
    try:
        yield
    except ChangedShard:
        forget(shard.key)
        raise


@dataclass(frozen=True, eq=False)
class ShardImages:
    """The images of some shards, one shard after the other.

    Attributes:
        shards: Where they lie.
        indices: What they hold.
        reading: What their pixels mean.
    """

    shards: Sequence[Shard]
    indices: Sequence[Index]
    reading: Reading = AS_IT_SAYS

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([len(index) for index in self.indices])

    def shard_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The shard of each image, counted from 0, (n,)."""
        return np.searchsorted(self._ends, rows, side="right")

    def _place(self, row: int) -> tuple[Shard, Index, int]:
        """The shard of an image, its index, and the image's place there."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        index = self.indices[number]
        return self.shards[number], index, row - int(self._ends[number]) + len(index)

    def read(self, row: int) -> Image.Image:
        """One image, RGB.

        Raises:
            DamagedImage: It cannot be decoded.
            DataError: Its shard is missing, truncated or another one now.
        """
        return read_image(self.member(row), self.content(row), self.reading)

    def content(self, row: int) -> bytes:
        """The bytes of one image.

        Raises:
            DataError: Its shard is missing, truncated or another one now.
        """
        shard, index, place = self._place(row)
        offset, size = int(index.offsets_N[place]), int(index.sizes_N[place])
        with _forgetting(shard):
            content = shard.read(offset, size, index.version)
        if len(content) < size:
            forget(shard.key)
            raise DataError(
                f"the shard {shard.address!r} is truncated: {self.member(row)!r} goes on to byte "
                f"{offset + size:,}. Make or fetch it again; a training goes on with --resume."
            )
        return content

    def member(self, row: int) -> str:
        """``0001.jpg in train-0000.tar``, for messages."""
        shard, index, place = self._place(row)
        return f"{index.names()[place]} in {shard.address}"

    def label(self, row: int) -> str:
        """What the shard gives for an image."""
        _, index, place = self._place(row)
        return index.classes[int(index.labels_N[place])]

    @property
    def by_content(self) -> bool:
        """Whether all are known by their bytes, so that equal ones are found."""
        return all(isinstance(shard, LocalShard) for shard in self.shards)

    @cached_property
    def identities(self) -> NDArray[np.uint8]:
        """Of each image's bytes, or of its shard's version and its name, (n, 16)."""
        return np.concatenate([index.identities for index in self.indices])

    def names(self) -> Iterator[str]:
        """Of all images: shard and member, one after the other."""
        for shard, index in zip(self.shards, self.indices, strict=True):
            yield from (f"{_name(shard)}/{name}" for name in index.names())

    def fetch(self, rows: NDArray[np.int64], least: float = 0.0) -> None:
        """Fetch the shards of these images that are not here, in this order.

        Args:
            rows: Of the images.
            least: Part of a shard's images below which it is left where it is.

        Raises:
            DataError: A shard cannot be fetched.
        """
        numbers, first, counts = np.unique(
            self.shard_of(rows), return_index=True, return_counts=True
        )
        for number, count in zip(
            numbers[np.argsort(first)], counts[np.argsort(first)], strict=True
        ):
            if count >= least * len(self.indices[number]):
                with _forgetting(self.shards[number]):
                    self.shards[number].fetch(self.indices[number].version)


def _name(shard: Shard) -> str:
    """Its name without its place, so that shards may be moved."""
    return shard.address.rpartition("/")[2]
