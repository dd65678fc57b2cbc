"""The training stream."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from made_shards import png, samples, write_shards, write_tar
from PIL import Image

from elastic_nas.data import stream as stream_module
from elastic_nas.data.augment import Augment
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.split import ArrayImages, FileImages, Split
from elastic_nas.data.stream import TrainStream
from elastic_nas.errors import DataError

torch.set_num_threads(1)

AUGMENT = Augment(flip=True)
PLAIN = Augment(crop_scale=(1.0, 1.0), flip=False, strong="none")


@pytest.fixture(scope="module")
def train():
    return load_dataset("digits").train.subset(range(100))


def stream(split, *, augment=AUGMENT, batch=16, seed=3, workers=0, rank=0, ranks=1):
    return TrainStream(split, augment, 12, batch, seed, workers, rank=rank, ranks=ranks)


def assert_same(batches, others):
    for (x, y), (other_x, other_y) in zip(batches, others, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def plain_split(n):
    """Image i is of grey level i and of class i."""
    pixels = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)
    return Split("train", np.arange(n), ArrayImages(pixels))


def test_batches_are_what_training_expects(train):
    batches = list(stream(train).batches(0, 3))
    assert len(batches) == 3
    for x, y in batches:
        assert x.shape == (16, 3, 12, 12)
        assert x.dtype == torch.uint8
        assert x.is_contiguous()
        assert y.shape == (16,)
        assert y.dtype == torch.int64
    assert stream(train).steps_per_epoch == 6


def test_a_resumed_stream_equals_the_uninterrupted(train):
    whole = list(stream(train).batches(0, 14))
    assert_same(whole[8:], stream(train).batches(8, 14))
    one = stream(train)
    assert_same(whole[8:], one.batches(8, 14))
    assert_same(whole[:3], one.batches(0, 3))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(train, workers):
    assert_same(stream(train).batches(4, 9), stream(train, workers=workers).batches(4, 9))


def test_workers_without_forks_change_nothing(train, monkeypatch):
    forked = list(stream(train).batches(0, 2))
    monkeypatch.setattr(stream_module.sys, "platform", "darwin")
    one = stream(train, workers=1)
    assert_same(forked, one.batches(0, 2))
    assert not one._batches._decoded


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order():
    epochs = stream(plain_split(40), augment=PLAIN, batch=10)
    labels = [torch.cat([y for _, y in epochs.batches(s, s + 4)]).tolist() for s in (0, 4)]
    assert [sorted(epoch) for epoch in labels] == [list(range(40))] * 2
    assert labels[0] != labels[1]
    assert labels[0] != sorted(labels[0])


def test_the_last_part_of_a_batch_is_dropped():
    one = stream(plain_split(39), augment=PLAIN, batch=10)
    assert one.steps_per_epoch == 3
    assert len({int(y) for _, ys in one.batches(0, 3) for y in ys}) == 30


def test_images_keep_their_labels():
    for x, y in stream(plain_split(40), augment=PLAIN).batches(0, 4):
        assert x[:, 0, 6, 6].tolist() == y.tolist()


def test_images_are_augmented_apart_and_anew_in_each_epoch():
    image = np.random.default_rng(0).integers(0, 255, (1, 16, 16, 3), dtype=np.uint8)
    split = Split("train", np.zeros(64, np.int64), ArrayImages(image.repeat(64, axis=0)))
    (first, _), (second, _) = stream(split, batch=64).batches(0, 2)
    assert len({x.numpy().tobytes() for x in first}) > 55
    assert len({x.numpy().tobytes() for x in torch.cat([first, second])}) > 110


def test_a_seed_is_a_stream(train):
    (x, _), (other, _) = (next(stream(train, seed=seed).batches(0, 1)) for seed in (0, 1))
    assert not torch.equal(x, other)


def test_a_small_split_fills_a_batch_and_says_so(capsys):
    one = stream(plain_split(6), batch=15)
    assert "6 train images are repeated to fill a batch of 15" in capsys.readouterr().err
    assert one.steps_per_epoch == 1
    _, y = next(one.batches(2, 3))
    assert sorted(torch.bincount(y).tolist()) == [2, 2, 2, 3, 3, 3]


def test_copies_of_an_image_in_one_batch_differ(train, capsys):
    x, _ = next(stream(train.subset([0]), batch=32).batches(0, 1))
    assert len({image.numpy().tobytes() for image in x}) > 20


def test_global_generators_are_left_alone(train):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(stream(train, workers=1).batches(0, 2))
    list(stream(train).batches(0, 2))
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def files(tmp_path, n=20):
    for i in range(n):
        Image.new("RGB", (30, 40), (i, i, i)).save(tmp_path / f"{i}.png")
    names = [f"{i}.png" for i in range(n)]
    return Split("train", np.arange(n), FileImages(tmp_path, names, [0] * n))


@pytest.mark.parametrize("n", [60, 120])  # all of them, or 100, tell the size
def test_small_folders_are_decoded_once(tmp_path, n):
    one = stream(files(tmp_path, n))
    list(one.batches(0, 1))
    for path in tmp_path.iterdir():
        path.unlink()
    assert len(list(one.batches(1, 3))) == 2


def test_large_folders_are_decoded_when_needed_to_the_same_end(tmp_path, monkeypatch):
    split = files(tmp_path, 120)
    expected = list(stream(split).batches(0, 3))
    monkeypatch.setattr(stream_module, "CACHE_BYTES", 120 * 4 * 20 * 20)
    one = stream(split)
    assert_same(expected, one.batches(0, 3))
    assert not one._batches._decoded


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("rule", "broken"), [("stop", ["113.png"]), ("skip", ["3.png", "113.png"])]
)
def test_images_that_are_not_done_without_are_named(tmp_path, monkeypatch, workers, rule, broken):
    """One of 120 where none may be damaged; two where one may."""
    split = files(tmp_path, 120)
    monkeypatch.setattr(stream_module, "CACHE_BYTES", 0)
    for name in broken:
        (tmp_path / name).write_bytes(b"junk")
    one = stream(split, batch=120, workers=workers)
    one.rule = rule
    with pytest.raises(DataError) as caught:
        list(one.batches(0, 1))
    assert f"{len(broken)} of 120 train images cannot be read" in str(caught.value)
    assert all(name in str(caught.value) for name in broken)
    assert "--resume" in str(caught.value)
    assert ("--set data.damaged=skip" in str(caught.value)) == (rule == "stop")
    assert "Traceback" not in str(caught.value)
    assert not multiprocessing.active_children()


def classes_of_three(folder, damaged=()):
    """Images of grey level i, three neighbours of a class, some cut short."""
    for i in range(201):
        Image.new("RGB", (30, 40), (i, i, i)).save(folder / f"{i}.png")
    for i in damaged:
        path = folder / f"{i}.png"
        path.write_bytes(path.read_bytes()[:50])
    names = [f"{i}.png" for i in range(201)]
    return Split("train", np.arange(201) // 3, FileImages(folder, names, [0] * 201))


def shown(batches):
    return [
        pair for x, y in batches for pair in zip(x[:, 0, 6, 6].tolist(), y.tolist(), strict=True)
    ]


@pytest.mark.parametrize("kept", [True, False], ids=["decoded", "read"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_image_of_its_class_takes_the_place_of_a_damaged_one(
    tmp_path, monkeypatch, kept, workers
):
    if not kept:
        monkeypatch.setattr(stream_module, "CACHE_BYTES", 0)
    sound = shown(stream(classes_of_three(tmp_path), augment=PLAIN).batches(0, 24))
    one = stream(classes_of_three(tmp_path, [7, 8]), augment=PLAIN, workers=workers)
    found = shown(one.batches(0, 24))
    assert found == [(6, 2) if level in (7, 8) else (level, label) for level, label in sound]
    assert {index: told.split(":")[0].strip("'") for index, told in one.damaged.items()} == {
        index: str(tmp_path / f"{index}.png") for index in (7, 8)
    }


def test_where_a_whole_class_is_damaged_another_one_takes_its_place(tmp_path):
    split = classes_of_three(tmp_path, [6, 8]).subset([i for i in range(201) if i != 7])
    found = shown(stream(split, augment=PLAIN).batches(0, 12))
    assert (9, 3) in found
    assert all(level // 3 == label and label != 2 for level, label in found)


def test_resumed_streams_ranks_and_kept_images_replace_alike(tmp_path, monkeypatch):
    split = classes_of_three(tmp_path, [0, 200])
    whole = list(stream(split).batches(0, 14))
    assert_same(whole[9:], stream(split).batches(9, 14))
    parts = [stream(split, rank=rank, ranks=2) for rank in (0, 1)]
    both = zip(*(part.batches(3, 14) for part in parts), strict=True)
    assert_same(whole[3:], [tuple(map(torch.cat, zip(*of_step, strict=True))) for of_step in both])
    monkeypatch.setattr(stream_module, "CACHE_BYTES", 0)
    assert_same(whole, stream(split).batches(0, 14))


def test_damaged_members_of_shards_are_replaced(tmp_path):
    """The member is there, whole by its header, but its picture is cut short."""
    members = samples(range(220))
    members[200] = (members[200][0], members[200][1][:-30])
    write_tar(tmp_path / "train-0.tar", members)
    write_shards(tmp_path, "val", [3])
    split = load_dataset(str(tmp_path)).train
    one = stream(split)
    assert len(list(one.batches(0, one.steps_per_epoch))) == len(split) // 16
    (told,) = one.damaged.values()
    assert "00100.png in " in told


def test_a_damaged_image_of_the_sample_that_tells_the_size_is_no_end(tmp_path):
    one = stream(classes_of_three(tmp_path, [0]))
    list(one.batches(0, 1))
    assert list(one.damaged) == [0]


def test_long_thin_images_are_not_all_kept_in_memory(tmp_path, monkeypatch):
    split = files(tmp_path, 120)
    Image.new("RGB", (20_000, 1)).save(tmp_path / "113.png")  # none of the sample
    monkeypatch.setattr(stream_module, "CACHE_BYTES", 120 * 4 * 24 * 32 + 120 * 1000)
    one = stream(split)
    assert len(list(one.batches(0, 1))) == 1
    assert len(one._batches._decoded) == 120
    for number in (113, 114, 115, 116):
        Image.new("RGB", (60_000, 1)).save(tmp_path / f"{number}.png")
    one = stream(split)
    assert len(list(one.batches(0, 1))) == 1
    assert not one._batches._decoded


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_that_runs_out_is_told_in_plain_words(train, workers):
    class Greedy(Augment):
        def __call__(self, image, resolution, rng):
            raise MemoryError

    with pytest.raises(DataError, match="no memory left to prepare images"):
        list(stream(train, augment=Greedy(), workers=workers).batches(0, 1))
    assert not multiprocessing.active_children()


def test_what_fails_while_fetching_ahead_is_left_to_the_step(tmp_path, monkeypatch, capsys):
    split = of_shards(tmp_path)
    monkeypatch.setattr(stream_module, "CACHE_BYTES", 0)
    monkeypatch.setattr(split, "fetch", lambda indices: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(stream(split).batches(0, 1))
    assert "Traceback" not in capsys.readouterr().err


def test_decoded_images_are_no_larger_than_needed(tmp_path):
    Image.new("RGB", (400, 300)).save(tmp_path / "0.png")
    split = Split("train", np.zeros(1, np.int64), FileImages(tmp_path, ["0.png"], [0]))
    image = stream(split, batch=1)._batches._image(0)
    assert min(image.size) == np.ceil(12 / (0.35 * 3 / 4) ** 0.5) == 24
    assert image.size == (32, 24)


def test_more_workers_than_processors_are_not_started(train):
    assert stream(train, workers=500)._workers < 500
    assert len(list(stream(train, workers=500).batches(0, 1))) == 1


def test_an_abandoned_stream_ends_its_workers(train):
    batches = stream(train, workers=2).batches(0, 6)
    next(batches)
    assert multiprocessing.active_children()
    batches.close()
    assert not multiprocessing.active_children()


def of_array(folder):
    return load_dataset("digits").train.subset(range(0, 1000, 9))


def of_files(folder):
    for n in range(110):
        (folder / f"{n}.png").write_bytes(png(n))
    names = [f"{n}.png" for n in range(110)]
    return Split("train", np.arange(110) % 3, FileImages(folder, names, [0] * 110))


def of_shards(folder):
    write_shards(folder, "train", [40, 7, 31, 60])
    write_shards(folder, "val", [3])
    return load_dataset(str(folder)).train


def of_hub(folder):
    hub = pytest.importorskip("datasets")
    hub.disable_progress_bars()
    kinds = {"image": hub.Image(), "label": hub.ClassLabel(names=["a", "b", "c"])}
    cells = {
        "image": [{"bytes": png(n), "path": None} for n in range(160)],
        "label": [n % 3 for n in range(160)],
    }
    hub.Dataset.from_dict(cells, features=hub.Features(kinds)).save_to_disk(str(folder / "saved"))
    return load_dataset(f"hf:{folder / 'saved'}").train


@pytest.mark.parametrize("kept", [True, False], ids=["decoded", "read"])
@pytest.mark.parametrize("source", [of_array, of_files, of_shards, of_hub])
def test_resumed_streams_of_all_sources_ranks_and_workers_are_exact(
    source, kept, tmp_path, monkeypatch
):
    """From step 9 on, in the second of its epochs, as if nothing had been interrupted."""
    if not kept:
        monkeypatch.setattr(stream_module, "CACHE_BYTES", 0)
    split = source(tmp_path)
    for rank, ranks in ((0, 1), (0, 2), (1, 2)):
        whole = list(stream(split, rank=rank, ranks=ranks).batches(0, 14))
        for workers in (0, 2) if rank == ranks - 1 else (0,):
            resumed = stream(split, rank=rank, ranks=ranks, workers=workers)
            assert_same(whole[9:], resumed.batches(9, 14))
    assert whole[0][0].shape == (8, 3, 12, 12)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_show_the_batches_of_one_process(train, ranks):
    parts = [stream(train, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert {part.steps_per_epoch for part in parts} == {stream(train).steps_per_epoch}
    shown = zip(*(part.batches(3, 9) for part in parts), strict=True)
    joined = [tuple(map(torch.cat, zip(*of_step, strict=True))) for of_step in shown]
    assert_same(stream(train).batches(3, 9), joined)


class Untouched(Augment):
    """No augmentation."""

    def __call__(self, image, resolution, rng):
        return np.asarray(image)


def test_ranks_together_show_each_image_of_the_shards_once(tmp_path):
    """All ranks have as many steps, however unequal the shards."""
    split = of_shards(tmp_path)
    every = {image_of(split, i): i for i in range(len(split))}
    augment = Untouched(flip=False)
    parts = [stream(split, augment=augment, batch=12, rank=rank, ranks=3) for rank in range(3)]
    (steps,) = {part.steps_per_epoch for part in parts}
    assert steps == len(split) // 12
    shown = [
        (every[x.numpy().tobytes()], int(y))
        for part in parts
        for xs, ys in part.batches(0, steps)
        for x, y in zip(xs, ys, strict=True)
    ]
    assert len(set(shown)) == len(shown) == steps * 12
    assert all(split.labels[i] == label for i, label in shown)


def image_of(split, index):
    return np.asarray(split.image(index)).transpose(2, 0, 1).tobytes()


def test_more_ranks_than_images_are_refused():
    with pytest.raises(DataError, match="6 processes cannot share 5 train images"):
        stream(plain_split(5), batch=6, ranks=6)
    assert stream(plain_split(5), batch=10, rank=4, ranks=5).steps_per_epoch == 1


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_that_is_killed_is_told_in_plain_words(train, busy):
    """At the next batch, not at any moment of the step that the main process is busy with."""
    batches = stream(train, workers=2).batches(0, 500)
    next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
    if busy:
        time.sleep(0.3)
    with pytest.raises(DataError, match=r"has died; mostly, memory .* train\.workers .*--resume"):
        list(batches)
    assert not multiprocessing.active_children()


def test_other_errors_of_workers_are_defects_and_stay_what_they_are():
    def broken(message):
        raise RuntimeError(message)
        yield

    with pytest.raises(RuntimeError, match="Caught"):
        stream_module._next(broken("Caught RuntimeError in DataLoader worker process 0."))
    told = stream_module._next(broken("DataLoader worker (pid(s) 7) exited unexpectedly"))
    assert isinstance(told, DataError)


def test_batches_are_prepared_before_they_are_asked_for(train, monkeypatch):
    """With workers: while the first batch is in use, the next ones are made."""
    made, of_step = (
        multiprocessing.get_context("fork").Semaphore(0),
        stream_module._Batches.__getitem__,
    )

    def counted(self, step):
        made.release()
        return of_step(self, step)

    monkeypatch.setattr(stream_module._Batches, "__getitem__", counted)
    batches = stream(train, workers=1).batches(0, 9)
    next(batches)
    assert all(made.acquire(timeout=20) for _ in range(3))
    batches.close()
