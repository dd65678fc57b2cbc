"""Augmentation."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elastic_nas.data import augment as augment_module
from elastic_nas.data.augment import GREY, LARGEST_RATIO, OPERATIONS, Augment, crop_box
from elastic_nas.errors import DataError


def photo(width=40, height=32):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def operation(position, strength, image=None):
    return np.asarray(OPERATIONS[position](image or photo(), strength)).astype(int)


def test_the_result_is_a_function_of_image_and_generator():
    augment, image = Augment(flip=True), photo()
    before = image.tobytes()
    results = [augment(image, 24, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert results[0].shape == (24, 24, 3)
    assert results[0].dtype == np.uint8
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()
    assert image.tobytes() == before


def test_64_copies_of_one_image_receive_several_operations(monkeypatch):
    drawn = Counter()

    def spy(position, apply):
        return lambda image, m: drawn.update([position]) or apply(image, m)

    spies = tuple(spy(i, apply) for i, apply in enumerate(OPERATIONS))
    monkeypatch.setattr(augment_module, "OPERATIONS", spies)
    augment = Augment(crop_scale=(1.0, 1.0), flip=False)
    batch = {augment(photo(32, 32), 32, np.random.default_rng(i)).tobytes() for i in range(64)}
    assert len(drawn) >= 10
    assert len(batch) > 40


def test_all_operations_are_drawn_equally_often(monkeypatch):
    drawn = Counter()
    spies = tuple(lambda image, m, i=i: drawn.update([i]) or image for i in range(14))
    monkeypatch.setattr(augment_module, "OPERATIONS", spies)
    for seed in range(2800):
        Augment(flip=False)(Image.new("RGB", (2, 2)), 2, np.random.default_rng(seed))
    assert sorted(drawn) == list(range(14))
    assert 140 < min(drawn.values()) <= max(drawn.values()) < 260


def test_operation_strength_and_crop_are_drawn_apart(monkeypatch):
    areas, operations, strengths = [], [], []

    def apply(position):
        return lambda image, m: operations.append(position) or strengths.append(m) or image

    def box(size, scale, draws):
        areas.append(draws[0])
        return crop_box(size, scale, draws)

    monkeypatch.setattr(augment_module, "OPERATIONS", (apply(0), apply(1)))
    monkeypatch.setattr(augment_module, "crop_box", box)
    for seed in range(500):
        Augment(flip=False)(Image.new("RGB", (2, 2)), 2, np.random.default_rng(seed))
    assert np.abs(np.corrcoef([areas, operations, strengths]) - np.eye(3)).max() < 0.15
    assert -1 <= min(strengths) < -0.95
    assert 0.95 < max(strengths) <= 1


def test_none_leaves_the_crop_alone():
    image = Image.new("RGB", (20, 20), (10, 200, 30))
    augment = Augment(flip=True, strong="none")
    for seed in range(20):
        assert (augment(image, 8, np.random.default_rng(seed)) == (10, 200, 30)).all()


def test_flips_are_every_other_image_or_none():
    image = Image.new("RGB", (20, 20), "black")
    image.paste((255, 255, 255), (0, 0, 10, 20))

    def flipped(flip):
        augment = Augment(crop_scale=(0.99, 1.0), flip=flip, strong="none")
        results = (augment(image, 8, np.random.default_rng(seed)) for seed in range(200))
        return sum(int(result[4, 0, 0] < result[4, -1, 0]) for result in results)

    assert 70 < flipped(True) < 130
    assert flipped(False) == 0


@settings(max_examples=300)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4),
    st.sampled_from([(0.35, 1.0), (0.08, 0.5), (1.0, 1.0)]),
)
def test_crops_lie_in_the_image_with_a_bounded_ratio(size, draws, scale):
    left, top, right, bottom = crop_box(size, scale, np.array(draws))
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert 1 / LARGEST_RATIO - 1e-6 <= (right - left) / (bottom - top) <= LARGEST_RATIO + 1e-6
    assert (right - left) * (bottom - top) <= scale[1] * size[0] * size[1] * (1 + 1e-9)


def test_crops_keep_the_drawn_area_and_reach_every_corner():
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box((100, 100), (0.35, 0.5), rng.random(4)) for _ in range(2000)])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 100**2
    assert 0.35 <= areas.min() < 0.36
    assert 0.49 < areas.max() <= 0.5
    assert abs(areas.mean() - 0.425) < 0.01
    assert (boxes.min(axis=0)[:2] < 1).all()
    assert (boxes.max(axis=0)[2:] > 99).all()


def test_a_whole_image_crop_is_a_plain_resize():
    image, middle = photo(32, 32), np.array([0.5, 0.5, 0.5, 0.5])
    assert crop_box(image.size, (1.0, 1.0), middle) == (0, 0, 32, 32)


def test_operations_without_strength_change_nothing():
    """At strength 0: all but autocontrast, equalize and solarize, which have none or fear 0."""
    original = np.asarray(photo()).astype(int)
    for position in (0, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13):
        assert np.abs(operation(position, 0.0) - original).max() <= 1, position


@pytest.mark.parametrize("position", range(1, len(OPERATIONS)))
def test_operations_of_full_strength_change_much(position):
    dull = Image.eval(photo(), lambda value: 60 + value // 2)
    strength = 0.5 if position == 4 else -1.0  # solarize spares all pixels at full strength
    difference = operation(position, strength, dull) - np.asarray(dull).astype(int)
    assert np.abs(difference).mean() > 0.3


def test_strengths_are_the_papers():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    assert operation(8, 1.0, grey).max() == 199  # brightness 1.99
    assert operation(8, -1.0, grey).max() == 1  # brightness 0.01
    assert operation(4, 0.0, grey).max() == 155  # solarize from 0 on
    assert operation(4, 1.0, grey).max() == 100  # solarize from 256 on
    assert operation(6, 1.0, grey).max() == 64  # 2 bits
    assert operation(6, -0.5, grey).max() == 96  # 5 bits


def test_moves_are_in_proportion_about_the_centre_and_fill_with_grey():
    image = Image.new("RGB", (70, 70), "black")
    image.paste((255, 255, 255), (34, 34, 36, 36))

    def centre(position, strength):
        rows, columns = np.nonzero(operation(position, strength, image)[..., 0] > 200)
        return columns.mean() - 34.5, rows.mean() - 34.5

    assert centre(12, 1.0) == (-10, 0)
    assert centre(12, -1.0) == (10, 0)
    assert centre(13, 0.5) == (0, -5)
    for position in (3, 10, 11):
        assert np.abs(centre(position, 0.3)).max() < 1
        assert tuple(operation(position, 0.3, image)[0, 0]) == GREY


@pytest.mark.parametrize("scale", [(0, 1), (0.5, 0.4), (0.5, 1.1)])
def test_impossible_crops_are_refused(scale):
    with pytest.raises(DataError, match="crop_scale"):
        Augment(crop_scale=scale, flip=True)


def test_an_unknown_strong_augmentation_is_refused():
    with pytest.raises(DataError, match="'trivial' or 'none', got 'auto'"):
        Augment(flip=True, strong="auto")
