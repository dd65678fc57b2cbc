"""A split: labelled images that training, search or the final test may look at."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas.data.damage import Rule, allowed, listed, too_many
from elastic_nas.data.identity import digest_of, identity_of, stacked
from elastic_nas.data.images import in_parallel, read_image
from elastic_nas.data.pixels import AS_IT_SAYS, Reading
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.data.shards import MUCH, ShardImages
from elastic_nas.errors import DamagedImage
from elastic_nas.progress import say

CACHE_BYTES = 2_000_000_000
"""Of deployed images kept in memory by one split."""


class Images(Protocol):
    """Where the images of a split lie."""

    def read(self, index: int) -> Image.Image:
        """One image, RGB."""

    @property
    def identities(self) -> NDArray[np.uint8]:
        """What each image is known by, see `identity`: (n, 16)."""


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory: (n, H, W, 3)."""

    pixels_NHWC: NDArray[np.uint8]

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels_NHWC[index])

    @cached_property
    def identities(self) -> NDArray[np.uint8]:
        return stacked(identity_of(pixels_HWC.tobytes()) for pixels_HWC in self.pixels_NHWC)


@dataclass(frozen=True)
class FileImages:
    """Image files below a folder.

    Attributes:
        root: The folder.
        names: Paths below it, with ``/``.
        identities: Of the files' bytes, (n, 16).
        reading: What their pixels mean.
    """

    root: Path
    names: Sequence[str]
    identities: NDArray[np.uint8] = field(repr=False)
    reading: Reading = AS_IT_SAYS

    def read(self, index: int) -> Image.Image:
        return read_image(self.root / self.names[index], reading=self.reading)


class Split:
    """Labelled images.

    Attributes:
        name: ``train``, ``search-validation`` (never trained on; selects among children) or
            ``test`` (for finalists only).
        labels: Class indices, (n,).
    """

    def __init__(
        self,
        name: str,
        labels: NDArray[np.int64],
        images: Images,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """A split of `images`, or of those whose indices `rows` gives, one for each label."""
        self.name, self.labels, self._images = name, labels, images
        self._rows = np.arange(len(labels)) if rows is None else rows
        self._drawn_from = len(labels)
        self._deployed: dict[tuple[float, int], NDArray[np.uint8]] = {}
        self._readable: Split | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        """Without the caches, which a loader's worker has no use for."""
        return {**self.__dict__, "_deployed": {}, "_readable": None}

    def image(self, index: int) -> Image.Image:
        """One image: RGB, of its own size.

        Raises:
            DataError: Its file cannot be read.
        """
        return self._images.read(int(self._rows[index]))

    @cached_property
    def shards(self) -> NDArray[np.int64] | None:
        """The shard of each image, (n,), where images lie in shards; else None."""
        return self._images.shard_of(self._rows) if isinstance(self._images, ShardImages) else None

    def fetch(self, indices: NDArray[np.int64]) -> None:
        """See that the shards of these images are on this machine, if they lie in shards.

        Raises:
            DataError: A shard cannot be fetched.
        """
        if isinstance(self._images, ShardImages):
            self._images.fetch(self._rows[indices])

    @property
    def images(self) -> Images:
        """Where they lie."""
        return self._images

    @property
    def rows(self) -> NDArray[np.int64]:
        """Which of those in `images` they are, (n,)."""
        return self._rows

    @cached_property
    def sha256(self) -> str:
        """Hex hash of the labels and the identities of the images, in their order."""
        return digest_of(self.labels, self._images.identities[self._rows])

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> "Split":
        """The split of these images, in this order, under the same name."""
        chosen = np.asarray(indices, dtype=np.int64)
        drawn = Split(self.name, self.labels[chosen], self._images, self._rows[chosen])
        drawn._drawn_from = self._drawn_from
        return drawn

    @property
    def is_read(self) -> bool:
        """Whether it is known which of the images can be read."""
        return self._readable is not None

    def readable(self, preprocess: Preprocess, resolution: int, rule: Rule) -> "Split":
        """The split without the images that cannot be read; says which these are.

        It is found once, by reading all images as `deployed` does, which are kept for that.

        Args:
            preprocess: What images are resized by.
            resolution: That they will be needed at first, in pixels.
            rule: What is done about images that cannot be read.

        Raises:
            DataError: More of them cannot be read than may be; see `damage.allowed`.
        """
        if self._readable is None:
            self._readable = self._without_damaged(preprocess, resolution, rule)
        return self._readable

    def _without_damaged(self, preprocess: Preprocess, resolution: int, rule: Rule) -> "Split":
        images_NCHW, damaged = self._deploy(preprocess, resolution)
        told = [error.told for error in damaged.values()]
        if len(damaged) > allowed(len(self), rule, self._drawn_from):
            raise too_many(told, len(self), self.name, rule)
        if not damaged:
            self._keep((preprocess.crop, resolution), images_NCHW)
            return self
        left = np.setdiff1d(np.arange(len(self)), list(damaged))
        say(
            f"note: {len(damaged):,} of {len(self):,} {self.name} images cannot be read and are "
            f"left out ({listed(told)}); {len(left):,} are used."
        )
        readable = self.subset(left)
        readable._keep((preprocess.crop, resolution), images_NCHW[left])
        readable._readable = readable
        return readable

    def deployed(self, preprocess: Preprocess, resolution: int) -> NDArray[np.uint8]:
        """All images as deployed: (n, 3, resolution, resolution), 0-255, in the split's order.

        Kept in memory for the next call, up to 2 GB in all: do not write to the array.

        Raises:
            DataError: An image cannot be read; `readable` leaves such out.
        """
        key = (preprocess.crop, resolution)
        if key in self._deployed:
            return self._deployed[key]
        images_NCHW, damaged = self._deploy(preprocess, resolution)
        for error in damaged.values():
            raise error
        self._keep(key, images_NCHW)
        return images_NCHW

    def _keep(self, key: tuple[float, int], images_NCHW: NDArray[np.uint8]) -> None:
        """Keep images as deployed for the next call, as far as there is room for them."""
        if images_NCHW.nbytes + sum(a.nbytes for a in self._deployed.values()) <= CACHE_BYTES:
            self._deployed[key] = images_NCHW

    def _deploy(
        self, preprocess: Preprocess, resolution: int
    ) -> tuple[NDArray[np.uint8], dict[int, DamagedImage]]:
        """All images as deployed, and those that cannot be read, which are black."""
        images_NCHW = np.empty((len(self), 3, resolution, resolution), dtype=np.uint8)
        if isinstance(self._images, ShardImages):
            self._images.fetch(self._rows, MUCH)

        def fill(index: int) -> DamagedImage | None:
            try:
                pixels_HWC = preprocess.deploy(self.image(index), resolution)
            except DamagedImage as error:
                images_NCHW[index] = 0
                return error.with_traceback(None)
            images_NCHW[index] = pixels_HWC.transpose(2, 0, 1)
            return None

        title = f"Resizing {self.name} images to {resolution} px"
        found = enumerate(in_parallel(fill, range(len(self)), title))
        return images_NCHW, {index: error for index, error in found if error is not None}


@dataclass(frozen=True, eq=False)
class Part:
    """Labelled images of a source: all of them, or those for training, validation or testing.

    Attributes:
        names: One an image; a split is drawn by them.
        labels: Class indices, (n,).
        images: The images.
        pixels_NB: Identities of the decoded pixels, (n, 16), where all were decoded: equal pictures
            have equal ones, however they are stored.
    """

    names: Iterable[str]
    labels: NDArray[np.int64]
    images: Images
    pixels_NB: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.names, Iterator):  # they are looked at more than once
            object.__setattr__(self, "names", list(self.names))

    def whole(self, name: str) -> Split:
        """All of it as one split."""
        return Split(name, self.labels, self.images)

    def where(self, row: int) -> str:
        """What an image is called in messages."""
        if isinstance(self.images, ShardImages):
            return self.images.member(row)
        return f"image {row}"


@dataclass(frozen=True, eq=False)
class Source:
    """The images that a source holds, as it parts them.

    Attributes:
        name: Of the data set.
        place: Where it lies, for messages.
        classes: Names, by label.
        parts: ``all``; or ``train`` alone or with ``val``, ``test`` or both.
        left_out: What was passed over: numbers by kind, such as ``{"hidden": 3}``.
        reading: What the pixels mean, as far as files leave it open.
    """

    name: str
    place: str
    classes: tuple[str, ...]
    parts: dict[str, Part]
    left_out: Mapping[str, int] = field(default_factory=dict)
    reading: Reading = AS_IT_SAYS
