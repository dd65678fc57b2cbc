"""Which space suits which images."""

from dataclasses import replace

import numpy as np
import pytest

from elastic_nas import plugins
from elastic_nas.data.choose import choose_space
from elastic_nas.data.dataset import load_dataset


@pytest.mark.parametrize(
    ("size", "images", "space"),
    [
        (8, 1200, "tiny:size=16"),
        (16, 1200, "tiny:size=16"),
        (17, 1200, "tiny:size=24"),
        (28, 60_000, "tiny:size=32"),
        (32, 50_000, "tiny:size=32"),
        (40, 500, "tiny:size=32"),
        (41, 500, "compact:size=64"),
        (64, 5000, "compact:size=64"),
        (96, 5000, "compact:size=96"),
        (140, 5000, "compact:size=160"),
        (400, 5000, "compact:size=160"),
        (400, 1999, "compact:size=96"),
        (400, 2000, "compact:size=160"),
        (60, 1999, "compact:size=64"),
        (400, 99_999, "compact:size=160"),
        (159, 100_000, "compact:size=160"),
        (160, 100_000, "attentive_nas"),
    ],
)
def test_the_space_follows_size_and_number(size, images, space):
    digits = load_dataset("digits")
    train = digits.train.subset(np.zeros(images, dtype=np.int64))
    chosen, reason = choose_space(replace(digits, train=train, typical_size=size))
    assert chosen == space
    assert reason == f"{images:,} training images of about {size} px: space {space}"
    plugins.create("spaces", chosen)
