"""Which of today's images is which of a record's: by content, copies by class, name and order."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elastic_nas.data.identity import WIDTH

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images by what they are matched by.

    Attributes:
        identities: See `identity`, (n, 16).
        labels_N: Class indices.
        names: What each is called.
    """

    identities: NDArray[np.uint8]
    labels_N: Indices
    names: Sequence[str]


def matched(then: Labelled, now: Labelled, used_N: NDArray[np.bool_]) -> Indices:
    """For each image of `then` the row in `now` that holds its content, or -1: (n,).

    No row is given twice. Among copies an image gets one of its class and name, else one of its
    class, else any; images that are used choose before those that are not.

    Args:
        then: Images of a record.
        now: Those of today.
        used_N: Which of `then` are on a side.
    """
    numbers = numbered(np.concatenate([then.identities, now.identities]))
    before, after = numbers[: len(then.labels_N)], numbers[len(then.labels_N) :]
    many = int(numbers.max(initial=-1)) + 1
    had, has = np.bincount(before, minlength=many), np.bincount(after, minlength=many)
    row_of = np.full(many, -1, dtype=np.int64)
    row_of[after] = np.arange(len(after))
    alone = ((had == 1) & (has == 1))[before]
    found_N = np.where(alone, row_of[before], -1)
    copies = (has > 0) & (had > 0) & ((had > 1) | (has > 1))
    if copies.any():
        _match_copies(then, now, used_N, (before, after), copies, found_N)
    return found_N


def numbered(identities: NDArray[np.uint8]) -> Indices:
    """A number for each identity, the same where these are equal, (n,), from 0 without gaps."""
    halves = np.ascontiguousarray(identities).view("<u8").reshape(-1, WIDTH // 8)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    numbers = np.zeros(len(order), dtype=np.int64)
    numbers[order[1:]] = np.cumsum((ordered[1:] != ordered[:-1]).any(axis=1))
    return numbers


def _match_copies(
    then: Labelled,
    now: Labelled,
    used_N: NDArray[np.bool_],
    numbers: tuple[Indices, Indices],
    copies: NDArray[np.bool_],
    found_N: Indices,
) -> None:
    """Match the images whose content is there more than once, in place."""
    before, after = numbers
    mine, free = np.flatnonzero(copies[before]), np.flatnonzero(copies[after])
    used, others = mine[used_N[mine]].tolist(), mine[~used_N[mine]].tolist()

    def exact(of: Labelled, number: Indices, row: int) -> tuple[object, ...]:
        return number[row], of.labels_N[row], of.names[row]

    def of_class(of: Labelled, number: Indices, row: int) -> tuple[object, ...]:
        return number[row], of.labels_N[row]

    def any_(of: Labelled, number: Indices, row: int) -> tuple[object, ...]:
        return (number[row],)

    Key = Callable[[Labelled, Indices, int], tuple[object, ...]]
    steps: list[tuple[list[int], Key]] = [
        (used, exact), (used, of_class), (others, exact), (used, any_), (others, any_),
    ]  # fmt: skip
    left = free.tolist()
    for rows, key in steps:
        waiting: dict[tuple[object, ...], deque[int]] = defaultdict(deque)
        for row in left:
            waiting[key(now, after, row)].append(row)
        for row in rows:
            if found_N[row] < 0 and (here := waiting.get(key(then, before, row))):
                found_N[row] = here.popleft()
        taken = set(found_N[mine].tolist())
        left = [row for row in left if row not in taken]
