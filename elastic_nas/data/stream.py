"""The training stream: batches that are a pure function of the seed and the step."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from elastic_nas import progress
from elastic_nas.data.augment import LARGEST_RATIO, Augment
from elastic_nas.data.images import in_parallel, shrink
from elastic_nas.data.split import Split
from elastic_nas.errors import DataError

CACHE_BYTES = 1_000_000_000
"""Of decoded training images kept in memory: all of them, or none."""

Batch = tuple[Tensor, Tensor]


class TrainStream:
    """Augmented training images, shuffled anew in every epoch; the last part of a batch is dropped.

    The batch of a step depends on the seed and the step alone: neither on the steps before it nor
    on the number of workers. So a run resumes exactly, in mid-epoch, too.

    Attributes:
        steps_per_epoch: At least 1: a split smaller than a batch is repeated to fill one.
    """

    def __init__(
        self,
        split: Split,
        augment: Augment,
        resolution: int,
        batch_size: int,
        seed: int,
        workers: int = 0,
    ) -> None:
        """A stream over `split`.

        Args:
            split: What to train on.
            augment: What each image goes through.
            resolution: Of the batches, in pixels.
            batch_size: Images a step.
            seed: Of order and augmentation.
            workers: Processes that prepare batches; 0 prepares them in this one.
        """
        self._batches = _Batches(split, augment, resolution, batch_size, seed)
        self.steps_per_epoch = self._batches.steps_per_epoch
        self._workers = min(workers, _usable_cpus())  # torch warns of more
        if len(split) < batch_size:
            progress.say(
                f"The {len(split):,} {split.name} images are repeated to fill a batch of "
                f"{batch_size:,}."
            )

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of steps `first_step` to `last_step` - 1.

        Yields:
            Images, uint8 (N, 3, resolution, resolution), contiguous; labels, int64 (N,).

        Raises:
            DataError: An image cannot be read.
        """
        forked = self._workers > 0 and sys.platform == "linux"
        if forked or self._workers == 0:  # what else starts processes would copy the images
            self._batches.fill_cache()
        loader: DataLoader[Batch | DataError] = DataLoader(
            self._batches,
            batch_size=None,
            sampler=range(first_step, last_step),
            num_workers=self._workers,
            generator=torch.Generator(),  # else the loader draws from the global one
            multiprocessing_context=multiprocessing.get_context("fork") if forked else None,
            worker_init_fn=_leave_signals_to_parent,
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; the workers touch none of torch's.
            warnings.simplefilter("ignore", DeprecationWarning)
            prepared = iter(loader)
        try:
            for batch in prepared:
                if isinstance(batch, DataError):
                    raise batch
                yield batch
        finally:
            del prepared  # ends the workers now, even while a traceback keeps this frame


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal: the parent decides, and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Batches(Dataset[Batch | DataError]):
    """Item s is the batch of step s, or why there is none (an exception would lose its words)."""

    def __init__(
        self, split: Split, augment: Augment, resolution: int, batch_size: int, seed: int
    ) -> None:
        self._split, self._augment, self._resolution = split, augment, resolution
        self._batch_size, self._seed = batch_size, seed
        self.steps_per_epoch = max(1, len(split) // batch_size)
        self._order = (-1, np.empty(0, dtype=np.int64))  # of which epoch
        self._decoded: list[Image.Image] = []

    def __getitem__(self, step: int) -> Batch | DataError:
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        start = step_of_epoch * self._batch_size
        places = range(start, start + self._batch_size)
        shape = (self._batch_size, self._resolution, self._resolution, 3)
        images_NHWC = np.empty(shape, dtype=np.uint8)
        order = self._order_of(epoch)
        indices = order[np.arange(start, places.stop) % len(order)]
        try:
            for row, (place, index) in enumerate(zip(places, indices.tolist(), strict=True)):
                # The copies of an image in one epoch are augmented apart.
                copy = place // len(order)
                rng = np.random.default_rng((1, self._seed, epoch, copy, index))
                images_NHWC[row] = self._augment(self._image(index), self._resolution, rng)
        except DataError as error:
            return error
        x_NCHW = torch.from_numpy(np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2)))
        return x_NCHW, torch.from_numpy(self._split.labels[indices])

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if self._order[0] != epoch:
            rng = np.random.default_rng((0, self._seed, epoch))
            self._order = (epoch, rng.permutation(len(self._split)))
        return self._order[1]

    def _image(self, index: int) -> Image.Image:
        return self._decoded[index] if self._decoded else self._decode(index)

    def _decode(self, index: int) -> Image.Image:
        """The image, no larger than needed: the smallest crop's shorter side is the resolution."""
        part = self._augment.crop_scale[0] / LARGEST_RATIO
        return shrink(self._split.image(index), int(np.ceil(self._resolution / part**0.5)))

    def fill_cache(self) -> None:
        """Decode all images, where they fit into memory: judged by 100 of them."""
        if self._decoded:
            return
        count = len(self._split)
        sample = [self._decode(count * k // 100) for k in range(100)] if count > 100 else []
        # Pillow keeps 4 bytes a pixel, and about 1 KB an image.
        sizes = [4 * image.width * image.height + 1000 for image in sample]
        if not sizes or float(np.mean(sizes)) * count <= CACHE_BYTES:
            self._decoded = in_parallel(self._decode, range(count), "Decoding training images")
