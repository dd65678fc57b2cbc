"""Fetching the shards that a training needs next, while it is busy with others."""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from elastic_nas.data.order import Order
from elastic_nas.data.split import Split

SHARDS_AHEAD = 3
"""Of about so many shards the images are fetched before their step comes."""


@contextmanager
def fetching_ahead(split: Split, order: Order, steps: range) -> Iterator[Callable[[int], None]]:
    """A thread fetches the shards of coming steps while the block runs.

    Args:
        split: What is trained on; nothing is done where its images lie in no shards.
        order: Which images a step shows.
        steps: That will be asked for.

    Yields:
        What to call with each step that is begun.
    """
    if split.shards is None or not len(steps):
        yield lambda step: None
        return
    per_shard = len(split) / (int(split.shards.max()) + 1)
    ahead = int(SHARDS_AHEAD * per_shard / len(order.of_step(steps[0]).indices)) + 1
    thread = _Fetcher(split, copy.copy(order), steps, ahead)
    thread.start()
    try:
        yield thread.begin
    finally:
        thread.stop()


class _Fetcher(threading.Thread):
    """Goes through the steps, at most `ahead` before the one that was begun last."""

    def __init__(self, split: Split, order: Order, steps: range, ahead: int) -> None:
        super().__init__(name="fetching ahead", daemon=True)
        self._split, self._order, self._steps, self._ahead = split, order, steps, ahead
        self._begun, self._stopped, self._changed = steps[0], False, threading.Condition()

    def begin(self, step: int) -> None:
        with self._changed:
            self._begun = step
            self._changed.notify()

    def stop(self) -> None:
        """End after the shard that is being fetched; nobody waits for that."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _may_fetch(self, step: int) -> bool:
        return self._stopped or step <= self._begun + self._ahead

    def run(self) -> None:
        for step in self._steps:
            with self._changed:
                self._changed.wait_for(partial(self._may_fetch, step))
                if self._stopped:
                    return
            try:
                self._split.fetch(self._order.of_step(step).indices)
            except Exception:
                return  # the step itself meets the same error, and tells it
