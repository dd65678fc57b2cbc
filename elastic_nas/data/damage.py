"""Images that cannot be read: how many may be done without, and how that is told."""

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import DataError

Rule = Literal["skip", "stop"]
"""What is done about an image that cannot be read: it is left out, as long as there are few; or
nothing goes on."""

MOST_DAMAGED = 0.01
"""Share of a split that may be left out."""

TOLD = 5
"""Images that are named; of more, the number is told."""


def allowed(images: int, rule: Rule, of: int | None = None) -> int:
    """How many of these images may be damaged: 1 %, rounded down.

    Of images that were drawn from a larger split, as many as chance may bring where 1 % of that
    split is damaged (three standard deviations more), and at most 1 % of the split.

    Args:
        images: Their number.
        rule: ``stop`` allows none.
        of: Size of the split that they were drawn from.
    """
    if rule == "stop":
        return 0
    usual = MOST_DAMAGED * images
    if of is None or of == images:
        return int(usual)
    return int(min(usual + 3 * usual**0.5, MOST_DAMAGED * of))


def listed(told: Collection[str]) -> str:
    """The first of some damaged images with the reasons, and how many more there are."""
    more = [f"and {len(told) - TOLD:,} more"] if len(told) > TOLD else []
    return "; ".join([*islice(told, TOLD), *more])


def too_many(told: Collection[str], images: int, name: str, rule: Rule) -> DataError:
    """Why nothing goes on.

    Args:
        told: Each damaged image with the reason.
        images: Among how many they were found.
        name: Of the split.
        rule: What the run file says.
    """
    if rule == "stop":
        why = "and data.damaged is stop"
        way = ", or leave up to 1 % of them out: --set data.damaged=skip"
    else:
        why, way = f"more than the {MOST_DAMAGED:.0%} that are done without", ""
    return DataError(
        f"{len(told):,} of {images:,} {name} images cannot be read, {why}: {listed(told)}. Put "
        f"sound copies in their places{way}; a training goes on with --resume (where these are "
        "others than it was begun with, as in a new shard: --set data.missing=accept)."
    )


def stand_ins(labels_N: NDArray[np.int64], index: int) -> Iterator[int]:
    """The images that may take the place of one, the best first.

    Those of its class come first, then the others; both from the next one on and around, so that
    the choice depends on nothing but which images are damaged.
    """
    after = np.roll(np.arange(len(labels_N)), -index)[1:]
    alike = labels_N[after] == labels_N[index]
    yield from after[alike].tolist()
    yield from after[~alike].tolist()
