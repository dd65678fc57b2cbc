"""Mixup and cutmix."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from elastic_nas.data.mix import Mix
from elastic_nas.errors import DataError

alphas = st.sampled_from([0.2, 1.0, 4.0])
seeds = st.integers(0, 2**32 - 1)
batches = st.tuples(
    st.integers(1, 7), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5)
)
"""Images, channels, height, width, classes."""


def batch(shape, seed):
    count, channels, height, width, classes = shape
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(count, channels, height, width)))
    return x, torch.from_numpy(rng.integers(0, classes, count))


def stripes(count, height, width):
    """Image i is i everywhere, of class i: what came from where can be counted."""
    labels = torch.arange(count)
    return labels.float()[:, None, None, None].expand(count, 2, height, width).clone(), labels


def drawn_share(alpha, seed):
    return np.random.default_rng(seed).beta(alpha, alpha)


@settings(max_examples=200, deadline=None)
@given(batches, alphas, seeds)
def test_mixup_is_a_naive_loop_over_pairs(shape, alpha, seed):
    x, labels = batch(shape, seed)
    count, classes = shape[0], shape[-1]
    mixed, targets = Mix(alpha, 0)(x, labels, classes, np.random.default_rng(seed))
    share = drawn_share(alpha, seed)
    for i in range(count):
        partner = count - 1 - i
        expected = share * x[i] + (1 - share) * x[partner]
        torch.testing.assert_close(mixed[i], expected, rtol=0, atol=1e-12)
        row = np.zeros(classes)
        row[labels[i]] += share
        row[labels[partner]] += 1 - share
        np.testing.assert_allclose(targets[i], row, rtol=0, atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 7), st.integers(1, 20), st.integers(1, 20), alphas, seeds)
def test_cutmix_pastes_one_box_and_counts_its_pixels(count, height, width, alpha, seed):
    x, labels = stripes(count, height, width)
    mixed, targets = Mix(0, alpha)(x, labels, count, np.random.default_rng(seed))
    part = 1 - drawn_share(alpha, seed)
    boxes = set()
    for i in range(count):
        partner = count - 1 - i
        pasted = (mixed[i] == partner).numpy()
        assert set(mixed[i].unique().tolist()) <= {i, partner}
        assert (pasted[0] == pasted[1]).all()
        row = np.zeros(count)
        row[i] += (~pasted[0]).sum() if i != partner else height * width
        row[partner] += pasted[0].sum() if i != partner else 0
        np.testing.assert_array_equal(targets[i], (row / (height * width)).astype(np.float32))
        if i != partner:
            boxes.add(tuple(np.concatenate([np.flatnonzero(pasted[0].any(a)) for a in (1, 0)])))
            assert pasted[0].sum() == pasted[0].any(0).sum() * pasted[0].any(1).sum()
    assert len(boxes) == 1
    tall, wide = int(height * part**0.5), int(width * part**0.5)
    rows, columns = pasted_rows_and_columns(mixed[0], count - 1)
    check_side(rows, tall, height)
    check_side(columns, wide, width)


def pasted_rows_and_columns(image, value):
    pasted = (image[0] == value).numpy()
    return np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))


def check_side(places, length, side):
    """The box is as long as drawn where no border clips it, and never longer."""
    assert len(places) <= length
    if len(places) and places[0] > 0 and places[-1] < side - 1:
        assert len(places) == length


@settings(max_examples=200, deadline=None)
@given(batches, st.sampled_from([(0, 0), (0.3, 0), (0, 1), (0.3, 1)]), seeds)
def test_targets_are_shares(shape, alphas, seed):
    x, labels = batch(shape, seed)
    mixed, targets = Mix(*alphas)(x, labels, shape[-1], np.random.default_rng(seed))
    assert targets.dtype == torch.float32
    assert targets.shape == (shape[0], shape[-1])
    assert mixed.shape == x.shape
    assert (targets >= 0).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(shape[0]), rtol=0, atol=1e-6)


def test_shares_follow_the_beta_distribution():
    x, labels = stripes(2, 1, 1)
    rng = np.random.default_rng(0)
    shares = [float(Mix(0.4, 0)(x, labels, 2, rng)[1][0, 0]) for _ in range(500)]
    assert kstest(shares, "beta", (0.4, 0.4)).pvalue > 0.01


def test_boxes_lie_everywhere_and_are_clipped_not_moved():
    x, labels = stripes(2, 20, 30)
    rng, covered, centre = np.random.default_rng(0), np.zeros((20, 30)), 0
    for _ in range(1000):
        mixed, _ = Mix(0, 1)(x, labels, 2, rng)
        covered += (mixed[0, 0] == 1).numpy()
        centre += int(mixed[0, 0, 10, 15] == 1)
    assert covered.min() > 100  # the corners, too
    assert covered.max() == pytest.approx(centre, rel=0.1)
    assert covered.min() < 0.5 * centre  # clipped boxes spare the corners


def test_of_mixup_and_cutmix_one_is_drawn_a_batch_with_equal_chance():
    x, labels = stripes(2, 8, 8)
    mix, kinds = Mix(1, 1), Counter()
    for seed in range(400):
        mixed, _ = mix(x, labels, 2, np.random.default_rng(seed))
        kinds["cutmix" if set(mixed.unique().tolist()) <= {0, 1} else "mixup"] += 1
    assert binomtest(kinds["cutmix"], 400).pvalue > 0.01


def test_with_both_off_nothing_is_mixed():
    x, labels = batch((5, 3, 4, 4, 3), 0)
    mixed, targets = Mix(0, 0)(x, labels, 3, np.random.default_rng(0))
    assert torch.equal(mixed, x)
    assert torch.equal(targets, torch.eye(3)[labels])


@pytest.mark.parametrize("alphas", [(0.5, 0), (0, 0.5), (0.5, 0.5)])
def test_the_result_is_a_function_of_batch_and_generator(alphas):
    x, labels = batch((6, 3, 8, 8, 4), 0)
    before = x.clone()
    one, same, other = (Mix(*alphas)(x, labels, 4, np.random.default_rng(s)) for s in (3, 3, 4))
    assert torch.equal(one[0], same[0])
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])
    assert torch.equal(x, before)


@pytest.mark.parametrize("alphas", [(1, 0), (0, 1)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_type_and_memory_format_stay(alphas, dtype, layout):
    x = torch.randint(0, 256, (4, 3, 6, 8)).to(dtype).to(memory_format=layout)
    mixed, _ = Mix(*alphas)(x, torch.arange(4), 4, np.random.default_rng(0))
    assert mixed.dtype == dtype
    assert mixed.stride() == x.stride()


def test_whole_pixels_are_rounded():
    x = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8)
    mixed, _ = Mix(1, 0)(x, torch.arange(4), 4, np.random.default_rng(5))
    share = drawn_share(1, 5)
    exact = share * x.double() + (1 - share) * x.flip(0).double()
    assert (mixed.double() - exact).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize("alphas", [(1, 0), (0, 1)])
def test_nothing_waits_for_the_device(alphas):
    """Tensors of the meta device have no values that could be waited for."""
    x = torch.empty(4, 3, 8, 8, device="meta")
    labels = torch.empty(4, dtype=torch.int64, device="meta")
    mixed, targets = Mix(*alphas)(x, labels, 10, np.random.default_rng(0))
    assert mixed.device == targets.device == x.device
    assert targets.shape == (4, 10)


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_impossible_alphas_are_refused(alpha):
    with pytest.raises(DataError, match=f"mixup must be a number from 0 .off. on, got {alpha}"):
        Mix(alpha, 0)
    with pytest.raises(DataError, match=f"cutmix must be a number from 0 .off. on, got {alpha}"):
        Mix(0, alpha)
