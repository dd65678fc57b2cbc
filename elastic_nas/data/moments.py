"""Statistics of training images: what they are normalised by, and how large they are."""

from itertools import chain

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas import progress
from elastic_nas.data.damage import Rule, allowed, listed, stand_ins, too_many
from elastic_nas.data.images import in_parallel, shrink
from elastic_nas.data.split import Split
from elastic_nas.errors import DamagedImage

Triple = tuple[float, float, float]


def statistics_of(train: Split, most: int, rule: Rule) -> tuple[Triple, Triple, int]:
    """Mean and standard deviation per channel, and the median shorter side in pixels.

    Of at most `most` images, evenly spaced; each image counts the same, whatever its size. An
    image that cannot be read is replaced as in the training, see `damage.stand_ins`.

    Raises:
        DataError: More images cannot be read than may be.
    """
    count = min(len(train), most)
    indices = [index * len(train) // count for index in range(count)]
    damaged: dict[int, str] = {}

    def sampled(index: int) -> _Moments:
        for candidate in chain([index], stand_ins(train.labels, index)):
            try:
                return _moments(train.image(candidate))
            except DamagedImage as error:
                damaged[candidate] = error.told
                if len(damaged) > allowed(len(train), rule):
                    break
        raise too_many(_in_order(damaged), len(train), train.name, rule)

    rows = in_parallel(sampled, indices, "Sampling images")
    if damaged:
        progress.say(
            f"note: {len(damaged):,} of {len(train):,} {train.name} images cannot be read "
            f"({listed(_in_order(damaged))}); others take their places in the statistics."
        )
    moments = np.mean([row[:2] for row in rows], axis=0)
    std = np.sqrt(np.maximum(moments[1] - moments[0] ** 2, 1 / 255**2))  # never 0
    return _triple(moments[0]), _triple(std), int(np.median([row[2] for row in rows]))


def _in_order(damaged: dict[int, str]) -> list[str]:
    """As threads find them in no order."""
    return [damaged[index] for index in sorted(damaged)]


_Moments = tuple[NDArray[np.float64], NDArray[np.float64], int]


def _moments(image: Image.Image) -> _Moments:
    """Means of pixels in 0..1 and of their squares, and the shorter side in pixels."""
    pixels = np.asarray(shrink(image, 256), dtype=np.float64) / 255
    return pixels.mean(axis=(0, 1)), (pixels**2).mean(axis=(0, 1)), min(image.size)


def _triple(values: NDArray[np.float64]) -> Triple:
    red, green, blue = (round(float(value), 6) for value in values)
    return red, green, blue
