"""The sides of a training that begins with another run's weights: no image of that run changes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elastic_nas.data.matching import Indices, numbered
from elastic_nas.data.record import LEFT_OUT, SIDES, DataRecord
from elastic_nas.data.split import Source, Split
from elastic_nas.data.tied import MOST_LOST
from elastic_nas.errors import ConfigError, some
from elastic_nas.progress import say

Sides = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Known:
    """What a record knows of a part of a source.

    Attributes:
        sides_N: The side that each image was drawn for, or `LEFT_OUT`; changed in place.
        may_N: Bits of the sides that each was on in the record; 0: it is new.
        names: What each is called.
        open: Bits of the sides that the part is drawn for.
    """

    sides_N: Sides
    may_N: Sides
    names: list[str]
    open: int


def sides_of(source: Source, splits: Mapping[str, Split]) -> dict[str, Sides]:
    """For each part the side that each of its images is on, (n,); `LEFT_OUT` where on none."""
    sides = {part: np.full(len(of.labels), LEFT_OUT, np.uint8) for part, of in source.parts.items()}
    for number, side in enumerate(SIDES):
        sides[part_of(source, splits[side])][splits[side].rows] = number
    return sides


def part_of(source: Source, split: Split) -> str:
    """The part that a split's images are of."""
    return next(name for name, part in source.parts.items() if part.images is split.images)


def kept_on_sides(
    record: DataRecord, source: Source, drawn: dict[str, Split], place: str, *, accept: bool
) -> dict[str, Split]:
    """Splits in which each image that a run knows is on the side that it had there.

    New images stay on the side that they were drawn for; a new copy of a known picture that was
    drawn for another side is left out.

    Args:
        record: Of the run whose weights the training begins with.
        source: Today's images.
        drawn: Their splits, as if there were no such run.
        place: The run, for messages.
        accept: Go on where more than a few of the run's images are missing.

    Raises:
        ConfigError: An image of one side lies in a part of another, or too many are missing.
    """
    parts = _known(record, source, drawn, place, accept=accept)
    if parts is None:
        return drawn
    refused: list[str] = []
    for part, known in parts.items():
        _keep(known, refused)
        _drop_copies(known, source.parts[part].pixels_NB)
    if refused:
        raise ConfigError(
            f"{len(refused):,} images that {place} was trained, selected or tested on lie in a "
            f"part of another side now ({some(refused)}): images that were trained on would be "
            "tested with, or the other way round. Move them back, or train without --init."
        )
    splits = {}
    for number, side in enumerate(SIDES):
        name = part_of(source, drawn[side])
        rows = np.flatnonzero(parts[name].sides_N == number)
        if not len(rows):
            raise ConfigError(f"{place} leaves no {side} images of {source.place!r}. Add some.")
        splits[side] = Split(side, source.parts[name].labels[rows], drawn[side].images, rows)
    return splits


def _known(
    record: DataRecord, source: Source, drawn: dict[str, Split], place: str, *, accept: bool
) -> dict[str, _Known] | None:
    """What is known of each part; None where the run knows no image at all."""
    today = [part.images.identities for part in source.parts.values()]
    numbers = numbered(np.concatenate([record.identities, *today]))
    before = numbers[: len(record.labels_N)]
    may = np.zeros(int(numbers.max()) + 1, dtype=np.uint8)
    used = record.sides_N != LEFT_OUT
    np.bitwise_or.at(may, before[used], np.left_shift(1, record.sides_N[used]).astype(np.uint8))
    here = np.zeros(len(may), dtype=bool)
    here[numbers[len(before) :]] = True
    if not here[before[used]].any():
        say(
            f"note: none of these images is one of {place}: this is another data set, which is "
            "split by itself and resized and normalised as there."
        )
        return None
    _check_missing(record, here[before], place, accept=accept)
    sides, at, parts = sides_of(source, drawn), len(before), {}
    for name, of in source.parts.items():
        mine = may[numbers[at : at + len(of.labels)]]
        at += len(of.labels)
        bits = sum(1 << i for i, s in enumerate(SIDES) if part_of(source, drawn[s]) == name)
        parts[name] = _Known(sides[name], mine, list(of.names), bits)
    new = sum(int(np.count_nonzero(known.may_N == 0)) for known in parts.values())
    say(f"note: the images of {place} keep their sides; {new:,} others are new here.")
    return parts


def _check_missing(
    record: DataRecord, here_N: NDArray[np.bool_], place: str, *, accept: bool
) -> None:
    told, much = [], False
    for number, side in enumerate(SIDES):
        of = record.sides_N == number
        gone = np.flatnonzero(of & ~here_N)
        if len(gone):
            names = [record.names[row] for row in gone.tolist()]
            told.append(f"of {np.count_nonzero(of):,} {side} images {len(gone):,} ({some(names)})")
            much = much or len(gone) > MOST_LOST * int(np.count_nonzero(of))
    if much and not accept:
        raise ConfigError(
            f"images that {place} knows are missing here: {'; '.join(told)}. Bring them back, or "
            "go on without them: --set data.missing=accept"
        )
    if told:
        say(f"note: images that {place} knows are missing here: {'; '.join(told)}.")


def _keep(known: _Known, refused: list[str]) -> None:
    """Put known images on their sides; names of those that cannot be are added to `refused`."""
    on_some = (known.may_N > 0) & (known.sides_N != LEFT_OUT)
    right = (known.may_N >> known.sides_N) & 1 == 1
    rows = np.flatnonzero(on_some & ~right)
    possible = known.may_N[rows] & known.open
    refused += [known.names[row] for row in rows[possible == 0].tolist()]
    lowest = np.array([LEFT_OUT, 0, 1, 0, 2, 0, 1, 0], dtype=np.uint8)
    known.sides_N[rows] = lowest[possible]


def _drop_copies(known: _Known, pixels_NB: NDArray[np.uint8] | None) -> None:
    """Leave out new images that show the picture of a known one of another side."""
    if pixels_NB is None:
        return
    numbers: Indices = numbered(pixels_NB)
    on = (known.may_N > 0) & (known.sides_N != LEFT_OUT)
    taken = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.uint8)
    np.bitwise_or.at(taken, numbers[on], np.left_shift(1, known.sides_N[on]).astype(np.uint8))
    shown = taken[numbers]
    other = (shown > 0) & ((shown >> known.sides_N) & 1 == 0)
    known.sides_N[other & (known.may_N == 0)] = LEFT_OUT
