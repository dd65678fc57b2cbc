"""Batches as they arrive in all processes of a training: where one has none, none goes on."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import torch

from elastic_nas.data.damage import TOLD, allowed, too_many
from elastic_nas.data.identity import split_up
from elastic_nas.data.images import in_parallel
from elastic_nas.data.stream import Batch
from elastic_nas.errors import DamagedImage, DataError
from elastic_nas.progress import say
from elastic_nas.training.books import Books
from elastic_nas.training.trainer import Trainer


class NoBatch(Exception):
    """All processes end before the same step.

    Attributes:
        error: Why, in those that know.
    """

    def __init__(self, error: DataError | None) -> None:
        super().__init__(str(error))
        self.error = error


class Arrivals:
    """The batches of a training, and the images that turned out to be unreadable on the way.

    Damaged images are known by what they are called, as processes may see unequal data and as empty
    files all have one identity. All processes know all of them, so that they end together where
    there are too many.

    Args:
        trainer: Whose stream it is.
        books: Where each damaged image is written down once, for the time after an interruption.
    """

    def __init__(self, trainer: Trainer, books: Books) -> None:
        self._trainer, self._books, self._ranks = trainer, books, trainer.ranks
        self._split, self._rule = trainer.data.train, trainer.data.damaged
        most = allowed(len(self._split), self._rule)
        self._most: int = self._ranks.told(lambda: most)
        self._known: dict[str, str] = {}
        self._heard = 0

    def recall(self) -> None:
        """Count what an earlier part of this training met and what still cannot be read."""
        noted: list[str] = self._ranks.told(self._books.damaged)
        if not noted:
            return
        wanted, keys = set(noted), split_up(self._split.images.identities[self._split.rows])
        rows = [row for row, key in enumerate(keys) if key.hex() in wanted]
        told = in_parallel(self._damage, rows, "Reading images that were damaged")
        found = {why: keys[row].hex() for row, why in zip(rows, told, strict=True) if why}
        for of_rank in self._ranks.values(found):
            self._known |= of_rank

    def _damage(self, row: int) -> str:
        try:
            self._split.image(row)
        except DamagedImage as error:
            return error.told
        except DataError:
            return ""  # such as a shard that is missing: the step that needs it tells that
        return ""

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """This process's batches of steps `first` to `last` - 1.

        Raises:
            NoBatch: A process has none, or too many images are damaged.
        """
        with closing(self._trainer.stream.batches(first, last)) as stream:
            for step in range(first, last):
                batch, error = _next(stream)
                self._agree(step, error)
                if batch is not None:
                    yield batch

    def _agree(self, step: int, error: DataError | None) -> None:
        """Go on, or end in all processes."""
        met = len(self._trainer.stream.damaged)
        flags = torch.tensor([error is not None, met > self._heard], dtype=torch.float32)
        self._ranks.sum_(flags)
        fails, news = flags.tolist()
        if news:
            self._hear(step)
        if len(self._known) > self._most:
            split = self._split
            raise NoBatch(too_many(list(self._known), len(split), split.name, self._rule))
        if fails:
            raise NoBatch(error)

    def _hear(self, step: int) -> None:
        """Tell all processes, the person and the log of images that were met."""
        met = list(self._trainer.stream.damaged.items())[self._heard :]
        self._heard += len(met)
        rows = np.array([row for row, _ in met], dtype=np.int64)
        keys = split_up(self._split.images.identities[self._split.rows[rows]])
        own = {why: key.hex() for key, (_, why) in zip(keys, met, strict=True)}
        before = len(self._known)
        for of_rank in self._ranks.values(own):
            for why, key in of_rank.items():
                if why not in self._known:
                    self._known[why] = key
                    self._books.note_damaged(step, key, why)
        _tell(list(self._known), before, self._most)


def _next(stream: Iterator[Batch]) -> tuple[Batch | None, DataError | None]:
    try:
        return next(stream), None
    except DataError as error:
        return None, error


def _tell(known: list[str], before: int, most: int) -> None:
    """Name the first images, then say their number, each time it has doubled."""
    for why in known[before:TOLD]:
        say(f"note: a training image cannot be read; another takes its place: {why}.")
    if len(known) > TOLD and len(known).bit_length() > max(before, TOLD).bit_length():
        say(
            f"note: {len(known):,} training images cannot be read so far, of {most:,} that are "
            "done without; log.jsonl names them."
        )
