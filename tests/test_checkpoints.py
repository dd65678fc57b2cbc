"""Checkpoints: what they hold, which are kept, what damage costs, what a recipe may change."""

import errno
import hashlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from elastic_nas.budgets import format_size
from elastic_nas.config import AugmentConfig, TrainConfig
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.record import SIDES
from elastic_nas.errors import CheckpointError, ConfigError, DamagedCheckpoint, RunFolderError
from elastic_nas.network import Network
from elastic_nas.runs import RunFolder
from elastic_nas.training.belongs import check_belongs
from elastic_nas.training.checkpoint import (
    FILE_NAME,
    Progress,
    load_checkpoint,
    read_facts,
    read_progress,
    save_checkpoint,
)
from elastic_nas.training.checkpoints import Checkpoints
from elastic_nas.training.distributed import Ranks
from elastic_nas.training.origin import commit
from elastic_nas.training.recipe import FREE, changes
from elastic_nas.training.trainer import Trainer

NETWORK = Network("tiny:size=8", 10)


@pytest.fixture(scope="module")
def few():
    digits = load_dataset("digits")
    return replace(digits, train=digits.train.subset(range(32)))


@pytest.fixture
def trainer_of(few):
    def make(seed=0, **fields) -> Trainer:
        plain = {"augment": AugmentConfig(strong="none"), "threads": 1, "batch_size": 8}
        return Trainer(NETWORK, few, TrainConfig(steps=9, **{**plain, **fields}), seed)

    return make


@pytest.fixture
def trained(trainer_of):
    """A trainer after one step, so that its optimiser has a state."""

    def make(**fields) -> Trainer:
        trainer = trainer_of(**fields)
        trainer.step(0, 9, *next(trainer.stream.batches(0, 1)))
        return trainer

    return make


@pytest.fixture(scope="module")
def sound(few, tmp_path_factory) -> bytes:
    """A small checkpoint."""
    path = tmp_path_factory.mktemp("sound") / FILE_NAME
    save_checkpoint(path, NETWORK, NETWORK.supernet(), Progress(3, 9))
    return path.read_bytes()


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def saved(folder: Path, trainer: Trainer, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, trainer)
    for step in steps:
        checkpoints.save(Progress(step, 9))
    return checkpoints


# --- what they hold -------------------------------------------------------------------------------


def test_the_file_says_what_it_belongs_to(trained, tmp_path):
    trainer = trained(ema=0.9)
    Checkpoints(tmp_path, trainer).save(Progress(1, 9, {"rate": 0.5}), 0.75)
    facts = read_facts(tmp_path / FILE_NAME)
    assert facts["schema"] == "elastic-supernet/2"
    assert (facts["space"], facts["identity"]) == ("tiny:size=8", NETWORK.identity)
    assert (facts["classes"], facts["seed"], facts["processes"]) == (10, 0, 1)
    assert facts["preprocess"] == trainer.data.preprocess.describe()
    assert facts["train"] == trainer.config.model_dump()
    assert facts["versions"]["torch"] == torch.__version__
    assert (facts["step"], facts["steps"], facts["guard"]) == (1, 9, {"rate": 0.5})
    assert facts["score"] == 0.75
    names = {name.split(".")[0] for name in load_file(tmp_path / FILE_NAME)}
    assert names == {"weights", "optimizer", "average"}


def test_the_hash_is_of_metadata_and_tensors_as_described(trained, tmp_path):
    trainer = trained(optimizer="adamw")
    saved(tmp_path, trainer, 1)
    with safe_open(tmp_path / FILE_NAME, framework="np") as file:
        facts = json.loads(file.metadata()["elastic_nas"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    told = facts.pop("sha256")
    naive = json.dumps(facts, sort_keys=True).encode()
    for name in sorted(arrays):
        assert arrays[name].dtype == np.float32
        naive += f"{name} torch.float32 {arrays[name].shape}".encode() + arrays[name].tobytes()
    assert hashlib.sha256(naive).hexdigest() == told


def test_the_same_state_gives_the_same_file(trained, tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / name, trained(), 1)
    assert (tmp_path / "a" / FILE_NAME).read_bytes() == (tmp_path / "b" / FILE_NAME).read_bytes()


def test_what_was_loaded_does_not_hang_on_the_file(trained, tmp_path):
    saved(tmp_path, trained(), 1)
    trainer = trained(seed=1)
    load_checkpoint(tmp_path / FILE_NAME, NETWORK, trainer.supernet, trainer.optimizer)
    entries = trainer.optimizer.state_dict()["state"].values()
    before = [entry["momentum_buffer"].clone() for entry in entries]
    path = tmp_path / FILE_NAME
    path.write_bytes(b"\xff" * path.stat().st_size)  # in place, as `cp` does
    assert all(
        torch.equal(entry["momentum_buffer"], b) for entry, b in zip(entries, before, strict=True)
    )


def test_files_without_a_hash_are_still_read(trained, tmp_path):
    trainer = trained()
    saved(tmp_path, trainer, 1)
    path, facts = tmp_path / FILE_NAME, read_facts(tmp_path / FILE_NAME)
    old = {key: facts[key] for key in ("space", "identity", "classes", "step", "steps")}
    old |= {"schema": "elastic-supernet/1", "version": "0.1.0", "torch": "2.13.0"}
    tensors = load_file(path)
    save_file(tensors, path, {"elastic_nas": json.dumps(old)})
    fresh = trained(seed=1)
    fresh.seed = 0  # other weights, but a training of the same seed
    assert Checkpoints(tmp_path, fresh).load() == Progress(1, 9)
    assert all(map(torch.equal, fresh.supernet.parameters(), trainer.supernet.parameters()))
    save_file(tensors, path, {"elastic_nas": json.dumps({**facts, "step": 2})})
    with pytest.raises(DamagedCheckpoint, match="its hash is not that of its contents"):
        read_progress(path, NETWORK)


@pytest.mark.parametrize("key", ["sha256", "versions", "commit", "train", "seed", "score"])
def test_an_older_schema_does_not_switch_the_hash_off(trained, tmp_path, key):
    saved(tmp_path, trained(), 1)
    path, facts = tmp_path / FILE_NAME, read_facts(tmp_path / FILE_NAME)
    old = {k: facts[k] for k in ("space", "identity", "classes", "step", "steps")}
    old |= {"schema": "elastic-supernet/1", "version": "0.1.0", "torch": "2.13.0"}
    save_file(load_file(path), path, {"elastic_nas": json.dumps({**old, key: facts[key]})})
    with pytest.raises(DamagedCheckpoint, match=f"unknown key '{key}'"):
        read_progress(path, NETWORK)
    new = {k: v for k, v in facts.items() if k != "sha256"}
    save_file(load_file(path), path, {"elastic_nas": json.dumps(new)})
    with pytest.raises(DamagedCheckpoint, match="sha256: it is missing"):
        read_progress(path, NETWORK)


def test_a_file_without_a_hash_is_said_once(sound, tmp_path, capsys):
    path = tmp_path / FILE_NAME
    path.write_bytes(sound)
    facts = read_facts(path)
    old = {k: facts[k] for k in ("space", "identity", "classes", "step", "steps")}
    old |= {"schema": "elastic-supernet/1", "version": "0.1.0", "torch": "2.13.0"}
    save_file(load_file(path), path, {"elastic_nas": json.dumps(old)})
    for _ in range(2):
        load_checkpoint(path, NETWORK, NETWORK.supernet())
    assert capsys.readouterr().err.count("has no hash") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": True}, "step: must be a valid integer, got True"),
        ({"step": 10**13}, "step: must be less than"),
        ({"steps": 2}, "it says step 3 of 2"),
        ({"seed": -1}, "seed: must be greater"),
        ({"seed": 1.0}, "seed: must be a valid integer"),
        ({"space": ""}, "space: String should have at least 1"),
        ({"guard": {"means": {"largest": 1e40}}}, "guard.means.largest: must be less"),
        ({"guard": {"means": {"largest": "x"}}}, "guard.means.largest: must be a valid number"),
        ({"guard": {"rate": 7.0}}, "guard.rate: must be less"),
        ({"guard": {"other": 1}}, "unknown key 'guard.other'"),
        ({"guard": []}, "guard: must be a valid dictionary"),
        ({"train": [1]}, "train: must be a valid dictionary"),
        ({"processes": 0}, "processes: must be greater"),
        ({"splits": {"train": "x"}}, "splits.train"),
        ({"statistics": "mine"}, "statistics: must be 'data' or 'imagenet'"),
        ({"versions": {"torch": 3}}, "versions.torch: must be a valid string"),
        ({"score": "high"}, "score: must be a valid number"),
        ({"surprise": 1}, "unknown key 'surprise'"),
    ],
    ids=str,
)
def test_metadata_that_no_training_writes_is_named(sound, tmp_path, changes, said):
    path = tmp_path / FILE_NAME
    path.write_bytes(sound)
    facts, tensors = {**read_facts(path), **changes}, load_file(path)
    save_file(tensors, path, {"elastic_nas": json.dumps(facts)})
    with pytest.raises(DamagedCheckpoint, match=re.escape(said)):
        read_facts(path)


@pytest.mark.parametrize("text", ['{"step": 1, "step": 2}', '{"score": NaN}', "9" * 30, "[" * 99])
def test_metadata_that_is_no_plain_json_is_refused(sound, tmp_path, text):
    path = tmp_path / FILE_NAME
    path.write_bytes(sound)
    save_file(load_file(path), path, {"elastic_nas": text})
    with pytest.raises(DamagedCheckpoint, match="is damaged or no checkpoint"):
        read_facts(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32, torch.bool])
def test_tensors_of_another_type_are_refused_before_they_are_read(sound, tmp_path, dtype):
    path = tmp_path / FILE_NAME
    path.write_bytes(sound)
    facts, tensors = read_facts(path), load_file(path)
    name = min(tensors)
    save_file({**tensors, name: tensors[name].to(dtype)}, path, {"elastic_nas": json.dumps(facts)})
    with pytest.raises(DamagedCheckpoint, match="is none of the 32-bit floats"):
        read_facts(path)
    extra = {**tensors, "other.weight": torch.zeros(1)}
    save_file(extra, path, {"elastic_nas": json.dumps(facts)})
    with pytest.raises(DamagedCheckpoint, match="is none of the 32-bit floats"):
        read_facts(path)


@pytest.mark.parametrize("length", [0, 1 << 27, 1 << 62, (1 << 64) - 1])
def test_a_header_of_an_impossible_length_is_not_read(tmp_path, length):
    path = tmp_path / FILE_NAME
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(1 << 28)  # a sparse file, so that the length alone could be true
    with pytest.raises(DamagedCheckpoint, match="impossible length"):
        read_facts(path)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_optimisers_without_momentum_resume_too(trained, tmp_path, name, momentum):
    trainer = trained(optimizer=name, momentum=momentum)
    saved(tmp_path, trainer, 1)
    fresh = trained(seed=1, optimizer=name, momentum=momentum)
    fresh.seed = 0
    Checkpoints(tmp_path, fresh).load()
    mine, theirs = (t.optimizer.state_dict()["state"] for t in (fresh, trainer))
    for number, entry in theirs.items():
        for key, value in entry.items():
            assert value is None or torch.equal(mine[number][key], value)


# --- which are kept -------------------------------------------------------------------------------


def test_the_newest_and_the_best_are_kept_and_take_space_once(trainer_of, tmp_path):
    run, checkpoints = RunFolder(tmp_path), Checkpoints(tmp_path, trainer_of(keep_checkpoints=2))
    for step, score in enumerate((0.2, 0.6, None, 0.6, 0.5, None, None), 1):
        checkpoints.save(Progress(step, 9), score)
        assert read_facts(run.weights)["step"] == step
        assert run.kept == [*range(max(1, step - 1), step + 1)]
        assert run.weights.samefile(run.checkpoint(step))
    assert read_facts(run.best)["step"] == 4  # as good as the second, and trained longer
    assert len({path.stat().st_ino for path in run.checkpoints}) == 3
    checkpoints = Checkpoints(tmp_path, trainer_of(keep_checkpoints=1))
    checkpoints.load()
    assert run.kept == [7]  # at once
    checkpoints.save(Progress(8, 9), 0.59)
    assert read_facts(run.best)["score"] == 0.6  # it is remembered
    checkpoints.save(Progress(9, 9), 0.61)
    assert read_facts(run.best)["step"] == 9


def test_a_training_from_the_beginning_keeps_nothing_of_another(trainer_of, tmp_path):
    Checkpoints(tmp_path, trainer_of()).save(Progress(2, 9), 0.9)
    saved(tmp_path, trainer_of(seed=1), 1)
    assert kept(tmp_path) == ["step-00000001.safetensors"]


def test_what_lies_beyond_the_point_gone_back_to_is_dropped(trainer_of, tmp_path):
    saved(tmp_path, trainer_of(), 1, 2, 3)
    run = RunFolder(tmp_path)
    shutil.copy(run.checkpoint(1), tmp_path / "copy")
    os.replace(tmp_path / "copy", run.weights)  # as a person does who wants to go back
    checkpoints = Checkpoints(tmp_path, trainer_of(keep_checkpoints=2))
    assert checkpoints.load().step == 1
    assert run.kept == [1, 2, 3]  # until there is something newer
    checkpoints.save(Progress(2, 9))
    assert run.kept == [1, 2]


def test_going_back_may_store_the_same_step_again(trainer_of, tmp_path):
    checkpoints = saved(tmp_path, trainer_of(keep_checkpoints=2), 1, 2)
    checkpoints.load()
    checkpoints.save(Progress(2, 9, {"rate": 0.5}))
    assert RunFolder(tmp_path).kept == [1, 2]
    assert read_facts(tmp_path / FILE_NAME)["guard"] == {"rate": 0.5}


def test_without_links_there_are_copies(trainer_of, tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", none)
    run = RunFolder(tmp_path)
    Checkpoints(tmp_path, trainer_of()).save(Progress(1, 9), 0.5)
    contents = {path.read_bytes() for path in run.checkpoints}
    assert (len(contents), len(run.checkpoints)) == (1, 3)
    assert not run.weights.samefile(run.checkpoint(1))
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", FILE_NAME]


def test_other_files_among_the_checkpoints_stay(trainer_of, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("notes.txt", "step-1.safetensors", "step-00000001.safetensors.bak"):
        (tmp_path / "checkpoints" / name).touch()
    (tmp_path / "checkpoints" / "step-00000009.safetensors").mkdir()
    saved(tmp_path, trainer_of(keep_checkpoints=1), 1, 2)
    assert kept(tmp_path) == [
        "notes.txt", "step-00000001.safetensors.bak", "step-00000002.safetensors",
        "step-00000009.safetensors", "step-1.safetensors",
    ]  # fmt: skip


def test_a_full_disk_tells_what_a_checkpoint_takes(trainer_of, tmp_path, monkeypatch):
    run, trainer = RunFolder(tmp_path), trainer_of(keep_checkpoints=7)
    checkpoints = saved(tmp_path, trainer, 1)
    before = {path: path.read_bytes() for path in run.checkpoints}

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunFolderError) as caught:
            checkpoints.save(Progress(2, 9))
    message = str(caught.value)
    assert "step-00000002.safetensors: No space left on device" in message
    size = len(before[run.weights])
    assert f"A checkpoint takes {format_size(size)};" in message
    assert f"up to 9, which take {format_size(9 * size)}. Go on with fewer" in message
    assert "--resume --set train.keep_checkpoints=1" in message
    assert {path: path.read_bytes() for path in run.checkpoints} == before
    checkpoints.save(Progress(2, 9))
    assert run.kept == [1, 2]


# --- damage ---------------------------------------------------------------------------------------


def test_no_flipped_bit_goes_unnoticed(sound, tmp_path):
    path, rng = tmp_path / FILE_NAME, random.Random(0)
    (length,) = struct.unpack("<Q", sound[:8])
    places = [*range(8), *rng.sample(range(8, 8 + length), 150)]
    places += [*rng.sample(range(8 + length, len(sound)), 40), len(sound) - 1]
    start = sound.index(b"elastic_nas")
    places += [*range(start, start + 60)]
    for place in places:
        flipped = bytearray(sound)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"damaged|was trained for"):
            read_progress(path, NETWORK)
    path.write_bytes(sound)
    assert read_progress(path, NETWORK) == Progress(3, 9)


def test_no_truncation_goes_unnoticed(sound, tmp_path):
    path = tmp_path / FILE_NAME
    (length,) = struct.unpack("<Q", sound[:8])
    for size in (0, 1, 7, 8, 9, length, 8 + length, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:size])
        with pytest.raises(DamagedCheckpoint):
            load_checkpoint(path, NETWORK, NETWORK.supernet())
    path.write_bytes(sound + b"\0")
    with pytest.raises(DamagedCheckpoint):
        read_progress(path, NETWORK)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["weights", "average"])
def test_weights_that_are_no_numbers_are_refused_with_a_sound_hash(trained, tmp_path, value, part):
    trainer = trained(ema=0.9)
    own = (
        dict(trainer.supernet.named_parameters()) if part == "weights" else trainer.average.tensors
    )
    name, tensor = list(own.items())[3]
    tensor.data.view(-1)[-1] = value
    save_checkpoint(
        tmp_path / FILE_NAME, NETWORK, trainer.supernet, Progress(1, 9), None, trainer.average
    )
    with pytest.raises(DamagedCheckpoint, match=rf"{part}\.{name} holds NaN or infinity"):
        load_checkpoint(tmp_path / FILE_NAME, NETWORK, NETWORK.supernet())


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-9],
    "flipped": flip,
    "garbage": lambda content: random.Random(0).randbytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(
    trainer_of, tmp_path, capsys, damage
):
    run = RunFolder(tmp_path)
    before = trainer_of(seed=5)
    before.seed = 0  # other weights, but a training of the same seed
    saved(tmp_path, before, 3, 5, 8)
    content = run.weights.read_bytes()
    run.weights.write_bytes(damage(content))  # both of its names
    fresh = trainer_of()
    assert Checkpoints(tmp_path, fresh).load().step == 5
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {run.weights} is damaged")
    assert f"Going back to {run.checkpoint(5)}, step 5: 3 steps are lost" in said
    assert all(map(torch.equal, fresh.supernet.parameters(), before.supernet.parameters()))
    assert read_progress(run.weights, NETWORK).step == 5  # what all other commands read
    Checkpoints(tmp_path, fresh).load()
    assert not capsys.readouterr().err


def test_only_the_latest_name_is_damaged_or_missing(trainer_of, tmp_path, capsys):
    saved(tmp_path, trainer_of(), 3, 5)
    run = RunFolder(tmp_path)
    for damage in (run.weights.unlink, lambda: run.weights.write_bytes(b"")):
        os.replace(shutil.copy(run.checkpoint(5), tmp_path / "x"), run.checkpoint(5))
        damage()
        assert Checkpoints(tmp_path, trainer_of()).load().step == 5
        said = capsys.readouterr().err
        assert str(run.weights) in said
        assert "no steps are lost" in said
        assert run.weights.samefile(run.checkpoint(5))


def test_the_best_is_the_last_resort_and_then_there_is_one_clear_error(
    trainer_of, tmp_path, capsys
):
    trainer, run = trainer_of(keep_checkpoints=1), RunFolder(tmp_path)
    checkpoints = Checkpoints(tmp_path, trainer)
    checkpoints.save(Progress(1, 9), 0.5)
    checkpoints.save(Progress(2, 9), 0.4)
    run.weights.write_bytes(b"")
    again = Checkpoints(tmp_path, trainer)
    assert again.load().step == 1
    assert "best.safetensors, step 1: 1 step is lost" in capsys.readouterr().err
    again.save(Progress(2, 9), 0.4)
    assert read_facts(run.best)["step"] == 1
    for path in run.checkpoints:
        path.write_bytes(b"PK")
    with pytest.raises(CheckpointError) as caught:
        again.load()
    message = str(caught.value)
    assert message.startswith(f"no checkpoint of {tmp_path} is sound:\n")
    assert all(str(path) in message for path in run.checkpoints)
    assert message.endswith("Restore one from a copy, or train anew with another --out.")
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(DamagedCheckpoint, match="is damaged or no checkpoint"):
        again.load()
    run.weights.unlink()
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        again.load()


def test_a_damaged_best_is_replaced_by_the_next(trainer_of, tmp_path):
    trainer, run = trainer_of(keep_checkpoints=1), RunFolder(tmp_path)
    checkpoints = Checkpoints(tmp_path, trainer)
    for step, score in ((1, 0.9), (2, 0.1)):
        checkpoints.save(Progress(step, 9), score)
    run.best.write_bytes(b"")
    checkpoints = Checkpoints(tmp_path, trainer)
    checkpoints.load()
    checkpoints.save(Progress(3, 9), 0.2)
    assert read_facts(run.best)["step"] == 3


def test_another_network_is_an_error_and_no_damage(trainer_of, tmp_path):
    saved(tmp_path, trainer_of(), 1, 2)
    save_checkpoint(tmp_path / FILE_NAME, NETWORK, NETWORK.supernet(), Progress(1, 1))
    other = Network("tiny:size=8", 9)
    save_checkpoint(tmp_path / FILE_NAME, other, other.supernet(), Progress(1, 1))
    with pytest.raises(CheckpointError, match="9 classes, not for") as caught:
        Checkpoints(tmp_path, trainer_of()).load()
    assert not isinstance(caught.value, DamagedCheckpoint)


# --- another recipe -------------------------------------------------------------------------------


def test_what_changes_only_the_length_place_and_watching_goes_unsaid(trained, tmp_path, capsys):
    saved(tmp_path, trained(), 1)
    free = {"workers": 1, "checkpoint_seconds": 5.0, "validations": 3, "keep_checkpoints": 9}
    Checkpoints(tmp_path, trained(**free)).load()
    assert not capsys.readouterr().err
    assert TrainConfig.model_fields.keys() >= FREE


def test_a_changed_recipe_goes_on_and_is_said(trained, tmp_path, capsys):
    saved(tmp_path, trained(), 1)
    other = {"learning_rate": 0.03, "batch_size": 16, "augment": AugmentConfig(strong="rand")}
    Checkpoints(tmp_path, trained(**other)).load()
    assert (
        "note: from step 1 on this is another recipe: train.batch_size 8 -> 16, "
        "train.learning_rate 0.1 -> 0.03, train.augment.strong none -> rand."
    ) in capsys.readouterr().err


def test_keys_of_other_versions_are_no_changes():
    now = TrainConfig()
    before = now.model_dump()
    assert changes({}, now) == []
    assert changes({**before, "of_old": 3}, now) == []
    del before["clip_norm"]
    assert changes({**before, "ema": 0.5}, now) == ["train.ema 0.5 -> null"]


def test_an_average_begins_with_the_weights_or_ends(trained, tmp_path, capsys):
    plain = trained()
    saved(tmp_path / "plain", plain, 1)
    averaged = trained(ema=0.9)
    Checkpoints(tmp_path / "plain", averaged).load()
    assert "train.ema null -> 0.9" in capsys.readouterr().err
    for name, parameter in plain.supernet.named_parameters():
        assert torch.equal(averaged.average.tensors[name], parameter)
    saved(tmp_path / "averaged", averaged, 1)
    Checkpoints(tmp_path / "averaged", plain).load()
    assert "train.ema 0.9 -> null" in capsys.readouterr().err


def test_another_optimiser_is_refused_before_anything_changes(trained, tmp_path):
    saved(tmp_path, trained(), 1)
    before = {path: path.read_bytes() for path in RunFolder(tmp_path).checkpoints}
    with pytest.raises(ConfigError, match="sgd, which cannot become adamw") as caught:
        Checkpoints(tmp_path, trained(optimizer="adamw")).restore()
    assert f"--init {tmp_path}" in str(caught.value)
    assert {path: path.read_bytes() for path in RunFolder(tmp_path).checkpoints} == before
    for name in ("rmsprop", "adamw"):  # a file that does not tell
        other = trained(optimizer=name)
        with pytest.raises(CheckpointError, match="state of another optimiser"):
            load_checkpoint(tmp_path / FILE_NAME, NETWORK, other.supernet, other.optimizer)


def test_another_number_of_processes_is_said(trained, tmp_path, capsys):
    saved(tmp_path, trained(), 1)
    trainer = trained()
    trainer.ranks = Ranks(0, 2)
    Checkpoints(tmp_path, trainer).load()
    assert "processes 1 -> 2" in capsys.readouterr().err


def other_pixels(data):
    return replace(data, preprocess=replace(data.preprocess, mean=(0.5, 0.5, 0.5)))


def imagenet(data):
    head = data.record.head.model_copy(update={"statistics": "imagenet"})
    return replace(data, record=replace(data.record, head=head))


def other_side(then, now):
    """An image of the record that is on another side."""

    def change(data):
        sides = data.record.sides_N.copy()
        sides[np.flatnonzero(sides == SIDES.index(then))[0]] = SIDES.index(now)
        return replace(data, record=replace(data.record, sides_N=sides))

    return change


@pytest.mark.parametrize(
    ("seed", "change", "said"),
    [
        (4, lambda data: data, "was trained with seed: 0, not 4"),
        (0, other_pixels, "mean [0.305933, 0.305933, 0.305933], now [0.5, 0.5, 0.5]"),
        (0, imagenet, "was trained with statistics: data, not imagenet"),
        (0, other_side("train", "test"), "the train, test images differ"),
        (0, other_side("test", "search-validation"), "the validation, test images differ"),
    ],
)
def test_other_images_or_another_seed_are_refused(trained, tmp_path, seed, change, said):
    saved(tmp_path, trained(), 1)
    trainer = trained()
    trainer.seed, trainer.data = seed, change(trainer.data)
    with pytest.raises(ConfigError, match=re.escape(said)):
        Checkpoints(tmp_path, trainer).load()


def test_what_an_older_checkpoint_does_not_store_is_not_compared(few):
    check_belongs({"seed": 0}, few, 0, Path("run"))
    check_belongs({"seed": None, "splits": None}, few, 7, Path("run"))
    with pytest.raises(ConfigError, match="seed: 1, not 0"):
        check_belongs({"seed": 1}, few, 0, Path("run"))


# --- where they come from -------------------------------------------------------------------------


def test_the_commit_is_what_git_says(tmp_path):
    def git(*words, at=tmp_path / "repo") -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@x")
        command = ["git", "-C", str(at), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    repo = tmp_path / "repo"
    repo.mkdir()
    assert commit(repo) is None
    git("init", "-b", "main")
    assert commit(repo) is None  # no commit yet
    git("commit", "--allow-empty", "-m", "one")
    assert commit(repo) == git("rev-parse", "HEAD")
    git("commit", "--allow-empty", "-m", "two")
    git("pack-refs", "--all")
    assert commit(repo) == git("rev-parse", "HEAD")
    git("worktree", "add", str(tmp_path / "tree"), "HEAD~1", "-b", "side")
    assert commit(tmp_path / "tree") == git("rev-parse", "HEAD", at=tmp_path / "tree")
    git("checkout", "--detach", "HEAD~1")
    assert commit(repo) == git("rev-parse", "HEAD")
    (repo / ".git" / "HEAD").write_text("")
    assert commit(repo) is None
    assert commit(repo / "elsewhere") is None
