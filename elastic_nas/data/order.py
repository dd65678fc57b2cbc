"""The order of training images: a pure function of seed, epoch and rank."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

OPEN_SHARDS = 16
"""Shards that a rank reads side by side."""

WINDOW = 512
"""Images of a shard within which its order is shuffled."""


class Drawn(NamedTuple):
    """What a rank's part of one batch holds.

    Attributes:
        epoch: In which it is.
        indices: Of the images, (share,).
        copies: How often each image came before in this epoch, (share,): above 0 where a split
            smaller than a batch is repeated to fill it.
    """

    epoch: int
    indices: Indices
    copies: Indices


class Order:
    """Which images the steps of one rank show.

    Without shards, the batch of all ranks is drawn from one permutation, and each rank takes its
    part: together they show exactly what one process shows. With shards, each rank has its own
    stretch of them, see `by_shard`; all stretches are of one length.

    Attributes:
        steps_per_epoch: The same on all ranks; at least 1. The images that fill no batch are left
            out, others in each epoch.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        seed: int,
        shards: Indices | None = None,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """The order of `images` images.

        Args:
            images: Their number.
            batch_size: Images a step, over all ranks; a multiple of `ranks`.
            seed: Of the order.
            shards: The shard in which each image lies, (images,), where that matters.
            rank: From 0 to `ranks` - 1.
            ranks: Processes that share each batch.
        """
        self._images, self._seed, self._shards = images, seed, shards
        self._rank, self._ranks, self._share = rank, ranks, batch_size // ranks
        self.steps_per_epoch = max(1, images // batch_size)
        self._latest = (-1, np.empty(0, dtype=np.int64))  # of which epoch

    def of_step(self, step: int) -> Drawn:
        """What this rank shows in a step, counted from the first epoch's beginning."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        order = self._of_epoch(epoch)
        if self._shards is None:
            first = (step_of_epoch * self._ranks + self._rank) * self._share
        else:
            first = step_of_epoch * self._share
        places = first + np.arange(self._share)
        copies, places = np.divmod(places, len(order))
        return Drawn(epoch, order[places], copies)

    def _of_epoch(self, epoch: int) -> Indices:
        if self._latest[0] != epoch:
            self._latest = (epoch, self._made(epoch))
        return self._latest[1]

    def _made(self, epoch: int) -> Indices:
        if self._shards is None:
            return shuffled(self._images, self._seed, epoch)
        return by_shard(self._shards, self._seed, epoch, self._rank, self._ranks)


def shuffled(images: int, seed: int, epoch: int) -> Indices:
    """A uniform permutation, (images,)."""
    return np.random.default_rng((0, seed, epoch)).permutation(images)


def by_shard(shards: Indices, seed: int, epoch: int, rank: int, ranks: int) -> Indices:
    """A rank's images of an epoch, shuffled well, yet read from shards nearly in sequence.

    The shards stand in a line in random order, and each rank gets a stretch of it; all stretches
    are of one length, so that no rank has less to do than another. A stretch is shown like a
    conveyor belt that runs in a circle: at any time about `OPEN_SHARDS` shards are being read, each
    from its first image to its last, each `OPEN_SHARDS` times as slowly as alone. Every image's
    turn is then put off by a random time, which shuffles within about `WINDOW` images of a shard,
    `OPEN_SHARDS` x `WINDOW` in all. A shorter stretch is shuffled uniformly.

    Args:
        shards: The shard in which each image lies, (n,), numbered from 0; images that are
            neighbours in a shard are neighbours here.
        seed: Of the order.
        epoch: Counted from 0.
        rank: From 0 to `ranks` - 1.
        ranks: Among which the images are dealt.

    Returns:
        Indices of n // `ranks` images; none is any other rank's.
    """
    rng = np.random.default_rng((2, seed, epoch))
    line = np.argsort(rng.permutation(shards.max() + 1)[shards], kind="stable")
    length = len(line) // ranks
    stretch = line[rank * length : (rank + 1) * length]
    starts = np.flatnonzero(np.diff(shards[stretch], prepend=-1))
    begun = np.repeat(starts, np.diff(starts, append=length))
    in_shard = np.arange(length) - begun
    late = np.random.default_rng((3, seed, epoch, rank)).random(length)
    turns = begun + OPEN_SHARDS * in_shard + late * min(OPEN_SHARDS * WINDOW, length)
    order: Indices = stretch[np.argsort(turns % length, kind="stable")]
    return order
