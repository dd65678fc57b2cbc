"""Checking the files of a folder once: each is read as training reads it, and known from then on.

What was found is kept in the per-user folder while a file's size and times stand, so that a second
start decodes nothing; an interrupted check goes on where it was.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from filelock import Timeout

from elastic_nas import progress
from elastic_nas.config import DataConfig
from elastic_nas.data.damage import TOLD, allowed
from elastic_nas.data.identity import identity_of, stacked
from elastic_nas.data.images import (
    MOST_BYTES,
    SAY_PROGRESS_FROM,
    Examined,
    examine,
    in_parallel,
)
from elastic_nas.data.pixels import Reading, settled
from elastic_nas.data.seen import Seen, Stamp, load_seen, place_of, save_seen, stamp_of
from elastic_nas.data.split import FileImages, Part
from elastic_nas.errors import DataError, RunFolderError
from elastic_nas.files import writing
from elastic_nas.outside import open_file

CHECKED_UP_TO = 200_000
"""Images: all files of a folder that is not larger are decoded before anything else is done."""

AT_ONCE = 500
"""Files whose times one thread asks for: each takes so short that handing it over takes longer."""

SECONDS_BETWEEN_SAVES = 30.0
WAIT_S = 24 * 3600.0
"""For another process that checks the same images."""


@dataclass(frozen=True, eq=False)
class Checked:
    """What checking the files of a folder found.

    Attributes:
        root: The folder.
        seen: What each file is, by its name.
        reading: What the pixels mean.
        decoded: Whether they were decoded, or their bytes were hashed alone.
        unreadable: Files that are left out.
    """

    root: Path
    seen: Mapping[str, Seen]
    reading: Reading
    decoded: bool
    unreadable: int

    @property
    def left_out(self) -> dict[str, int]:
        """Numbers of files by why they are left out."""
        return {"unreadable": self.unreadable} if self.unreadable else {}

    def part(self, names: Sequence[str], labels: Sequence[int]) -> Part:
        """The readable ones of these files as a part of a source.

        Args:
            names: Below the root, with ``/``.
            labels: Class indices, one a file.
        """
        rows = [row for row, name in enumerate(names) if not self.seen[name].damage]
        kept = tuple(names[row] for row in rows)
        found = [self.seen[name] for name in kept]
        images = FileImages(self.root, kept, stacked(one.identity for one in found), self.reading)
        pixels = (one.examined.pixels or one.identity for one in found)
        labels_N = np.array([labels[row] for row in rows], dtype=np.int64)
        return Part(kept, labels_N, images, stacked(pixels) if self.decoded else None)


def check_files(
    root: Path, parts: Mapping[str, Sequence[str]], data: DataConfig, *, tied: bool = False
) -> Checked:
    """Read all files of a folder as they will be read, or know them from before.

    Args:
        root: The folder.
        parts: Names of files below it, with ``/``, by the part that they belong to.
        data: How they are read, and whether damaged ones are left out.
        tied: Whether they are held against a run, which knows what it needs: what cannot be read,
            or means nothing by what the run read, is left out.

    Raises:
        DataError: Too many cannot be read, or what their pixels mean is open.
    """
    names = [name for part in parts.values() for name in part]
    decoded = len(names) <= CHECKED_UP_TO
    given = Reading(data.bits, data.bands)
    seen = _all_seen(root, names, given, decoded)
    reading = given
    if tied:
        seen = {name: _without_meaning(one) for name, one in seen.items()}
    elif decoded:
        reading = settled(
            ((one.examined.open, one.examined.peak) for one in seen.values()), given, str(root)
        )
        seen = _again(root, seen, given, reading)
    unreadable = _check_damage(root, parts, seen, "tied" if tied else data.damaged)
    return Checked(root, seen, reading, decoded, unreadable)


def _without_meaning(one: Seen) -> Seen:
    """The same, damaged where what its pixels mean is open."""
    if not one.examined.open:
        return one
    damage = f"what its pixels mean is open ({one.examined.open}), which it was of no other image"
    return replace(one, examined=Examined(damage=damage))


def _again(root: Path, seen: dict[str, Seen], given: Reading, reading: Reading) -> dict[str, Seen]:
    """Examine those anew whose pixels mean something else than was known at first."""
    if reading == given:
        return seen
    clear = {
        name: one for name, one in seen.items() if not (one.examined.open or one.examined.peak)
    }
    return _all_seen(root, list(seen), reading, True, clear)


def _all_seen(
    root: Path,
    names: Sequence[str],
    reading: Reading,
    decode: bool,
    known: Mapping[str, Seen] | None = None,
) -> dict[str, Seen]:
    """What each file is: as it was kept, or looked at and kept; one process at a time looks.

    Args:
        root: The folder.
        names: Of all files.
        reading: What their pixels mean, as far as it is known.
        decode: Whether they are decoded.
        known: What is known of some.
    """
    place = place_of(root, reading)
    wanted = set(names)
    find = partial(_still_valid, root, place, wanted, decode)
    seen = find() | dict(known or {})
    if len(seen) == len(wanted):
        return _in_order(names, seen)
    with _alone(place):
        seen = find() | seen
        missing = [name for name in dict.fromkeys(names) if name not in seen]
        _look_at(root, missing, partial(_look, reading=reading, decode=decode), seen, place)
    return _in_order(names, seen)


def _in_order(names: Sequence[str], seen: Mapping[str, Seen]) -> dict[str, Seen]:
    return {name: seen[name] for name in names}


def _still_valid(root: Path, place: Path, names: set[str], decode: bool) -> dict[str, Seen]:
    """What was kept of the files that have not changed since."""
    kept = {
        name: one
        for name, one in load_seen(place).items()
        if name in names and (one.decoded or not decode)
    }
    rows = list(kept)
    some = [rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE)]
    stamps = in_parallel(partial(_stamps, root), some, "Looking at images")
    now = dict(pair for found in stamps for pair in found)
    return {name: one for name, one in kept.items() if one.stamp == now[name]}


def _stamps(root: Path, names: Sequence[str]) -> list[tuple[str, Stamp | None]]:
    return [(name, _stamp(os.path.join(root, name))) for name in names]


def _stamp(path: str) -> Stamp | None:
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):  # it is told when it is looked at
        return None


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Let other processes that check the same files wait; where none can be kept off, go on."""
    with ExitStack() as stack:
        try:
            stack.enter_context(writing(place))
        except RunFolderError as error:
            if isinstance(error.__cause__, Timeout):
                progress.say("Waiting for another process that checks the same images.")
                with suppress(RunFolderError):
                    stack.enter_context(writing(place, WAIT_S))
        yield


def _look_at(
    root: Path,
    names: Sequence[str],
    look: Callable[[Path], Seen],
    seen: dict[str, Seen],
    place: Path,
) -> None:
    """Look at files and add what they are to `seen`, which is kept now and then, and at the end."""
    many = len(names) >= SAY_PROGRESS_FROM
    title, total = "Checking images", len(seen) + len(names)
    with progress.track(title, total, len(seen)) if many else nullcontext() as tracker:
        saved, at, size = time.monotonic(), 0, 64
        try:
            while at < len(names):
                began = time.monotonic()
                some = names[at : at + size]
                found = in_parallel(look, [root / name for name in some], title)
                seen.update(zip(some, found, strict=True))
                if tracker:
                    tracker.advance(len(some))
                now = time.monotonic()
                at, size = at + len(some), _for_a_second(len(some), now - began)
                if now - saved > SECONDS_BETWEEN_SAVES:
                    save_seen(place, seen)
                    saved = now
        finally:
            save_seen(place, seen)


def _for_a_second(count: int, took_s: float) -> int:
    """Files to look at next, so that progress is told, and a wish to stop heard, every second."""
    return max(16, min(SAY_PROGRESS_FROM - 1, int(count / max(took_s, 1e-3))))


def _look(path: Path, reading: Reading, decode: bool) -> Seen:
    """What a file is, read now."""
    try:
        with open(open_file(path), "rb") as file:
            stamp = stamp_of(os.fstat(file.fileno()))
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Seen(None, b"", Examined(damage=reason), decode)
    examined = examine(content, reading) if decode else Examined()
    return Seen(stamp, identity_of(content), examined, decode)


def _check_damage(
    root: Path, parts: Mapping[str, Sequence[str]], seen: Mapping[str, Seen], rule: str
) -> int:
    """How many files cannot be read and are left out, after they were told.

    Raises:
        DataError: They are more than may be.
    """
    damaged = {part: [name for name in of if seen[name].damage] for part, of in parts.items()}
    lines = [f"  {name!r}: {seen[name].damage}" for names in damaged.values() for name in names]
    if not lines:
        return 0
    more = [f"  and {len(lines) - TOLD:,} more"] if len(lines) > TOLD else []
    total = sum(len(of) for of in parts.values())
    told = "\n".join(
        [
            f"{len(lines):,} of {total:,} images in {str(root)!r} cannot be read:",
            *lines[:TOLD],
            *more,
        ]
    )
    much = [part for part in parts if len(damaged[part]) > allowed(len(parts[part]), "skip")]
    if (much or rule == "stop") and rule != "tied":
        raise DataError(f"{told}\nDelete or replace them, then try again{_other_way(much, parts)}")
    progress.say(f"note: {told}\nThey are left out.")
    return len(lines)


def _other_way(much: Sequence[str], parts: Mapping[str, Sequence[str]]) -> str:
    """What can be done beside deleting damaged files."""
    if not much:
        return ", or leave them out: --set data.damaged=skip"
    most = allowed(len(parts[much[0]]), "skip")
    where = "images" if much[0] == "all" else f"{much[0]} images"
    return (
        f". Up to 1 % are left out for you, which is {most:,} of {len(parts[much[0]]):,} "
        f"{where}; here are more, and no setting of data.damaged takes them."
    )
