"""Splitting by class, the same on every machine."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


def stratified(
    names: Iterable[str], labels: NDArray[np.int64], shares: Sequence[float], seed: int
) -> list[NDArray[np.int64]]:
    """Disjoint indices for each share, then for the rest, each ascending.

    Of each class, every share gets its rounded part, but at least one image. Within a class the
    images are ordered by a hash of seed and name: that depends neither on the order of the files
    nor on a library's generator, and new files hardly move the old ones.

    Args:
        names: One an image, unique.
        labels: Class indices, (n,); each class has more images than there are shares.
        shares: Fractions of each class, above 0, with a sum below 1.
        seed: Another seed, another split.
    """
    keys = np.array([sha256(_bytes(f"{seed}/{name}")).digest() for name in names], dtype="S32")
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shuffled = members[np.argsort(keys[members], kind="stable")]
        sizes = [max(1, round(share * len(members))) for share in shares]
        pieces = np.split(shuffled, np.cumsum(sizes))
        for part, piece in zip(parts, pieces, strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
