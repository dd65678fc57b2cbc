"""Today's images on the sides that a run's record has them on: none changes sides."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elastic_nas.data.class_names import alike
from elastic_nas.data.identity import split_up
from elastic_nas.data.matching import Labelled, matched
from elastic_nas.data.record import LEFT_OUT, SIDES, DataRecord
from elastic_nas.data.split import Source, Split
from elastic_nas.errors import ConfigError, some

MOST_LOST = 0.01
"""Part of a side's images that a stage may go on without."""

MOST_RELABELLED = 0.1
"""Of the images that are there, that may lie in another class now."""


@dataclass(frozen=True)
class Lost:
    """What is not there any more of one side.

    Attributes:
        side: Of `SIDES`.
        n: Images that it had.
        vanished: Names of those that are nowhere.
        changed: Names of those in whose place another picture lies now.
        relabelled: Names of those that lie in another class now.
    """

    side: str
    n: int
    vanished: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.vanished) + len(self.changed) + len(self.relabelled)

    def told(self) -> str:
        """``of 90 test images 2 vanished ('cat/1.png', 'cat/2.png') and 1 changed ('a.png')``."""
        kinds = (
            ("vanished", self.vanished),
            ("changed", self.changed),
            ("moved to another class", self.relabelled),
        )
        texts = [f"{len(names):,} {kind} ({some(names)})" for kind, names in kinds if names]
        return f"of {self.n:,} {self.side} images {' and '.join(texts)}"


@dataclass(frozen=True)
class Tied:
    """A source tied to a record.

    Attributes:
        splits: Today's images of each side, in the record's order, by the name of the side.
        lost: Of each side that lost any.
        new: Names of images that the record does not know; they are on no side.
        classes: Of the record.
    """

    splits: dict[str, Split]
    lost: tuple[Lost, ...]
    new: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def trained(self) -> set[str]:
        """Classes that have training images."""
        return {self.classes[label] for label in np.unique(self.splits[SIDES[0]].labels)}


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
    check_same_classes(record.classes, source.classes, place, source.place)
    _check_parts(record, source, place)
    used_N = record.sides_N != LEFT_OUT
    found_N = np.full(len(record.labels_N), -1, dtype=np.int64)
    fresh: dict[str, dict[str, int]] = {}
    for number, part in enumerate(record.head.given):
        of, mine_N = source.parts[part], np.flatnonzero(record.parts_N == number)
        then = Labelled(
            record.identities[mine_N],
            record.labels_N[mine_N],
            [record.names[row] for row in mine_N.tolist()],
        )
        now = Labelled(of.images.identities, of.labels, list(of.names))
        found_N[mine_N] = matched(then, now, used_N[mine_N])
        unknown = np.ones(len(of.labels), dtype=bool)
        unknown[found_N[mine_N][found_N[mine_N] >= 0]] = False
        fresh[part] = {now.names[row]: row for row in np.flatnonzero(unknown).tolist()}
    _check_sides(record, source, found_N, fresh, place)
    splits, lost = {}, []
    for number, side in enumerate(SIDES):
        mine_N = np.flatnonzero(record.sides_N == number)
        part = record.head.given[record.parts_N[mine_N[0]]]
        of, rows = source.parts[part], found_N[mine_N]
        right = (rows >= 0) & (of.labels[rows] == record.labels_N[mine_N])
        splits[side] = Split(side, of.labels[rows[right]], of.images, rows[right])
        if not right.all():
            lost.append(_lost(record, side, mine_N, right, found_N, fresh[part]))
    return Tied(splits, tuple(lost), _new(record, found_N, fresh), record.classes)


def _lost(
    record: DataRecord,
    side: str,
    mine_N: NDArray[np.int64],
    right: NDArray[np.bool_],
    found_N: NDArray[np.int64],
    fresh: Mapping[str, int],
) -> Lost:
    kinds: dict[str, list[str]] = {"vanished": [], "changed": [], "relabelled": []}
    for row in mine_N[~right].tolist():
        name = record.names[row]
        replaced = "changed" if name in fresh else "vanished"
        kinds["relabelled" if found_N[row] >= 0 else replaced].append(name)
    return Lost(side, len(mine_N), **{kind: tuple(names) for kind, names in kinds.items()})


def _new(
    record: DataRecord, found_N: NDArray[np.int64], fresh: Mapping[str, Mapping[str, int]]
) -> tuple[str, ...]:
    """Names of today's images that are in the record neither by content nor, changed, by name."""
    new: list[str] = []
    for number, part in enumerate(record.head.given):
        gone = np.flatnonzero((record.parts_N == number) & (found_N < 0)).tolist()
        changed = {record.names[row] for row in gone}
        new += [name for name in fresh[part] if name not in changed]
    return tuple(new)


def _check_sides(
    record: DataRecord,
    source: Source,
    found_N: NDArray[np.int64],
    fresh: Mapping[str, Mapping[str, int]],
    place: str,
) -> None:
    """Refuse images that were moved from one part into another.

    Raises:
        ConfigError: There are some.
    """
    moved: dict[tuple[str, str], list[str]] = defaultdict(list)
    gone = np.flatnonzero((found_N < 0) & (record.sides_N != LEFT_OUT))
    keys = dict(zip(gone.tolist(), split_up(record.identities[gone]), strict=True))
    for now, here in fresh.items():
        rows = np.array(list(here.values()), dtype=np.int64)
        there = set(split_up(source.parts[now].images.identities[rows]))
        for index, key in keys.items():
            was = record.head.given[record.parts_N[index]]
            if was != now and key in there:
                moved[was, now].append(record.names[index])
    if moved:
        told = "; ".join(
            f"{len(names):,} that were in {was} lie in {now} now ({some(names)})"
            for (was, now), names in moved.items()
        )
        raise ConfigError(
            f"images of {place} have changed sides: {told}. Images that were trained on would be "
            "tested with, or the other way round. Move them back, or train in another folder with "
            "--out."
        )


def check_same_classes(
    then: tuple[str, ...],
    now: tuple[str, ...],
    place: str,
    where: str,
    way: str = "train in another folder with --out",
) -> None:
    """Refuse images of other classes, or of the same in another order.

    Args:
        then: Of the run, in order.
        now: Of today's images.
        place: The run, for messages.
        where: The images, for messages.
        way: What to do where the classes are to stay as they are now.

    Raises:
        ConfigError: Both lists are named.
    """
    if then == now:
        return
    gone, more = sorted(set(then) - set(now)), sorted(set(now) - set(then))
    told = [f"gone: {some(gone, 10)}"] * bool(gone) + [f"new: {some(more, 10)}"] * bool(more)
    what = "; ".join(told) or _first_other(then, now)
    for name in gone:
        if spelt := [other for other in more if alike(other) == alike(name)]:
            what += f" ({name!a} is spelt {spelt[0]!a} now)"
    raise ConfigError(
        f"{place} was trained on {len(then):,} classes ({some(then, 10)}), and {where!r} has "
        f"{len(now):,} now ({some(now, 10)}): {what}. Its answers would get "
        f"wrong names. Bring the classes back as they were, or {way}."
    )


def _first_other(then: tuple[str, ...], now: tuple[str, ...]) -> str:
    """Where the same classes stand in another order."""
    at = next(index for index, pair in enumerate(zip(then, now, strict=True)) if len({*pair}) > 1)
    return f"the same classes in another order: number {at} was {then[at]!r} and is {now[at]!r} now"


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
            f"({some(tied.new)})."
        )
    told = "; ".join(lost.told() for lost in tied.lost)
    empty = [side for side, split in tied.splits.items() if not len(split)]
    if sum(len(lost.relabelled) for lost in tied.lost) > MOST_RELABELLED * sum(
        len(split) for split in tied.splits.values()
    ):
        raise ConfigError(
            f"many images that {place} was trained with lie in other classes now, as where class "
            f"folders were swapped or renamed: {told}. Put them back, or train in another folder "
            "with --out."
        )
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
    without = [name for name in tied.classes if name not in tied.trained]
    if without and strictly:
        raise ConfigError(
            f"no training images of {some(without)} are left, so that {place} cannot be trained "
            f"on: {told}. Bring them back (if they were moved, name their new place with --data)."
        )
    left = ", ".join(f"{len(split):,} {side}" for side, split in tied.splits.items())
    say(f"note: {told}: left out; going on with {left} images.")
