"""Validation in mid-training: when, on what, and that the training does not notice it."""

import pytest
import torch

from elastic_nas.config import AugmentConfig, TrainConfig
from elastic_nas.data.dataset import load_dataset
from elastic_nas.network import Network
from elastic_nas.training import validation as validation_module
from elastic_nas.training.distributed import Ranks
from elastic_nas.training.evaluation import Judge
from elastic_nas.training.journal import read_log
from elastic_nas.training.loop import train
from elastic_nas.training.trainer import Trainer
from elastic_nas.training.validation import Validation

NETWORK = Network("tiny:size=8", 10)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def trainer_of(digits, **changes) -> Trainer:
    fields = {"steps": 6, "batch_size": 8, "augment": AugmentConfig(strong="none"), "threads": 1,
              "random_children": 0, "checkpoint_seconds": 1e9}  # fmt: skip
    return Trainer(NETWORK, digits, TrainConfig(**{**fields, **changes}), 0)


def points(digits, **changes) -> list[int]:
    trainer = trainer_of(digits, **changes)
    validation = Validation(trainer)
    return [done for done in range(1, trainer.config.steps + 1) if validation.is_due(done)]


class _Second(Ranks):
    """A process whose companion judges 5,000 images."""

    def values(self, value):
        return [5000, value]


def test_processes_with_unequal_data_validate_at_the_same_steps(digits):
    """Each would else wait for the other in another collective, for ever."""
    trainer = trainer_of(digits, steps=2000, batch_size=64)
    alone = Validation(trainer)
    trainer.ranks = _Second()
    together = Validation(trainer)
    steps = range(1, 2001)
    assert [done for done in steps if together.is_due(done)] == [782, 1564, 2000]
    assert [done for done in steps if alone.is_due(done)] != [782, 1564, 2000]


def test_the_points_are_a_function_of_the_step_and_not_too_many(digits, monkeypatch):
    judged = 256 + len(digits.validation)  # 525: as many as 83 steps of 64 images may pay for
    assert points(digits, steps=1000, batch_size=64, validations=3) == [334, 668, 1000]
    assert points(digits, steps=200, batch_size=64, validations=10) == [83, 200]
    assert -(-judged * 10 // 64) == 83
    assert points(digits, steps=200, batch_size=64, validations=0) == []
    monkeypatch.setattr(validation_module, "MOST_JUDGED", 1e9)
    epoch = len(digits.train) // 64
    assert points(digits, steps=50, batch_size=64, validations=1000) == [epoch, 2 * epoch, 50]


@pytest.mark.parametrize("ema", [None, 0.9])
def test_both_ends_are_judged_and_the_training_does_not_notice(digits, tmp_path, monkeypatch, ema):
    monkeypatch.setattr(validation_module, "CALIBRATION_IMAGES", 32)
    monkeypatch.setattr(validation_module, "VALIDATION_IMAGES", 32)
    monkeypatch.setattr(validation_module, "MOST_JUDGED", 1e9)
    watched, blind = (trainer_of(digits, validations=n, ema=ema) for n in (3, 0))
    for trainer, name in ((watched, "watched"), (blind, "blind")):
        monkeypatch.setattr(trainer.stream, "steps_per_epoch", 2)
        (tmp_path / name).mkdir()
        train(trainer, tmp_path / name, resume=False)
    assert all(map(torch.equal, watched.supernet.parameters(), blind.supernet.parameters()))
    rows = [row for row in read_log(tmp_path / "watched" / "log.jsonl") if "images" in row]
    assert [(row["step"], row["images"]) for row in rows] == [(2, 32), (4, 32), (6, 32)]
    judged = NETWORK.supernet()
    judged.load_state_dict(watched.supernet.state_dict())
    if ema is not None:
        for name, parameter in judged.named_parameters():
            parameter.data = watched.average.tensors[name]
    judge = Judge(NETWORK, judged, digits, calibration_images=32, validation_images=32,
                  device=torch.device("cpu"))  # fmt: skip
    assert rows[-1]["largest_accuracy"] == judge.evaluate(NETWORK.largest)
    assert rows[-1]["smallest_accuracy"] == judge.evaluate(NETWORK.smallest)
