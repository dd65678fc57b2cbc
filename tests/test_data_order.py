"""The order of training images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_nas.data import order as order_module
from elastic_nas.data.order import OPEN_SHARDS, WINDOW, Order, by_shard, shuffled


def shards_of(sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@given(SIZES, st.integers(0, 9), st.integers(0, 3), st.integers(1, 5))
def test_the_ranks_share_all_images_evenly(sizes, seed, epoch, ranks):
    parts = [by_shard(shards_of(sizes), seed, epoch, rank, ranks) for rank in range(ranks)]
    shown = np.concatenate(parts)
    assert {len(part) for part in parts} == {sum(sizes) // ranks}
    assert len(set(shown.tolist())) == len(shown)
    assert set(shown.tolist()) <= set(range(sum(sizes)))


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.integers(0, 30), st.booleans())
def test_a_step_depends_on_nothing_before_it(images, ranks, share, step, sharded):
    shards = np.arange(images) // 7 if sharded and images >= ranks else None

    def order():
        return Order(images, ranks * share, 1, shards, rank=ranks - 1, ranks=ranks)

    used = order()
    for earlier in range(step):
        used.of_step(earlier)
    for one, other in zip(used.of_step(step), order().of_step(step), strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.integers(1, 50), st.integers(1, 4), st.integers(1, 6), st.integers(0, 20))
def test_ranks_together_show_what_one_process_shows(images, ranks, share, step):
    """Against the order as it was written for one process."""
    batch, (epoch, of_epoch) = ranks * share, divmod(step, max(1, images // (ranks * share)))
    permutation = np.random.default_rng((0, 5, epoch)).permutation(images)
    places = range(of_epoch * batch, (of_epoch + 1) * batch)
    drawn = [Order(images, batch, 5, rank=r, ranks=ranks).of_step(step) for r in range(ranks)]
    shown = np.concatenate([indices for _, indices, _ in drawn])
    assert shown.tolist() == [permutation[place % images] for place in places]
    copies = np.concatenate([copies for _, _, copies in drawn])
    assert copies.tolist() == [place // images for place in places]
    assert {one.epoch for one in drawn} == {epoch}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("ranks", [1, 3])
def test_an_epoch_shows_no_image_twice_and_the_next_another_order(sharded, ranks):
    shards = np.arange(100) // 9 if sharded else None
    orders = [Order(100, 6, 0, shards, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert {order.steps_per_epoch for order in orders} == {16}
    epochs = [
        [i for step in steps for order in orders for i in order.of_step(step).indices.tolist()]
        for steps in (range(16), range(16, 32))
    ]
    assert [len(set(epoch)) for epoch in epochs] == [96, 96]
    assert epochs[0] != epochs[1]


def test_seeds_epochs_and_ranks_differ():
    shards = shards_of([50] * 4)
    made = [by_shard(shards, *key).tolist() for key in ((0, 0, 0, 1), (1, 0, 0, 1), (0, 1, 0, 1))]
    assert len({tuple(order) for order in made}) == 3
    assert made[0] == by_shard(shards, 0, 0, 0, 1).tolist()


def test_a_short_stretch_is_shuffled_uniformly():
    """Chi-squared of where the images of 4 shards of 5 come: 19 x 19 degrees of freedom."""
    counts = np.zeros((20, 20))
    for epoch in range(4000):
        counts[by_shard(shards_of([5] * 4), 0, epoch, 0, 1), np.arange(20)] += 1
    chi_squared = ((counts - 200) ** 2 / 200).sum()
    assert abs(chi_squared - 361) < 5 * np.sqrt(2 * 361)


LARGE = [5000] * 60


def test_reads_stay_near_sequential():
    """Few shards are open at a time, and each is read forwards but for the window."""
    shards = shards_of(LARGE)
    order = by_shard(shards, 0, 0, 0, 1)
    for start in range(0, len(order), 30_000):
        assert len(set(shards[order[start : start + 256]].tolist())) <= 1.3 * OPEN_SHARDS
    circle = order[shards[order] == 7] % 5000
    back = np.maximum.accumulate(circle) - circle
    begun_anew = np.count_nonzero(back > 2 * WINDOW)  # the shard that spans the epoch's two ends
    assert begun_anew in (0, len(circle) - np.argmax(back > 2 * WINDOW))


def test_large_sets_are_shuffled_well():
    shards = shards_of(LARGE)
    order = by_shard(shards, 0, 0, 0, 1)
    places = np.argsort(order)
    assert abs(np.corrcoef(places, shards)[0, 1]) < 0.3
    of_batch = [set(shards[order[s : s + 256]].tolist()) for s in range(0, 100_000, 5000)]
    assert min(len(shards) for shards in of_batch) >= OPEN_SHARDS - 2
    neighbours = np.abs(np.diff(places[: LARGE[0]]))  # how far neighbours of a shard come apart
    assert np.median(neighbours) > OPEN_SHARDS * WINDOW / 8


def test_imagenets_order_is_made_in_a_moment():
    order = by_shard(np.arange(1_281_167) // 8716, 0, 0, 3, 8)
    assert len(order) == 160_145
    assert order.dtype == np.int64


def test_an_order_is_made_once_an_epoch(monkeypatch):
    made = []
    monkeypatch.setattr(order_module, "shuffled", lambda *key: made.append(key) or shuffled(*key))
    order = Order(40, 10, 0)
    for step in range(8):
        order.of_step(step)
    assert made == [(40, 0, 0), (40, 0, 1)]
