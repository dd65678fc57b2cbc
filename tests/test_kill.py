"""Killed at any moment: what is on the disk is whole, and training ends with the very same bits."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_run import run_file, snapshot

from elastic_nas.config import AugmentConfig, TrainConfig
from elastic_nas.data.dataset import load_dataset
from elastic_nas.files import PARTIAL, locked
from elastic_nas.network import Network
from elastic_nas.runs import RunFolder
from elastic_nas.training import loop
from elastic_nas.training.checkpoint import (
    FILE_NAME,
    read_facts,
    read_progress,
)
from elastic_nas.training.checkpoints import Checkpoints
from elastic_nas.training.curves import Curves
from elastic_nas.training.trainer import Trainer

NETWORK = Network("tiny:size=8", 10)
STEPS = 3
SCORES = {2: 0.5, 3: 0.25}  # the best is not the last


class Killed(BaseException):
    """What a kill -9 is to a process."""


class Disk:
    """Kills the process before the n-th thing that it does to the disk, in mid-write at writes.

    A killed process does nothing more to the disk, whatever its `finally` clauses say.
    """

    OPERATIONS = ("fsync", "link", "replace", "unlink")

    def __init__(self, patch: pytest.MonkeyPatch, last: int = sys.maxsize) -> None:
        self.done: list[str] = []
        self._last = last
        for name in self.OPERATIONS:
            patch.setattr(os, name, self._watched(name, getattr(os, name)))
        patch.setattr(Path, "open", self._opening(Path.open))

    def strike(self, name: str) -> None:
        if len(self.done) >= self._last:
            raise Killed
        self.done.append(name)

    def _watched(self, name, original):
        def operation(*args, **kwargs):
            self.strike(name)
            return original(*args, **kwargs)

        return operation

    def _opening(self, original):
        def opened(path, mode="r", *args, **kwargs):
            if mode not in ("xb", "wb", "w"):
                return original(path, mode, *args, **kwargs)
            self.strike("open")
            file = original(path, mode, buffering=0)
            write = file.write

            def half(data):
                write(data[: len(data) // 2])
                file.flush()
                self.strike("write")
                write(data[len(data) // 2 :])

            return _Writer(file, half)

        return opened


class _Writer:
    """A file whose `write` is another."""

    def __init__(self, file, write) -> None:
        self._file, self.write = file, write
        self.flush, self.fileno = file.flush, file.fileno

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


class Scores:
    """In place of a validation: fixed scores at fixed steps."""

    images = 1

    def __init__(self, trainer) -> None:
        self._done = 0

    def __call__(self) -> dict[str, float]:
        return {"largest_accuracy": SCORES[self._done], "smallest_accuracy": SCORES[self._done]}

    def is_due(self, done: int) -> bool:
        self._done = done
        return done in SCORES


@pytest.fixture(scope="module")
def few():
    """A few digits, so that a training begins at once."""
    digits = load_dataset("digits")
    return replace(digits, train=digits.train.subset(range(32)))


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setattr(loop, "Validation", Scores)
    monkeypatch.setattr(Curves, "draw", lambda *_, **__: None)  # it is not what is killed


def process(data, folder: Path) -> Trainer:
    """What a process does that is started with --resume: from the disk alone to the end."""
    config = TrainConfig(
        steps=STEPS, batch_size=8, random_children=0, threads=1, ema=0.9, keep_checkpoints=1,
        checkpoint_seconds=1e-9, augment=AugmentConfig(strong="none"),
    )  # fmt: skip
    with locked(folder):
        trainer = Trainer(NETWORK, data, config, 0)
        loop.train(trainer, folder, resume=bool(RunFolder(folder).checkpoints))
    return trainer


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All that a training ends with: weights, optimiser state, average."""
    tensors = dict(trainer.supernet.state_dict())
    for index, entry in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in entry.items() if v is not None}
    return tensors | {f"average.{k}": v for k, v in trainer.average.tensors.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Whole:
    """An uninterrupted training: its end, and before each save its folder, and what that did."""

    def __init__(self, data, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "run"
        self.before: list[Path] = []
        self.operations: list[list[str]] = []
        disk, save = Disk(patch), Checkpoints.save

        def saved(checkpoints, at, score=None):
            self.before.append(folder / str(at.step))
            shutil.copytree(self.folder, self.before[-1])
            disk.done.clear()
            save(checkpoints, at, score)
            self.operations.append([*disk.done])

        patch.setattr(Checkpoints, "save", saved)
        self.state = state(process(data, self.folder))


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Validation", Scores)
        patch.setattr(Curves, "draw", lambda *_, **__: None)
        return Whole(few, tmp_path_factory.mktemp("whole"), patch)


WRITE = ["open", "write", "fsync", "replace", "fsync", "unlink"]
LINK = ["link", "replace", "fsync", "unlink"]


def test_what_is_written_is_synced_before_it_is_named_and_its_name_after(whole):
    first, best, last = whole.operations
    assert first == [*WRITE, *LINK, "unlink"]  # a best of an earlier course, had there been one
    assert best == [*WRITE, *LINK, *LINK, "unlink"]  # the oldest goes last
    assert last == [*WRITE, *LINK, "unlink"]
    assert sorted(snapshot(whole.folder)) == [
        "checkpoints/best.safetensors", "checkpoints/step-00000003.safetensors", "log.jsonl",
        "supernet.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(STEPS))
def test_killed_before_anything_that_a_checkpoint_does_to_the_disk(few, whole, tmp_path, number):
    seen = set()
    for last, name in enumerate(whole.operations[number]):
        folder = Path(shutil.copytree(whole.before[number], tmp_path / str(last)))
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, last)
            with pytest.raises(Killed):
                process(few, folder)
        with locked(folder):
            left = snapshot(folder)
        left.pop("log.jsonl", None)
        assert not [path for path in left if PARTIAL in path]
        key = tuple(sorted((path, sha256(content).digest()) for path, content in left.items()))
        if key in seen:
            continue  # the same disk has the same future
        seen.add(key)
        for path in left:  # whatever bears such a name is whole
            read_progress(folder / path, NETWORK)
        if number:
            assert read_progress(folder / FILE_NAME, NETWORK).step in (number, number + 1)
        assert same(state(process(few, folder)), whole.state), f"killed before {name}"
        assert snapshot(folder).keys() == snapshot(whole.folder).keys()
        assert read_facts(folder / "checkpoints" / "best.safetensors")["step"] == 2
    assert len(seen) >= 3  # nothing new yet; kept; published


def test_killed_in_the_midst_of_a_step(few, whole, tmp_path, monkeypatch):
    step = Trainer.step
    for fatal in range(STEPS):

        def struck(trainer, number, *args, fatal=fatal):
            result = step(trainer, number, *args)
            if number == fatal:
                raise Killed
            return result

        monkeypatch.setattr(Trainer, "step", struck)
        with pytest.raises(Killed):
            process(few, tmp_path / "run")
    monkeypatch.setattr(Trainer, "step", step)
    assert same(state(process(few, tmp_path / "run")), whole.state)


# --- real processes -------------------------------------------------------------------------------


def started(*words: object) -> subprocess.Popen[str]:
    """A training that has just told its images."""
    command = [sys.executable, "-m", "elastic_nas", "train", *map(str, words)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "images of each side" not in process.stderr.readline():
        assert process.poll() is None
    return process


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path):
    changes = {"steps": 60, "ema": 0.9, "checkpoint_seconds": 0.001, "validations": 5}
    file = run_file(tmp_path / "run.yaml", **changes)
    whole, run = tmp_path / "whole", RunFolder(tmp_path / "killed")
    reference, began = started(file, "--out", whole), time.monotonic()
    _, said = reference.communicate()
    assert reference.returncode == 0, said
    seconds = time.monotonic() - began
    moments, steps = random.Random(0), []
    while len(steps) < 20:
        words = ["--resume"] if run.run_file.exists() else [file]
        process = started(*words, "--out", run.path)
        try:
            process.wait(moments.uniform(0, seconds / 2))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        if process.returncode == 0:
            shutil.rmtree(run.path)  # finished: from the beginning again
            continue
        assert process.returncode == -signal.SIGKILL, said
        found = run.weights.exists()
        steps.append(read_progress(run.weights, NETWORK).step if found else 0)
    assert len(set(steps)) > 5
    words = ["--resume"] if run.run_file.exists() else [file]
    ended = started(*words, "--out", run.path)
    _, said = ended.communicate()
    assert ended.returncode == 0, said
    assert same(load_file(run.weights), load_file(whole / FILE_NAME))
    assert not list(run.path.rglob(f"*{PARTIAL}"))
