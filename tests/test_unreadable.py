"""Images that turn out to be unreadable: in mid-training, and where children are judged."""

import json

import numpy as np
import pytest
import torch
from made_shards import samples, write_shards, write_tar
from PIL import Image

from elastic_nas.config import AugmentConfig, DataConfig, TrainConfig
from elastic_nas.data import dataset as dataset_module
from elastic_nas.data import moments as moments_module
from elastic_nas.data import stream as stream_module
from elastic_nas.data.damage import allowed, listed
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.errors import DataError
from elastic_nas.network import Network
from elastic_nas.training.evaluation import Judge
from elastic_nas.training.loop import train
from elastic_nas.training.trainer import Trainer

torch.set_num_threads(1)
NETWORK = Network("tiny:size=8", 2)
PLAIN = Preprocess((0.5,) * 3, (0.2,) * 3)
STEPS = 8


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two classes of 240 pictures, read from their files at each step."""
    monkeypatch.setattr(stream_module, "CACHE_BYTES", 0)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(240):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number:03}.png")
    return tmp_path / "photos"


def damage(split, *indices):
    """Cut files of a split short; returns what they held."""
    held = {}
    for index in indices:
        path = split.images.root / split.images.names[split.rows[index]]
        held[path] = path.read_bytes()
        path.write_bytes(held[path][:-40])
    return held


def mend(held):
    for path, content in held.items():
        path.write_bytes(content)


def trainer_of(data, **changes):
    fields = {"steps": STEPS, "batch_size": 42, "augment": AugmentConfig(strong="none"),
              "threads": 1, "validations": 0, "random_children": 0}  # fmt: skip
    return Trainer(NETWORK, data, TrainConfig(**{**fields, **changes}), 0)


def weights(trainer):
    return [p.detach().clone() for p in trainer.supernet.parameters()]


def loaded(photos, rule="skip"):
    section = DataConfig().model_copy(update={"source": str(photos), "damaged": rule})
    return load_dataset(section)


def in_step(trainer, step):
    """The images that a step shows."""
    return trainer.stream._batches.order.of_step(step).indices.tolist()


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row.get("event") == "damaged"]


def test_one_in_a_hundred_may_be_damaged():
    assert [allowed(n, "skip") for n in (0, 1, 99, 100, 199, 200, 1_281_167)] == [
        0, 0, 0, 1, 1, 2, 12_811,
    ]  # fmt: skip
    assert allowed(10**6, "stop") == 0
    assert allowed(256, "skip", of=10_000) == 7
    assert allowed(256, "skip", of=300) == 3
    assert allowed(256, "stop", of=10_000) == 0
    assert listed(["a", "b"]) == "a; b"
    assert listed(list("abcdefg")) == "a; b; c; d; e; and 2 more"


def test_a_training_does_without_a_few_and_names_each_once(photos, tmp_path, capsys):
    data = loaded(photos)
    trainer = trainer_of(data, steps=20)  # two epochs and a half
    damage(data.train, 5, 17, 100)
    (tmp_path / "run").mkdir()
    train(trainer, tmp_path / "run", resume=False)
    said = capsys.readouterr().err
    assert said.count("a training image cannot be read; another takes its place") == 3
    assert len(rows_of(tmp_path / "run")) == 3


@pytest.mark.parametrize("every", [1, 10])
def test_too_many_end_a_training_after_a_checkpoint(photos, tmp_path, capsys, monkeypatch, every):
    """The guard has seen what is saved, also where it does not look at each step."""
    from elastic_nas.training import loop

    monkeypatch.setitem(loop.CHECK_EVERY, "cpu", every)
    whole = trainer_of(loaded(photos))
    (tmp_path / "whole").mkdir()
    train(whole, tmp_path / "whole", resume=False)
    data = loaded(photos)
    trainer = trainer_of(data)
    held = damage(data.train, *in_step(trainer, 2)[:2], *in_step(trainer, 5)[:2])
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError) as caught:
        train(trainer, tmp_path / "run", resume=False)
    assert "4 of 336 train images cannot be read, more than the 1%" in str(caught.value)
    assert all(str(path) in str(caught.value) for path in held)
    assert "the training is kept as it was after step 5 of 8" in capsys.readouterr().err
    again = trainer_of(loaded_as(data))
    with pytest.raises(DataError, match="4 of 336 train images cannot be read"):
        train(again, tmp_path / "run", resume=True)  # two are known, the others come at once
    mend(held)
    last = trainer_of(loaded_as(data))
    train(last, tmp_path / "run", resume=True)
    assert last.stream.damaged == {}
    assert not all(map(torch.equal, weights(last), weights(whole)))  # two were replaced


def loaded_as(data):
    """The same images, as a later command sees them."""
    return data


def test_what_was_met_before_an_interruption_counts_after_it(photos, tmp_path, capsys):
    data = loaded(photos)
    trainer = trainer_of(data)
    first, later = damage(data.train, *in_step(trainer, 1)[:3]), in_step(trainer, 6)[0]
    (tmp_path / "run").mkdir()
    stopped = trainer.step

    def step(number, *args):
        if number == 4:
            damage(data.train, later)
        return stopped(number, *args)

    trainer.step = step
    with pytest.raises(DataError, match="4 of 336"):
        train(trainer, tmp_path / "run", resume=False)
    assert len(rows_of(tmp_path / "run")) == 4
    with pytest.raises(DataError, match="4 of 336"):
        train(trainer_of(data), tmp_path / "run", resume=True)
    mend(dict([next(iter(first.items()))]))
    train(trainer_of(data), tmp_path / "run", resume=True)
    assert len(rows_of(tmp_path / "run")) == 4


def test_damaged_files_of_one_content_count_each(tmp_path, monkeypatch):
    """Their identities are all the same; before and after an interruption."""
    monkeypatch.setattr(stream_module, "CACHE_BYTES", 0)
    damaged = [f"{number:05}.png" for number in (8, 20, 32, 44)]
    every = samples(range(330))
    members = [(name, b"junk" if name in damaged else content) for name, content in every]
    write_tar(tmp_path / "train-0.tar", members)
    write_shards(tmp_path, "val", [3], first=1000)
    monkeypatch.setattr(dataset_module, "MOST_VALIDATION", 3)
    monkeypatch.setattr(dataset_module, "SAMPLE", 1)
    data = load_dataset(str(tmp_path))
    identities = data.train.images.identities.copy()
    identities[[8, 20, 32, 44]] = 0
    object.__setattr__(data.train.images, "identities", identities)
    fields = {"steps": 30, "batch_size": 32, "augment": AugmentConfig(strong="none"), "threads": 1,
              "validations": 0, "random_children": 0, "checkpoint_seconds": 1e-9}  # fmt: skip
    (tmp_path / "run").mkdir()
    for resume in (False, True):
        trainer = Trainer(Network("tiny:size=8", 3), data, TrainConfig(**fields), 0)
        with pytest.raises(DataError, match="4 of 327 train images cannot be read"):
            train(trainer, tmp_path / "run", resume=resume)


def test_with_stop_the_first_one_ends_the_training(photos, tmp_path, capsys):
    data = loaded(photos, "stop")
    trainer = trainer_of(data)
    held = damage(data.train, in_step(trainer, 3)[7])
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match=r"1 of 336 train .*data\.damaged is stop.*damaged=skip"):
        train(trainer, tmp_path / "run", resume=False)
    assert "after step 3 of 8" in capsys.readouterr().err
    mend(held)
    resumed, whole = trainer_of(data), trainer_of(data)
    train(resumed, tmp_path / "run", resume=True)
    (tmp_path / "whole").mkdir()
    train(whole, tmp_path / "whole", resume=False)
    assert all(map(torch.equal, weights(resumed), weights(whole)))


def test_where_the_first_batch_fails_nothing_is_left_to_go_on_from(photos, tmp_path, capsys):
    data = loaded(photos, "stop")
    trainer = trainer_of(data)
    damage(data.train, in_step(trainer, 0)[0])
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match="1 of 336"):
        train(trainer, tmp_path / "run", resume=False)
    assert "is kept" not in capsys.readouterr().err
    assert not (tmp_path / "run" / "supernet.safetensors").exists()


def test_a_shard_that_fails_ends_a_training_after_a_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stream_module, "CACHE_BYTES", 0)
    folder = tmp_path / "shards"
    (path,) = write_shards(folder, "train", [200])
    write_tar(folder / "val-0.tar", samples(range(200, 230)))
    data = load_dataset(str(folder))
    network = Network("tiny:size=8", 3)
    fields = {"steps": 6, "batch_size": 32, "augment": AugmentConfig(strong="none"), "threads": 1,
              "validations": 0, "random_children": 0}  # fmt: skip
    trainer, held = Trainer(network, data, TrainConfig(**fields), 0), path.read_bytes()
    inner = trainer.step

    def step(number, *args):
        if number == 3:
            path.unlink()
        return inner(number, *args)

    trainer.step = step
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match=r"cannot read the shard .*--resume"):
        train(trainer, tmp_path / "run", resume=False)
    assert "after step 4 of 6" in capsys.readouterr().err
    path.write_bytes(held)
    resumed, whole = (Trainer(network, data, TrainConfig(**fields), 0) for _ in range(2))
    train(resumed, tmp_path / "run", resume=True)
    (tmp_path / "whole").mkdir()
    train(whole, tmp_path / "whole", resume=False)
    assert all(map(torch.equal, weights(resumed), weights(whole)))


def test_a_validation_that_cannot_read_its_images_does_not_cost_the_training(
    photos, tmp_path, capsys
):
    data = loaded(photos)
    damage(data.validation, 0, 1)
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match="2 of 72 search-validation images cannot be read"):
        train(trainer_of(data, validations=1), tmp_path / "run", resume=False)
    assert "after step 8 of 8" in capsys.readouterr().err
    assert (tmp_path / "run" / "supernet.safetensors").exists()


def test_split_without_the_damaged_images(photos, capsys):
    train_split = loaded(photos).train
    before = train_split.deployed(PLAIN, 8)
    damage(train_split, 3, 300)
    later = train_split.subset(range(len(train_split)))
    with pytest.raises(DataError, match="cannot read the image"):
        later.deployed(PLAIN, 8)
    readable = later.readable(PLAIN, 8, "skip")
    left = np.delete(np.arange(336), [3, 300])
    np.testing.assert_array_equal(readable.labels, train_split.labels[left])
    np.testing.assert_array_equal(readable.rows, train_split.rows[left])
    np.testing.assert_array_equal(readable.deployed(PLAIN, 8), before[left])
    assert readable.deployed(PLAIN, 4).shape == (334, 3, 4, 4)
    assert readable.sha256 == train_split.subset(left).sha256 != train_split.sha256
    assert readable is later.readable(PLAIN, 6, "skip") is readable.readable(PLAIN, 6, "skip")
    said = capsys.readouterr().err
    assert said.count("2 of 336 train images cannot be read and are left out") == 1
    assert "334 are used" in said
    with pytest.raises(DataError, match=r"data\.damaged is stop"):
        train_split.subset(range(336)).readable(PLAIN, 8, "stop")
    damage(train_split, 4, 5)
    with pytest.raises(DataError, match="4 of 336 train images cannot be read, more than"):
        train_split.subset(range(336)).readable(PLAIN, 8, "skip")


def test_where_all_can_be_read_the_split_stays_itself_and_is_read_once(photos, monkeypatch):
    split = loaded(photos).validation
    assert split.readable(PLAIN, 8, "stop") is split
    monkeypatch.setattr(type(split), "_deploy", None)
    assert len(split.deployed(PLAIN, 8)) == len(split)


def test_children_are_judged_on_what_can_be_read(photos):
    data = loaded(photos)
    supernet = NETWORK.supernet(0)

    def judge():
        images = {"calibration_images": 120, "validation_images": 10_000}
        return Judge(NETWORK, supernet, data, device=torch.device("cpu"), **images)

    sound = judge()
    right = sound.right(sound.child(NETWORK.largest), sound.validation)
    drawn = sound.calibration.rows.tolist()
    damage(data.train, data.train.rows.tolist().index(drawn[0]))
    data = loaded_without_kept(data)
    other = judge()
    assert other.evaluate(NETWORK.smallest) <= 1
    assert other.calibration.rows.tolist() == drawn[1:]
    assert other.settings_hash != sound.settings_hash
    assert len(right) == len(data.validation)


def loaded_without_kept(data):
    """Whose splits have read nothing yet."""
    import dataclasses

    sides = {side: getattr(data, side) for side in ("train", "validation", "test")}
    fresh = {side: split.subset(range(len(split))) for side, split in sides.items()}
    return dataclasses.replace(data, **fresh)


def test_statistics_are_taken_of_images_that_can_be_read(tmp_path, capsys):
    members = samples(range(220))
    members[0] = (members[0][0], members[0][1][:-30])
    write_tar(tmp_path / "train-0.tar", members)
    write_shards(tmp_path, "val", [3])
    data = load_dataset(str(tmp_path))
    said = capsys.readouterr().err
    if 0 in data.train.rows:
        assert "train images cannot be read ('00000.png in " in said
        assert "others take their places in the statistics" in said
    with pytest.raises(DataError, match=r"data\.damaged is stop"):
        moments_module.statistics_of(data.train, 500, "stop")
