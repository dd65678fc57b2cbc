"""Strong operations, and the policies that draw them."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare

from elastic_nas.data import policies
from elastic_nas.data.operations import GREY, NARROW, WIDE, WITH_INVERT
from elastic_nas.data.policies import CIFAR, IMAGENET, auto, rand, trivial

ROWS = {
    "imagenet": (IMAGENET, {
        0: (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
        3: (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
        10: (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
        12: (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
        16: (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
        18: (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
        23: (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    }),
    "cifar": (CIFAR, {
        0: (("Invert", 0.1, 7), ("Contrast", 0.2, 6)),
        1: (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
        3: (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
        7: (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
        14: (("Solarize", 0.5, 2), ("Invert", 0.0, 3)),
        16: (("Equalize", 0.2, 8), ("Equalize", 0.6, 4)),
        24: (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 1)),
    }),
}  # fmt: skip
"""Cubuk et al., 2019, appendix: some of the sub-policies."""


def apply(operation, strength, image):
    before = image.tobytes()
    result = operation(image, strength)
    assert (result.mode, result.size) == ("RGB", image.size)
    assert image.tobytes() == before
    return np.asarray(result).astype(int)


def photo(width=40, height=32):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def plain(*colour):
    return Image.new("RGB", (8, 8), colour if len(colour) == 3 else colour * 3)


def ramp():
    """All grey values, from left to right."""
    row = np.arange(256, dtype=np.uint8)[None, :, None]
    return Image.fromarray(np.broadcast_to(row, (2, 256, 3)).copy())


def spot_after(operation, strength, x, y, side=331):
    """Where a white spot at (x, y) from the centre of a black image is found after an operation."""
    image, middle = Image.new("RGB", (side, side), "black"), side // 2
    image.paste((255, 255, 255), (middle + x - 1, middle + y - 1, middle + x + 2, middle + y + 2))
    weights = np.maximum(apply(operation, strength, image)[..., 0] - GREY[0], 0)
    places = (np.arange(side) - middle) / weights.sum()
    return weights.sum(0) @ places, weights.sum(1) @ places


@pytest.mark.parametrize("name", ROWS)
def test_policies_are_the_published_ones(name):
    policy, rows = ROWS[name]
    assert len(policy) == 25
    for number, steps in rows.items():
        assert policy[number] == steps
    for steps in policy:
        assert len(steps) == 2
        for operation, chance, level in steps:
            assert operation in WITH_INVERT
            assert chance in np.round(np.arange(11) / 10, 1)
            assert level in range(10)


def test_the_imagenet_policy_repeats_five_and_the_cifar_policy_none():
    """As published; counted without the levels of operations that have none."""
    assert sorted(Counter(IMAGENET).values()) == [1] * 15 + [2] * 5
    assert len(set(CIFAR)) == 25


def test_spaces_hold_the_published_operations():
    assert list(WIDE) == list(NARROW)
    assert len(NARROW) == 14
    assert set(WITH_INVERT) - set(NARROW) == {"Invert"}


class Spies:
    """In the place of a space: operations that only note their name and strength."""

    def __init__(self, monkeypatch, space, names):
        self.drawn = []
        spies = {name: self._spy(name) for name in names}
        monkeypatch.setattr(policies, space, spies)

    def _spy(self, name):
        return lambda image, m: self.drawn.append((name, m)) or image


IMAGE = Image.new("RGB", (1, 1))


def uniform(names, count):
    """Whether names were drawn equally often, as far as a chi-square test can tell."""
    drawn = Counter(names)
    assert len(drawn) == count
    return chisquare(list(drawn.values())).pvalue > 0.01


def test_all_operations_of_trivial_are_drawn_equally_often(monkeypatch):
    spies = Spies(monkeypatch, "WIDE", WIDE)
    rng = np.random.default_rng(0)
    for _ in range(2800):
        trivial(IMAGE, rng)
    assert uniform((name for name, _ in spies.drawn), 14)


def test_all_operations_of_rand_are_drawn_equally_often_to_both_sides(monkeypatch):
    spies = Spies(monkeypatch, "NARROW", NARROW)
    rng = np.random.default_rng(0)
    for _ in range(1400):
        rand(IMAGE, 15, 2, rng)
    assert uniform(spies.drawn, 28)
    assert {m for _, m in spies.drawn} == {-0.5, 0.5}


def test_all_sub_policies_are_drawn_equally_often(monkeypatch):
    numbers = [str(i) for i in range(25)]
    spies = Spies(monkeypatch, "WITH_INVERT", numbers)
    policy = tuple(((number, 1.0, 9), (number, 1.0, 9)) for number in numbers)
    rng = np.random.default_rng(0)
    for _ in range(2500):
        auto(IMAGE, policy, rng)
    first, second = spies.drawn[::2], spies.drawn[1::2]
    assert [name for name, _ in first] == [name for name, _ in second]
    assert uniform((name for name, _ in first), 25)
    assert uniform(((a > 0, b > 0) for (_, a), (_, b) in zip(first, second, strict=True)), 4)


def test_steps_happen_by_their_own_chances(monkeypatch):
    spies = Spies(monkeypatch, "WITH_INVERT", ("A", "B"))
    rng, seen = np.random.default_rng(0), Counter()
    for _ in range(4000):
        spies.drawn.clear()
        auto(IMAGE, ((("A", 0.3, 3), ("B", 0.8, 0)),), rng)
        seen["".join(name for name, _ in spies.drawn)] += 1
        assert {abs(m) for name, m in spies.drawn if name == "A"} <= {3 / 9}
    shares = {"": 0.14, "A": 0.06, "B": 0.56, "AB": 0.24}
    expected = [4000 * share for share in shares.values()]
    assert chisquare([seen[steps] for steps in shares], expected).pvalue > 0.01


def test_steps_of_chance_0_never_happen_and_of_chance_1_always(monkeypatch):
    spies = Spies(monkeypatch, "WITH_INVERT", ("A", "B"))

    class Extremes:
        def random(self, shape=()):
            return np.full(shape, self.value) if shape else self.value

    for Extremes.value in (0.0, 1 - 2**-53):
        auto(IMAGE, ((("A", 0.0, 9), ("B", 1.0, 9)),), Extremes())
    assert [name for name, _ in spies.drawn] == ["B", "B"]


def test_each_operation_receives_what_the_one_before_it_made(monkeypatch):
    for space in ("NARROW", "WITH_INVERT"):
        brighter = {"A": lambda image, m: Image.eval(image, lambda value: value + 1)}
        monkeypatch.setattr(policies, space, brighter)
    rng = np.random.default_rng(0)
    assert rand(IMAGE, 9, 5, rng).getpixel((0, 0)) == (5, 5, 5)
    assert auto(IMAGE, ((("A", 1.0, 9), ("A", 1.0, 9)),), rng).getpixel((0, 0)) == (2, 2, 2)


@pytest.mark.parametrize("space", [WIDE, NARROW], ids=["wide", "narrow"])
def test_operations_without_strength_change_nothing(space):
    """All but autocontrast and equalize, which have none, and the wide space's solarize."""
    original = np.asarray(photo()).astype(int)
    without = {"AutoContrast", "Equalize"} | ({"Solarize"} if space is WIDE else set())
    for name in space.keys() - without:
        assert np.abs(apply(space[name], 0.0, photo()) - original).max() <= 1, name


@pytest.mark.parametrize("space", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", list(NARROW)[1:])
def test_operations_of_full_strength_change_much(space, name):
    dull = Image.eval(photo(), lambda value: 60 + value // 2)
    strength = 0.5 if name == "Solarize" else -1.0  # the wide one spares all at full strength
    difference = apply(space[name], strength, dull) - np.asarray(dull).astype(int)
    assert np.abs(difference).mean() > 0.3


def test_wide_strengths_are_the_papers():
    grey = plain(100)
    assert apply(WIDE["Brightness"], 1.0, grey).max() == 199  # 1.99
    assert apply(WIDE["Brightness"], -1.0, grey).max() == 1  # 0.01
    assert apply(WIDE["Solarize"], 0.0, grey).max() == 155  # from 0 on
    assert apply(WIDE["Solarize"], 1.0, grey).max() == 100  # from 256 on
    assert apply(WIDE["Posterize"], 1.0, grey).max() == 64  # 2 bits
    assert apply(WIDE["Posterize"], -0.5, grey).max() == 96  # 5 bits


def test_brightness_goes_from_a_tenth_to_1_9():
    brightness = NARROW["Brightness"]
    assert [apply(brightness, m, plain(100)).max() for m in (-1, -1 / 3, 1)] == [10, 70, 190]


def test_colour_goes_from_a_tenth_to_1_9_of_the_distance_to_grey():
    red = plain(150, 100, 100)  # as bright as a grey of 115
    assert tuple(apply(NARROW["Color"], -1, red)[0, 0]) == (118, 113, 113)
    assert tuple(apply(NARROW["Color"], 1, red)[0, 0]) == (181, 86, 86)


def test_contrast_goes_from_a_tenth_to_1_9_of_the_distance_to_the_mean():
    image = plain(100)
    image.paste((140, 140, 140), (0, 0, 4, 8))
    contrast = NARROW["Contrast"]
    assert set(apply(contrast, -1, image).flat) == {118, 122}
    assert set(apply(contrast, 1, image).flat) == {82, 158}


def test_sharpness_softens_and_sharpens_edges():
    image = plain(100)
    image.paste((140, 140, 140), (0, 0, 4, 8))
    softer, sharper = (apply(NARROW["Sharpness"], m, image)[4, :, 0] for m in (-1, 1))
    assert 100 < softer[4] < softer[3] < 140
    assert sharper[4] < 100 < 140 < sharper[3]
    assert softer[[1, 6]].tolist() == sharper[[1, 6]].tolist() == [140, 100]


def test_posterize_keeps_the_published_number_of_bits():
    bits = [len(set(apply(NARROW["Posterize"], k / 9, ramp()).flat)) for k in range(10)]
    assert bits == [2**n for n in (8, 8, 7, 7, 6, 6, 5, 5, 4, 4)]


def test_solarize_inverts_from_a_falling_threshold():
    values = np.arange(256)
    for level in range(10):
        result = apply(NARROW["Solarize"], level / 9, ramp())[0, :, 0]
        bright = values >= 256 * (1 - level / 9)
        np.testing.assert_array_equal(result, np.where(bright, 255 - values, values))
        np.testing.assert_array_equal(
            result, apply(NARROW["Solarize"], -level / 9, ramp())[0, :, 0]
        )


def test_autocontrast_equalize_and_invert():
    image = plain(100)
    image.paste((140, 140, 140), (0, 0, 2, 8))
    assert set(apply(NARROW["AutoContrast"], 1, image).flat) == {0, 255}
    image.paste((110, 110, 110), (2, 0, 4, 8))
    assert set(apply(NARROW["AutoContrast"], 1, image).flat) == {0, 63, 255}
    assert set(apply(WITH_INVERT["Invert"], 1, image).flat) == {155, 145, 115}
    dark = Image.eval(ramp().resize((256, 256)), lambda value: value // 4)
    even = apply(NARROW["Equalize"], 1, dark)[0, :, 0]
    assert np.abs(even - np.arange(256)).max() <= 5


def test_shifts_are_150_of_331_pixels_to_the_side_away_from_the_sign():
    assert spot_after(NARROW["TranslateX"], 1.0, 20, 5) == pytest.approx((-130, 5))
    assert spot_after(NARROW["TranslateX"], -0.4, 0, 5) == pytest.approx((60, 5))
    assert spot_after(NARROW["TranslateY"], 0.2, 10, 0) == pytest.approx((10, -30))
    assert spot_after(NARROW["TranslateY"], -1.0, 10, 0) == pytest.approx((10, 150))


def test_rotations_go_up_to_30_degrees_about_the_centre():
    for strength, angle in ((1.0, -np.pi / 6), (-0.5, np.pi / 12)):  # y points down
        expected = 100 * np.cos(angle), 100 * np.sin(angle)
        assert spot_after(NARROW["Rotate"], strength, 100, 0) == pytest.approx(expected, abs=0.5)


def test_shears_move_up_to_0_3_of_the_distance_from_the_centre():
    assert spot_after(NARROW["ShearX"], 1.0, 0, 100) == pytest.approx((-30, 100), abs=0.5)
    assert spot_after(NARROW["ShearX"], -0.5, 7, -100) == pytest.approx((-8, -100), abs=0.5)
    assert spot_after(NARROW["ShearY"], 1.0, 100, 0) == pytest.approx((100, -30), abs=0.5)


def test_wide_moves_are_the_papers_in_proportion_to_the_side():
    assert spot_after(WIDE["TranslateX"], 1.0, 0, 0, side=71)[0] == pytest.approx(-71 / 7, abs=0.5)
    assert spot_after(WIDE["TranslateY"], -0.5, 0, 0, 71)[1] == pytest.approx(71 / 14, abs=0.5)
    assert spot_after(WIDE["ShearX"], 1.0, 0, 100) == pytest.approx((-99, 100), abs=0.7)
    assert spot_after(WIDE["ShearY"], -1.0, 100, 0) == pytest.approx((100, 99), abs=0.7)
    diagonal = 100 / 2**0.5
    turned = spot_after(WIDE["Rotate"], 1.0, 100, 0)  # by 135 degrees
    assert turned == pytest.approx((-diagonal, -diagonal), abs=0.5)


@pytest.mark.parametrize("space", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_moves_fill_with_grey(space, name):
    black = Image.new("RGB", (70, 70), "black")
    colours = {tuple(colour) for colour in apply(space[name], 0.9, black).reshape(-1, 3)}
    assert {GREY, (0, 0, 0)} <= colours
