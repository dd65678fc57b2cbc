"""Today's images on the sides that a run's record has them on: none changes sides."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elastic_nas.data.identity import split_up
from elastic_nas.data.record import LEFT_OUT, SIDES, DataRecord
from elastic_nas.data.split import Source, Split
from elastic_nas.errors import ConfigError

MOST_LOST = 0.01
"""Part of a side's images that a stage may go on without."""

TOLD = 3
"""Images of a kind that are named."""


@dataclass(frozen=True)
class Lost:
    """What is not there any more of one side.

    Attributes:
        side: Of `SIDES`.
        n: Images that it had.
        vanished: Names of those that are nowhere.
        changed: Names of those that hold another picture, or lie in another class, now.
    """

    side: str
    n: int
    vanished: tuple[str, ...]
    changed: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.vanished) + len(self.changed)

    def told(self) -> str:
        """``2 of 90 test images vanished (cat/1.png, cat/2.png), 1 changed (dog/1.png)``."""
        kinds = (("vanished", self.vanished), ("changed", self.changed))
        texts = [f"{len(names):,} {kind} ({_some(names)})" for kind, names in kinds if names]
        return f"of {self.n:,} {self.side} images {' and '.join(texts)}"


@dataclass(frozen=True)
class Tied:
    """A source tied to a record.

    Attributes:
        splits: Today's images of each side, in the record's order, by the name of the side.
        lost: Of each side that lost any.
        new: Names of images that the record does not know; they are on no side.
    """

    splits: dict[str, Split]
    lost: tuple[Lost, ...]
    new: tuple[str, ...]


def tie(record: DataRecord, source: Source, place: str) -> Tied:
    """Put today's images on the sides that they were on.

    Args:
        record: Of the run.
        source: Today's images.
        place: The run, for messages.

    Raises:
        ConfigError: Classes or parts differ, or images lie in other parts now; both sides are
            named.
    """
    _check_classes(record, source, place)
    _check_parts(record, source, place)
    found_N = _matched(record, source, place)
    names = {part: list(of.names) for part, of in source.parts.items()}
    splits, lost = {}, []
    for number, side in enumerate(SIDES):
        mine_N = np.flatnonzero(record.sides_N == number)
        part = record.head.given[int(record.parts_N[mine_N[0]])] if len(mine_N) else None
        of = source.parts[part or record.head.given[0]]
        rows = found_N[mine_N]
        right = rows >= 0
        right[right] = of.labels[rows[right]] == record.labels_N[mine_N[right]]
        splits[side] = Split(side, of.labels[rows[right]], of.images, rows[right])
        gone = mine_N[~right]
        if len(gone):
            lost.append(_lost(record, side, len(mine_N), gone, found_N, set(names[part or ""])))
    new = _unknown(record, source, found_N, names)
    return Tied(splits, tuple(lost), new)


def _lost(
    record: DataRecord,
    side: str,
    n: int,
    gone: NDArray[np.int64],
    found_N: NDArray[np.int64],
    today: set[str],
) -> Lost:
    changed = [bool(found_N[row] >= 0 or record.names[row] in today) for row in gone.tolist()]
    pairs = list(zip((record.names[row] for row in gone.tolist()), changed, strict=True))
    return Lost(
        side,
        n,
        tuple(name for name, other in pairs if not other),
        tuple(name for name, other in pairs if other),
    )


def _unknown(
    record: DataRecord, source: Source, found_N: NDArray[np.int64], names: dict[str, list[str]]
) -> tuple[str, ...]:
    """Names of today's images that match nothing in the record."""
    new: list[str] = []
    for number, part in enumerate(record.head.given):
        mine_N = record.parts_N == number
        fresh = np.ones(len(source.parts[part].labels), dtype=bool)
        fresh[found_N[mine_N & (found_N >= 0)]] = False
        changed = {record.names[row] for row in np.flatnonzero(mine_N & (found_N < 0)).tolist()}
        today = (names[part][row] for row in np.flatnonzero(fresh).tolist())
        new += [name for name in today if name not in changed]
    return tuple(new)


def _matched(record: DataRecord, source: Source, place: str) -> NDArray[np.int64]:
    """For each image of the record today's row in its part, or -1: (n,).

    Copies are told apart by their names, as far as these are the same; then by their order.
    """
    found_N = np.full(len(record.labels_N), -1, dtype=np.int64)
    keys = split_up(record.identities)
    spare: dict[str, dict[bytes, list[int]]] = {}
    for number, part in enumerate(record.head.given):
        mine = np.flatnonzero(record.parts_N == number).tolist()
        of = source.parts[part]
        waiting: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
        rows = zip(split_up(of.images.identities), of.names, strict=True)
        for row, (key, name) in enumerate(rows):
            waiting[key].append((name, row))
        for exact in (True, False):
            for index in mine:
                if found_N[index] < 0 and (here := waiting.get(keys[index])):
                    _take(here, record.names[index] if exact else None, found_N, index)
        spare[part] = {key: [row for _, row in here] for key, here in waiting.items() if here}
    _check_sides(record, found_N, keys, spare, place)
    return found_N


def _take(
    here: list[tuple[str, int]], name: str | None, found_N: NDArray[np.int64], index: int
) -> None:
    """Give an image of the record one of today's copies: that of its name, or the first."""
    for at, (called, row) in enumerate(here):
        if name in (None, called):
            found_N[index] = row
            del here[at]
            return


def _check_sides(
    record: DataRecord,
    found_N: NDArray[np.int64],
    keys: list[bytes],
    spare: dict[str, dict[bytes, list[int]]],
    place: str,
) -> None:
    """Refuse images that were moved from one part into another.

    Raises:
        ConfigError: There are some.
    """
    moved: dict[tuple[str, str], list[str]] = defaultdict(list)
    for index in np.flatnonzero((found_N < 0) & (record.sides_N != LEFT_OUT)).tolist():
        was = record.head.given[record.parts_N[index]]
        for now, here in spare.items():
            if now != was and keys[index] in here:
                moved[was, now].append(record.names[index])
    if moved:
        (was, now), names = next(iter(moved.items()))
        raise ConfigError(
            f"{len(names):,} images that {place} had in {was} lie in {now} now ({_some(names)}): "
            "images that were trained on would be tested with, or the other way round. Move them "
            "back, or train in another folder with --out."
        )


def _check_classes(record: DataRecord, source: Source, place: str) -> None:
    check_same_classes(record.classes, source.classes, place, source.place)


def check_same_classes(then: tuple[str, ...], now: tuple[str, ...], place: str, where: str) -> None:
    """Refuse images of other classes, or of the same in another order.

    Raises:
        ConfigError: Both lists are named.
    """
    if then == now:
        return
    gone, more = sorted(set(then) - set(now)), sorted(set(now) - set(then))
    told = [f"gone: {_some(gone, 10)}"] * bool(gone) + [f"new: {_some(more, 10)}"] * bool(more)
    what = "; ".join(told) or "the same classes in another order"
    raise ConfigError(
        f"{place} was trained on other classes than {where!r} has now ({what}).\n"
        f"  then ({len(then):,}): {_some(then, 10)}\n"
        f"  now ({len(now):,}): {_some(now, 10)}\n"
        "Its answers would get wrong names. Bring the classes back as they were, or train in "
        "another folder with --out."
    )


def _check_parts(record: DataRecord, source: Source, place: str) -> None:
    then, now = record.head.given, list(source.parts)
    if set(then) != set(now):
        words = [
            " and ".join(parts).replace("all", "one part that is split") for parts in (then, now)
        ]
        raise ConfigError(
            f"{place} was trained on images that came as {words[0]}; {source.place!r} has "
            f"{words[1]} now. Images that were trained on would be tested with: bring them back as "
            "they were, or train in another folder with --out."
        )


def _some(names: tuple[str, ...] | list[str], most: int = TOLD) -> str:
    more = [f"and {len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*map(repr, names[:most]), *more])


def check_lost(
    tied: Tied, place: str, *, accept: bool, strictly: bool, say: Callable[[str], None]
) -> None:
    """Tell what has changed of the images, and refuse where it is too much.

    Args:
        tied: What was found.
        place: The run, for messages.
        accept: Go on without the missing ones.
        strictly: Go on without none of them.
        say: Tells a person.

    Raises:
        ConfigError: More is missing than may be, or all images of a side.
    """
    if tied.new:
        say(
            f"note: {len(tied.new):,} images that {place} does not know are left out "
            f"({_some(tied.new)})."
        )
    told = "; ".join(lost.told() for lost in tied.lost)
    empty = [side for side, split in tied.splits.items() if not len(split)]
    if empty:
        raise ConfigError(
            f"none of the {' and '.join(empty)} images of {place} are there now: {told}. If they "
            "were moved, name their new place with --data; else bring them back."
        )
    if not tied.lost:
        return
    much = strictly or any(len(lost) > MOST_LOST * lost.n for lost in tied.lost)
    if much and not accept:
        raise ConfigError(
            f"images that {place} was trained with are missing: {told}. Bring them back (if they "
            "were moved, name their new place with --data), or go on without them: --set "
            "data.missing=accept"
        )
    left = ", ".join(f"{len(split):,} {side}" for side, split in tied.splits.items())
    say(f"note: {told}: left out; going on with {left} images.")
