"""Which images a child was scored on, and which it was made from: kept with the export.

Two arrays of bytes. ``test_data/images.npy`` has a row for each test image: its identity and its
label. ``test_data/seen.npy`` has the first bytes of the identity of each image that the run was
trained or selected on, in the order of its splits: half of an identity is enough to tell that an
image is none of them, and a million take 8 MB. Names of files are not kept: they may tell of
people.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from elastic_nas.data.identity import WIDTH, digest_of
from elastic_nas.data.record import SIDES, DataRecord
from elastic_nas.data.split import Split
from elastic_nas.errors import ExportMismatch

SEEN_WIDTH = 8
"""Bytes of an identity that tell whether an image was seen: among a million seen images, one of
50,000 others is taken for one of them by chance of about 3e-9."""

_LABEL = np.dtype("<i4")


@dataclass(frozen=True, eq=False)
class KnownImages:
    """Images by their identities, see `data.identity`.

    Attributes:
        identities: Of the test images that the accuracy is of, (n, 16).
        labels_N: Their classes.
        seen: First bytes of the identities of training images, then of search-validation images,
            (m, 8).
    """

    identities: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    seen: NDArray[np.uint8]

    @classmethod
    def of(cls, record: DataRecord, test: Split) -> "KnownImages":
        """Those of a run.

        Args:
            record: All images that the run was given.
            test: Those that the child is scored on.
        """
        rows = [np.flatnonzero(record.sides_N == number) for number in range(len(SIDES) - 1)]
        seen = record.identities[np.concatenate(rows), :SEEN_WIDTH]
        return cls(test.images.identities[test.rows], test.labels, seen)

    @property
    def sha256(self) -> str:
        """Hex hash of the test images, as `Split.sha256` of their split."""
        return digest_of(self.labels_N, self.identities)

    @property
    def rows(self) -> NDArray[np.uint8]:
        """Identities and labels of the test images, as they stand in the file: (n, 20)."""
        labels = np.ascontiguousarray(self.labels_N.astype(_LABEL)).view(np.uint8)
        return np.concatenate([self.identities, labels.reshape(-1, _LABEL.itemsize)], axis=1)

    @cached_property
    def _seen(self) -> NDArray[np.uint64]:
        return np.unique(_numbers(self.seen))

    def is_seen(self, identities: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of these images the run was trained or selected on: (k,)."""
        return np.isin(_numbers(identities[:, :SEEN_WIDTH]), self._seen)


def _numbers(beginnings: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(beginnings).view("<u8").reshape(-1)


def known_of(
    rows: NDArray[np.uint8], seen: NDArray[np.uint8], classes: int, place: Callable[[int], str]
) -> KnownImages:
    """The images that two arrays of an exported folder tell of.

    Args:
        rows: As `KnownImages.rows`.
        seen: As `KnownImages.seen`.
        classes: That there are.
        place: Names the first or the second file.

    Raises:
        ExportMismatch: They are of another shape, or a label is of no class.
    """
    for number, (array, width) in enumerate(((rows, WIDTH + _LABEL.itemsize), (seen, SEEN_WIDTH))):
        if array.ndim != 2 or array.shape[1] != width or not len(array):
            raise ExportMismatch(
                f"{place(number)} has the shape {array.shape}, not rows of {width} bytes; export "
                "again."
            )
    labels_N = np.ascontiguousarray(rows[:, WIDTH:]).view(_LABEL).reshape(-1).astype(np.int64)
    if labels_N.min() < 0 or labels_N.max() >= classes:
        raise ExportMismatch(
            f"{place(0)} has a label that is none of {classes} classes; export again."
        )
    return KnownImages(np.ascontiguousarray(rows[:, :WIDTH]), labels_N, seen)
