"""Data sets: digits, splits, statistics, the cache of deployed images."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from elastic_nas.config import DataConfig
from elastic_nas.data import dataset as dataset_module
from elastic_nas.data import moments as moments_module
from elastic_nas.data import split as split_module
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.first_version import asked_then, split_sha256
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.data.split import ArrayImages, Split
from elastic_nas.data.stratify import stratified

PLAIN = Preprocess((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


GOLDEN = ["d205f669edc1cf44", "67cd5ce05a796afb", "bd7e84b315a02e63"]
"""Hashes of train, search-validation and test of digits, from their beginnings."""
FIRST = ["32e9c11d15cab2bd", "6c76c7cdbd69fce7", "f6261f8a40c1dfd5"]
"""The same as version 0.1.0 computed them, to which its runs' search histories are tied."""


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def splits_of(dataset):
    return dataset.train, dataset.validation, dataset.test


def test_digits_are_what_they_are(digits):
    assert digits.name == "digits"
    assert digits.labels == tuple("0123456789")
    assert not digits.flip
    assert digits.typical_size == 8
    assert digits.preprocess.crop == 1
    assert [len(split) for split in splits_of(digits)] == [1169, 269, 359]
    image = digits.train.image(0)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    assert max(np.asarray(digits.train.image(i)).max() for i in range(9)) == 255


def test_digits_are_split_alike_everywhere(digits):
    assert [split.sha256[:16] for split in splits_of(digits)] == GOLDEN
    assert [split_sha256(split)[:16] for split in splits_of(digits)] == FIRST
    again = load_dataset("digits")
    assert [split.sha256 for split in splits_of(again)] == [s.sha256 for s in splits_of(digits)]
    assert load_dataset("digits", seed=1).test.sha256 != digits.test.sha256


def test_splits_are_disjoint_and_complete(digits):
    rows = np.concatenate([split._rows for split in splits_of(digits)])
    assert sorted(rows.tolist()) == list(range(1797))


def test_labels_belong_to_their_images(digits):
    from sklearn.datasets import load_digits

    raw = load_digits()
    for split in splits_of(digits):
        assert split.labels.dtype == np.int64
        for i in (0, 7, len(split) - 1):
            row = split._rows[i]
            assert split.labels[i] == raw.target[row]
            grey = np.asarray(split.image(i))[..., 1]
            assert np.abs(grey - raw.images[row] * 255 / 16).max() <= 0.5


def test_mean_and_std_are_those_of_the_training_images(digits):
    pixels = digits.train.deployed(digits.preprocess, 8) / 255
    np.testing.assert_allclose(digits.preprocess.mean, pixels.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(digits.preprocess.std, pixels.std((0, 2, 3)), atol=1e-5)


@given(
    st.lists(st.integers(3, 40), min_size=2, max_size=5),
    st.floats(0.01, 0.3),
    st.floats(0.01, 0.3),
    st.integers(0, 9),
)
def test_every_class_is_in_every_split_in_proportion(counts, one, two, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"{i}.png" for i in range(len(labels))]
    parts = stratified(names, labels, [one, two], seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, share in zip(parts, [one, two, 1 - one - two], strict=True):
        of_class = np.bincount(labels[part], minlength=len(counts))
        assert of_class.min() >= 1
        assert np.abs(of_class - share * np.array(counts)).max() <= 2


def test_new_images_hardly_move_the_old_ones():
    def tested(count):
        names = [f"{i}.png" for i in range(count)]
        return set(stratified(names, np.zeros(count, np.int64), [0.2], 0)[0].tolist())

    assert len(tested(1000) - tested(1010)) < 10


def photos(tmp_path, size, count=4):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("size", "typical", "crop"),
    [((63, 90), 63, 1.0), ((64, 64), 64, 0.875), ((200, 90), 90, 0.875)],
)
def test_photographs_lose_their_border_and_small_images_keep_it(tmp_path, size, typical, crop):
    dataset = photos(tmp_path, size)
    assert dataset.typical_size == typical
    assert dataset.preprocess.crop == crop


def test_a_constant_image_has_a_spread(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), "black").save(tmp_path / name / f"{i}.png")
    data = DataConfig(source=str(tmp_path), duplicates="keep")
    assert min(load_dataset(data).preprocess.std) > 0.003


def test_statistics_are_those_of_a_sample(digits, monkeypatch):
    read = []
    monkeypatch.setattr(moments_module, "_moments", lambda image: read.append(1) or one(image))
    one = lambda image: (np.full(3, 0.5), np.full(3, 0.5), 8)  # noqa: E731
    assert moments_module.statistics_of(digits.train, 100, "skip") == ((0.5,) * 3, (0.5,) * 3, 8)
    assert len(read) == 100


def test_validation_split_off_training_is_capped(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "MOST_VALIDATION", 4)
    for part, count in {"train": 50, "test": 1}.items():
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                colour = (i, ord(name), len(part))
                Image.new("RGB", (8, 8), colour).save(tmp_path / part / name / f"{i}.png")
    dataset = load_dataset(str(tmp_path))
    assert (len(dataset.train), len(dataset.validation)) == (96, 4)


def numbered(n=6, name="train"):
    pixels = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)
    return Split(name, np.arange(n) % 3, ArrayImages(pixels))


def test_a_subset_keeps_order_labels_and_name():
    subset = numbered().subset([5, 1, 3]).subset(np.array([0, 2]))
    assert subset.name == "train"
    assert subset.labels.tolist() == [2, 0]
    assert [subset.image(i).getpixel((0, 0))[0] for i in range(2)] == [5, 3]
    assert subset.sha256 != numbered().sha256
    assert subset.sha256 == numbered().subset([5, 3]).sha256


def test_deployed_images_are_in_order_and_cached():
    split = numbered()
    images = split.deployed(PLAIN, 5)
    assert images.shape == (6, 3, 5, 5)
    assert images.dtype == np.uint8
    assert images[:, 1, 2, 2].tolist() == [0, 1, 2, 3, 4, 5]
    assert split.deployed(PLAIN, 5) is images
    assert split.deployed(PLAIN, 6).shape == (6, 3, 6, 6)
    assert split.deployed(PLAIN, 5) is images
    cropped = Preprocess(PLAIN.mean, PLAIN.std, 0.5)
    assert split.deployed(cropped, 5) is not images


def test_deployed_images_are_what_preprocess_makes_of_them(digits):
    images = digits.test.deployed(digits.preprocess, 12)
    one = digits.preprocess.deploy(digits.test.image(17), 12)
    np.testing.assert_array_equal(images[17], one.transpose(2, 0, 1))


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(split_module, "CACHE_BYTES", 6 * 3 * 25 + 1)
    split = numbered()
    kept = split.deployed(PLAIN, 5)
    assert split.deployed(PLAIN, 2) is not split.deployed(PLAIN, 2)
    assert split.deployed(PLAIN, 5) is kept


def test_a_pickled_split_leaves_its_cache_behind():
    split = numbered()
    split.deployed(PLAIN, 5)
    copy = pickle.loads(pickle.dumps(split))
    assert copy._deployed == {}
    assert copy.sha256 == split.sha256


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        ("Training/a Training/b Testing/a Testing/b", "none"),
        ("train/a train/b val/a val/b plots/a", "train:train,val:val"),
        ("train bus", "none"),
    ],
)
def test_folders_are_parts_for_the_first_version_by_fewer_names(tmp_path, folders, parts):
    for folder in folders.split():
        (tmp_path / folder).mkdir(parents=True)
    assert asked_then(DataConfig(source=str(tmp_path))).parts == parts
