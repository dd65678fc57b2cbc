"""The training stream: batches that are a pure function of the seed and the step."""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import chain

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from elastic_nas import progress
from elastic_nas.data.ahead import fetching_ahead
from elastic_nas.data.augment import LARGEST_RATIO, Augment
from elastic_nas.data.damage import Rule, allowed, stand_ins, too_many
from elastic_nas.data.images import in_parallel, shrink
from elastic_nas.data.order import Order
from elastic_nas.data.split import Split
from elastic_nas.errors import DamagedImage, DataError

CACHE_BYTES = 1_000_000_000
"""Of decoded training images kept in memory: all of them, or none."""

Batch = tuple[Tensor, Tensor]

_Damaged = dict[int, str]
"""Images that cannot be read, by their indices: what they are called, and why."""

_Prepared = tuple[Tensor, Tensor, _Damaged]
"""A batch with the damaged images that it would have shown; empty where they are too many."""


class TrainStream:
    """Augmented training images, shuffled anew in every epoch; the last part of a batch is dropped.

    The batch of a step depends on the seed, the step and the rank alone: neither on the steps
    before it nor on the number of workers. So a run resumes exactly, in mid-epoch, too.

    An image that cannot be read is replaced by another one, with its label: see
    `damage.stand_ins`. Which one depends on nothing but which images cannot be read.

    Attributes:
        damaged: The images that could not be read so far, by their indices in the split, in the
            order in which they were met: what they are called, and why.
        rule: What is done about them; to be set before the first batch.
        steps_per_epoch: At least 1: a split smaller than a batch is repeated to fill one. The same
            on all ranks.
    """

    def __init__(
        self,
        split: Split,
        augment: Augment,
        resolution: int,
        batch_size: int,
        seed: int,
        workers: int = 0,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """A stream over `split`.

        Args:
            split: What to train on.
            augment: What each image goes through.
            resolution: Of the batches, in pixels.
            batch_size: Images a step, over all ranks; a multiple of `ranks`.
            seed: Of order and augmentation.
            workers: Processes that prepare batches; 0 prepares them in this one.
            rank: Which of the processes that train together this is.
            ranks: Their number.

        Raises:
            DataError: There are more ranks than images.
        """
        assert batch_size % ranks == 0 <= rank < ranks
        if len(split) < ranks:
            raise DataError(
                f"{ranks:,} processes cannot share {len(split):,} {split.name} images; start as "
                "many processes as there are images, or fewer."
            )
        order = Order(len(split), batch_size, seed, split.shards, rank=rank, ranks=ranks)
        self._batches = _Batches(split, augment, resolution, order, seed)
        self.damaged: dict[int, str] = {}
        self.rule: Rule = "skip"
        self.steps_per_epoch = order.steps_per_epoch
        self._workers = min(workers, _usable_cpus())  # torch warns of more
        if len(split) < batch_size and rank == 0:
            progress.say(
                f"The {len(split):,} {split.name} images are repeated to fill a batch of "
                f"{batch_size:,}."
            )

    def batches(self, first_step: int, last_step: int) -> Generator[Batch, None, None]:
        """The batches of steps `first_step` to `last_step` - 1.

        Yields:
            Images, uint8 (N, 3, resolution, resolution), contiguous; labels, int64 (N,); N is this
            rank's share of the batch size.

        Raises:
            DataError: More images of a batch cannot be read than may be damaged in the split; a
                shard cannot be read or fetched; a worker died.
        """
        self._batches.most = allowed(len(self._batches.split), self.rule)
        forked = self._workers > 0 and sys.platform == "linux"
        if forked or self._workers == 0:  # what else starts processes would copy the images
            self._batches.fill_cache()
            self.damaged |= self._batches.damaged
        loader: DataLoader[_Prepared | DataError] = DataLoader(
            self._batches,
            batch_size=None,
            sampler=range(first_step, last_step),
            num_workers=self._workers,
            pin_memory=torch.cuda.is_available(),  # else a copy to the GPU waits for its work
            generator=torch.Generator(),  # else the loader draws from the global one
            multiprocessing_context=multiprocessing.get_context("fork") if forked else None,
            worker_init_fn=_leave_signals_to_parent,
        )
        steps = range(first_step, last_step)
        with warnings.catch_warnings(), _deaths_told_in_turn():
            # Python 3.12 warns of forks beside threads; the workers touch none of torch's.
            warnings.simplefilter("ignore", DeprecationWarning)
            prepared = iter(loader)
        try:
            with fetching_ahead(self._batches.split, self._batches.order, steps) as reached:
                for step in steps:
                    reached(step)
                    yield self._sound(_next(prepared))
        finally:
            del prepared  # ends the workers now, even while a traceback keeps this frame

    def _sound(self, batch: _Prepared | DataError) -> Batch:
        if isinstance(batch, DataError):
            raise batch
        x_NCHW, labels_N, damaged = batch
        self.damaged |= damaged
        if not len(labels_N):
            split = self._batches.split
            raise too_many(self.damaged.values(), len(split), split.name, self.rule)
        return x_NCHW, labels_N


def _next(prepared: Iterator[_Prepared | DataError]) -> _Prepared | DataError:
    """The next batch, or why there is none."""
    try:
        return next(prepared)
    except (RuntimeError, OSError, EOFError) as error:
        # Torch has no class of its own for this; the others come where a batch was on its way.
        if isinstance(error, RuntimeError) and "exited unexpectedly" not in str(error):
            raise
        return DataError(
            "a process that prepares images has died; mostly, memory has run out, or shared memory "
            "(/dev/shm). Set train.workers lower and go on with --resume."
        )


@contextmanager
def _deaths_told_in_turn() -> Iterator[None]:
    """Keep torch from raising an error at any point of the program when a worker dies.

    It does so in the handler of a signal; without that it notices when a batch is asked for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal: the parent decides, and ends the workers."""
    if hasattr(os, "setpgid"):  # torchrun ends whole process groups
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Batches(Dataset[_Prepared | DataError]):
    """Item s is the batch of step s, or why there is none (an exception would lose its words)."""

    def __init__(
        self, split: Split, augment: Augment, resolution: int, order: Order, seed: int
    ) -> None:
        self.split, self.order = split, order
        self._augment, self._resolution, self._seed = augment, resolution, seed
        self.most = 0  # images that may be damaged
        self._decoded: list[Image.Image | DamagedImage] = []

    def __getitem__(self, step: int) -> _Prepared | DataError:
        epoch, indices, copies = self.order.of_step(step)
        shape = (len(indices), self._resolution, self._resolution, 3)
        images_NHWC = np.empty(shape, dtype=np.uint8)
        labels_N = self.split.labels[indices]
        damaged: _Damaged = {}
        try:
            if not self._decoded:
                self.split.fetch(indices)
            pairs = zip(indices.tolist(), copies.tolist(), strict=True)
            for row, (index, copy) in enumerate(pairs):
                # The copies of an image in one epoch are augmented apart.
                rng = np.random.default_rng((1, self._seed, epoch, copy, index))
                shown, image = self._shown(index, damaged)
                labels_N[row] = self.split.labels[shown]
                images_NHWC[row] = self._augment(image, self._resolution, rng)
        except DamagedImage:  # one more than may be
            return torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), damaged
        except DataError as error:
            return error
        except MemoryError:
            return DataError(
                "there is no memory left to prepare images in. Set train.batch_size or "
                "train.workers lower and go on with --resume."
            )
        x_NCHW = torch.from_numpy(np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2)))
        return x_NCHW, torch.from_numpy(labels_N), damaged

    def _shown(self, index: int, damaged: _Damaged) -> tuple[int, Image.Image]:
        """An image, or the one that takes its place, and which one that is.

        Raises:
            DamagedImage: With it, more are damaged than may be.
        """
        for candidate in chain([index], stand_ins(self.split.labels, index)):
            try:
                return candidate, self._image(candidate)
            except DamagedImage as error:
                damaged[candidate] = error.told
                if len(damaged) > self.most:
                    raise
        raise AssertionError("more images may be damaged than there are")

    def _image(self, index: int) -> Image.Image:
        image = self._decoded[index] if self._decoded else self._decode(index)
        if isinstance(image, DamagedImage):
            raise image.with_traceback(None)
        return image

    @property
    def damaged(self) -> _Damaged:
        """Those of the images kept in memory that cannot be read."""
        found = enumerate(self._decoded)
        return {n: image.told for n, image in found if isinstance(image, DamagedImage)}

    def _decode(self, index: int) -> Image.Image:
        """The image, no larger than needed: the smallest crop's shorter side is the resolution."""
        part = self._augment.crop_scale[0] / LARGEST_RATIO
        return shrink(self.split.image(index), int(np.ceil(self._resolution / part**0.5)))

    def _tried(self, index: int) -> Image.Image | DamagedImage:
        try:
            return self._decode(index)
        except DamagedImage as error:
            return error

    def fill_cache(self) -> None:
        """Decode all images, where they fit into memory: judged by 100 of them."""
        if self._decoded:
            return
        count = len(self.split)
        sample = [self._tried(count * k // 100) for k in range(100)] if count > 100 else []
        # Pillow keeps 4 bytes a pixel, and about 1 KB an image.
        sizes = [4 * i.width * i.height + 1000 for i in sample if isinstance(i, Image.Image)]
        if not sizes or float(np.mean(sizes)) * count <= CACHE_BYTES:
            self.split.fetch(np.arange(count))
            with suppress(_TooMuch):
                work = _Bounded(self._tried)
                self._decoded = in_parallel(work, range(count), "Decoding training images")


class _TooMuch(Exception):
    """The images take more memory than those judged by."""


class _Bounded:
    """Decodes images until they take twice what may be kept: some may be very long and thin."""

    def __init__(self, decode: Callable[[int], Image.Image | DamagedImage]) -> None:
        self._decode, self._bytes, self._lock = decode, 0, threading.Lock()

    def __call__(self, index: int) -> Image.Image | DamagedImage:
        image = self._decode(index)
        if isinstance(image, DamagedImage):
            return image.with_traceback(None)  # which would keep the bytes of the file
        with self._lock:
            self._bytes += 4 * image.width * image.height
            if self._bytes > 2 * CACHE_BYTES:
                raise _TooMuch("images of very unequal sizes")
        return image
