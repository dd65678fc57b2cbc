"""What a person is told of a data set before anything is trained on it."""

from collections.abc import Sequence

import numpy as np

from elastic_nas.data.dataset import Dataset

CLASSES = 10
"""Classes that are listed; of more, a count follows."""
WIDTH = 34
"""Characters of a class's name in the table."""


def table(data: Dataset) -> str:
    """The classes with the number of images of each side, and what was left out.

    Lines of at most 80 columns::

        photos: 3 classes; images of each side:
                         train  search-validation  test
          cat               70                 15    15
          ...
          all 3            210                 45    45
    """
    splits = (data.train, data.validation, data.test)
    counts = np.stack([np.bincount(s.labels, minlength=len(data.labels)) for s in splits], axis=1)
    shown = [_short(name) for name in data.labels[:CLASSES]]
    more = len(data.labels) - len(shown)
    first = max(map(len, [*shown, f"all {len(data.labels):,}"]))
    lines = [f"{data.name}: {len(data.labels):,} classes; images of each side:"]
    lines.append(_line("", [split.name for split in splits], first))
    rows = zip(shown, counts[:CLASSES].tolist(), strict=True)
    lines += [_line(name, [f"{count:,}" for count in row], first) for name, row in rows]
    if more > 0:
        lines.append(f"  and {more:,} more classes")
    totals = [f"{count:,}" for count in counts.sum(axis=0).tolist()]
    lines.append(_line(f"all {len(data.labels):,}", totals, first))
    for split, of_class in zip(splits, counts.T, strict=True):
        none = np.flatnonzero(of_class == 0).tolist()
        if none:
            names = ", ".join(repr(data.labels[index]) for index in none[:3])
            extra = f" and {len(none) - 3:,} more" if len(none) > 3 else ""
            lines.append(f"  without {split.name} images: {names}{extra}")
    return "\n".join(lines)


def _short(name: str) -> str:
    return name if len(name) <= WIDTH else f"{name[: WIDTH - 3]}..."


def _line(name: str, cells: Sequence[str], first: int) -> str:
    widths = (9, 17, 9)
    columns = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"  {name:<{first}}  {'  '.join(columns)}"
