"""Equal pictures: never on two sides of a split, never of two classes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elastic_nas import progress
from elastic_nas.data.shards import ShardImages
from elastic_nas.data.split import Part, Source

TOLD = 5
"""Groups of equal pictures in two classes that are named."""

KEPT = "kept"
"""What is done with copies that do no harm, or all where they are to stay."""

LAST = ("all", "train", "val", "test")
"""Parts; a picture in several of them stays in the last."""


@dataclass(frozen=True, eq=False)
class Usable:
    """The images of a part that are on any side.

    Attributes:
        rows: Their indices, ascending.
        copied: Whether each has copies in this part: such are not drawn, but trained on.
        pictures: Different pictures of each class, by label.
        single: Those of them without copies, by label.
    """

    rows: NDArray[np.int64]
    copied: NDArray[np.bool_]
    pictures: NDArray[np.int64]
    single: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sorted:
    """A source without what would deceive.

    Attributes:
        parts: Which images of each part are used.
        counts: Numbers of images by what was done with them.
        notes: The same for a person, with examples.
    """

    parts: Mapping[str, Usable]
    counts: Mapping[str, int]
    notes: tuple[str, ...]

    def tell(self) -> None:
        """Print what was done."""
        for note in self.notes:
            progress.say(note)


def sort_out(source: Source, rule: str) -> Sorted:
    """Find equal pictures and leave out those that would be on two sides or in two classes.

    A picture in several parts stays in test, else in val; its copies elsewhere are left out. Of one
    in two classes, all copies are left out. Copies in one part and class stay; they are trained on
    where the part is split. Images behind URLs are not looked at.

    Args:
        source: All images.
        rule: ``drop``; or ``keep``: they are counted alone.
    """
    return _Sorter(source).sorted(drop=rule == "drop")


class _Sorter:
    """All images of a source in one row, in the order of its parts, and which are equal."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.parts = list(source.parts.items())
        sizes = [len(part.labels) for _, part in self.parts]
        self.starts = np.cumsum([0, *sizes])
        self.labels = np.concatenate([part.labels for _, part in self.parts])
        order = [LAST.index(name) for name, _ in self.parts]
        self.ranks = np.repeat(np.array(order, np.int64), sizes)
        self.pictures = _pictures([part for _, part in self.parts])
        self.groups = int(self.pictures.max(initial=-1)) + 1
        self.copied = np.bincount(self.pictures, minlength=self.groups)[self.pictures] > 1

    def sorted(self, drop: bool) -> Sorted:
        """See `sort_out`."""
        done = "left out" if drop else KEPT
        kinds: list[tuple[str, str, NDArray[np.bool_]]] = []
        torn = self._differs(self.labels)
        kinds.append(("in two classes", done, torn))
        last = self._most(self.ranks)
        moved = ~torn & (self.ranks < last)
        for name, _ in self.parts:
            for other in LAST[LAST.index(name) + 1 :]:
                here, there = self.ranks == LAST.index(name), last == LAST.index(other)
                what = f"{done} of {name}" if drop else done
                kinds.append((f"in {name} and {other}", what, moved & here & there))
        stays = ~(torn | moved)
        again = stays & self._again(stays)
        kinds.append(("copies in one part and class", KEPT, again))
        found = [(kind, what, rows) for kind, what, rows in kinds if rows.any()]
        return Sorted(
            self._usable(stays, again) if drop else self._all(),
            {f"{kind}: {what}": int(rows.sum()) for kind, what, rows in found},
            tuple(self._note(kind, what, rows, drop) for kind, what, rows in found),
        )

    def _most(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The largest value among the copies of each image."""
        most = np.full(self.groups, -1, np.int64)
        np.maximum.at(most, self.pictures, values)
        return most[self.pictures]

    def _differs(self, values: NDArray[np.int64]) -> NDArray[np.bool_]:
        largest = int(values.max(initial=0))
        different: NDArray[np.bool_] = self._most(values) != largest - self._most(largest - values)
        return different

    def _again(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which images have copies among these."""
        counts = np.bincount(self.pictures[rows], minlength=self.groups)
        several: NDArray[np.bool_] = counts[self.pictures] > 1
        return several

    def _usable(self, stays: NDArray[np.bool_], again: NDArray[np.bool_]) -> dict[str, Usable]:
        parts = {}
        for number, (name, part) in enumerate(self.parts):
            here = slice(self.starts[number], self.starts[number + 1])
            rows = np.flatnonzero(stays[here])
            labels, copied = part.labels[rows], again[here][rows]
            pictures = self.pictures[here][rows]
            first = np.zeros(len(rows), dtype=bool)
            first[np.unique(pictures, return_index=True)[1]] = True
            classes = len(self.source.classes)
            parts[name] = Usable(
                rows,
                copied,
                np.bincount(labels[first], minlength=classes),
                np.bincount(labels[~copied], minlength=classes),
            )
        return parts

    def _all(self) -> dict[str, Usable]:
        parts = {}
        for name, part in self.parts:
            rows = np.arange(len(part.labels))
            count = np.bincount(part.labels, minlength=len(self.source.classes))
            parts[name] = Usable(rows, np.zeros(len(rows), dtype=bool), count, count)
        return parts

    def _note(self, kind: str, what: str, rows: NDArray[np.bool_], drop: bool) -> str:
        several = kind == "in two classes"
        told = self._examples(rows, TOLD if several else 1)
        if kind.startswith("copies"):
            trained = (
                what if len(self.parts) == 3 else "kept, on the training side of what is split"
            )
            return f"note: {int(rows.sum()):,} images are {kind}: {trained}, such as\n{told}"
        how = "data.duplicates=keep keeps them" if drop else "data.duplicates=drop leaves them out"
        return f"note: {int(rows.sum()):,} images lie {kind}: {what} (--set {how}), such as\n{told}"

    def _examples(self, rows: NDArray[np.bool_], most: int) -> str:
        """Lines of equal pictures, one a line, by name."""
        groups, at = np.unique(self.pictures[rows], return_index=True)
        chosen = groups[np.argsort(at)][:most]
        names = [list(part.names) for _, part in self.parts]
        lines = []
        for group in chosen:
            same = np.flatnonzero(self.pictures == group)
            ends = same[[0, -1]] if self.labels[same[0]] != self.labels[same[-1]] else same[:2]
            if len({int(self.ranks[row]) for row in same}) > 1:
                ends = same[[0, -1]]
            lines.append("  " + " = ".join(self._called(int(row), names) for row in ends))
        more = len(groups) - len(chosen)
        return "\n".join([*lines, *[f"  and {more:,} more pictures"] * bool(more)])

    def _called(self, row: int, names: list[list[str]]) -> str:
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        part, within = self.parts[number][1], row - int(self.starts[number])
        name = part.where(within) if isinstance(part.images, ShardImages) else names[number][within]
        return f"{name!r} (class {self.source.classes[self.labels[row]]!r})"


def _pictures(parts: list[Part]) -> NDArray[np.int64]:
    """A number of each image's picture, equal where pictures are."""
    total = sum(len(part.labels) for part in parts)
    if not all(getattr(part.images, "by_content", True) for part in parts):
        return np.arange(total)
    pixels = [part.pixels_NB for part in parts]
    keys = [one for one in pixels if one is not None]
    if len(keys) < len(parts):
        keys = [part.images.identities for part in parts]
    joined = np.ascontiguousarray(np.concatenate(keys))
    numbers = np.unique(joined.view(f"V{joined.shape[1]}").ravel(), return_inverse=True)[1]
    return numbers.astype(np.int64)
