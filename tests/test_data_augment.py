"""Augmentation: crops, flips, and which strong operations follow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elastic_nas.data import augment as augment_module
from elastic_nas.data import policies
from elastic_nas.data.augment import LARGEST_RATIO, STRONG, Augment, crop_box
from elastic_nas.errors import DataError


def photo(width=40, height=32):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


SPACES = ("WIDE", "NARROW", "WITH_INVERT")


def watch(monkeypatch):
    """The list of (operation, strength) that are drawn from now on; none changes the image."""
    drawn = []

    def spy(name):
        return lambda image, m: drawn.append((name, m)) or image

    for space in SPACES:
        spies = {name: spy(name) for name in getattr(policies, space)}
        monkeypatch.setattr(policies, space, spies)
    return drawn


@pytest.mark.parametrize("strong", STRONG)
def test_the_result_is_a_function_of_image_and_generator(strong):
    augment, image = Augment(strong=strong, operations=5), photo()
    before = image.tobytes()
    results = [augment(image, 24, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert results[0].shape == (24, 24, 3)
    assert results[0].dtype == np.uint8
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()
    assert image.tobytes() == before


@pytest.mark.parametrize("strong", STRONG[1:])
def test_64_copies_of_one_image_receive_several_operations(strong):
    augment = Augment(crop_scale=(1.0, 1.0), flip=False, strong=strong)
    image = photo(32, 32)
    batch = {augment(image, 32, np.random.default_rng(i)).tobytes() for i in range(64)}
    assert len(batch) > 15


ORDER = (
    "Identity", "AutoContrast", "Equalize", "Rotate", "Solarize", "Color", "Posterize", "Contrast",
    "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY",
)  # fmt: skip


def test_trivial_draws_from_the_generator_as_it_always_did(monkeypatch):
    """Trained runs can be repeated: 4 numbers for the crop, then flip, operation, strength."""
    drawn, expected, image = watch(monkeypatch), [], photo()
    for seed in range(200):
        draws = np.random.default_rng(seed).random(7)
        expected.append((ORDER[int(14 * draws[5])], 2 * draws[6] - 1))
        Augment()(image, 4, np.random.default_rng(seed))
    assert drawn == expected


@pytest.mark.parametrize("strong", STRONG)
def test_crop_and_flip_are_the_same_for_all_kinds(strong, monkeypatch):
    watch(monkeypatch)
    for seed in range(20):
        images = [
            Augment(strong=kind)(photo(), 16, np.random.default_rng(seed))
            for kind in (strong, "none")
        ]
        np.testing.assert_array_equal(*images)


def test_operation_strength_and_crop_are_drawn_apart(monkeypatch):
    drawn, areas = watch(monkeypatch), []

    def box(size, scale, draws):
        areas.append(draws[0])
        return crop_box(size, scale, draws)

    monkeypatch.setattr(augment_module, "crop_box", box)
    for seed in range(500):
        Augment()(Image.new("RGB", (2, 2)), 2, np.random.default_rng(seed))
    operations, strengths = zip(*((ORDER.index(name), m) for name, m in drawn), strict=True)
    assert np.abs(np.corrcoef([areas, operations, strengths]) - np.eye(3)).max() < 0.15
    assert -1 <= min(strengths) < -0.95
    assert 0.95 < max(strengths) <= 1


@pytest.mark.parametrize(
    ("strong", "policy"), [("auto_imagenet", policies.IMAGENET), ("auto_cifar", policies.CIFAR)]
)
def test_auto_follows_the_policy_of_its_name(strong, policy, monkeypatch):
    drawn = watch(monkeypatch)
    image, seen = Image.new("RGB", (2, 2)), set()
    for seed in range(1000):
        drawn.clear()
        Augment(strong=strong)(image, 2, np.random.default_rng(seed))
        seen.add(tuple((name, round(9 * abs(m))) for name, m in drawn))
    whole = {tuple((name, level) for name, _, level in steps) for steps in policy}
    possible = whole | {steps[:1] for steps in whole} | {steps[1:] for steps in whole} | {()}
    assert seen <= possible
    assert len(seen & whole) >= len(whole) - 2  # two have a step of chance 0


def test_rand_applies_as_many_operations_of_the_strength_as_were_asked_for(monkeypatch):
    drawn = watch(monkeypatch)
    Augment(strong="rand", magnitude=12, operations=7)(photo(), 8, np.random.default_rng(0))
    assert len(drawn) == 7
    assert {abs(m) for _, m in drawn} == {12 / 30}
    drawn.clear()
    Augment(strong="rand")(photo(), 8, np.random.default_rng(0))
    assert [abs(m) for _, m in drawn] == [9 / 30] * 2


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


@pytest.mark.parametrize("scale", [(0, 1), (0.5, 0.4), (0.5, 1.1)])
def test_impossible_crops_are_refused(scale):
    with pytest.raises(DataError, match="crop_scale"):
        Augment(crop_scale=scale)


def test_an_unknown_strong_augmentation_is_refused():
    known = "none, trivial, auto_imagenet, auto_cifar, rand"
    with pytest.raises(DataError, match=f"strong must be one of {known}, got 'auto'"):
        Augment(strong="auto")


@pytest.mark.parametrize("magnitude", [-1, 31, 9.5])
def test_impossible_magnitudes_are_refused(magnitude):
    with pytest.raises(DataError, match=f"magnitude .* from 0 to 30, got {magnitude}"):
        Augment(strong="rand", magnitude=magnitude)


def test_no_operations_are_refused():
    with pytest.raises(DataError, match=r"operations must be at least 1, got 0; strong='none'"):
        Augment(strong="rand", operations=0)
