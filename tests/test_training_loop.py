"""The loop around the steps: optimisers, schedules, logs, resuming, stopping."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from elastic_nas.config import AugmentConfig, TrainConfig
from elastic_nas.data.dataset import load_dataset
from elastic_nas.errors import ConfigError, TrainingDiverged
from elastic_nas.network import Network
from elastic_nas.nn.supernet import Supernet
from elastic_nas.training.checkpoint import FILE_NAME, Progress, load_checkpoint
from elastic_nas.training.checkpoints import Checkpoints
from elastic_nas.training.evaluation import Judge
from elastic_nas.training.loop import train
from elastic_nas.training.optimiser import Average, make_optimizer
from elastic_nas.training.schedule import learning_rate
from elastic_nas.training.trainer import Trainer

NETWORK = Network("tiny:size=8", 10)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def config(**changes) -> TrainConfig:
    fields = {"steps": 6, "batch_size": 32, "augment": AugmentConfig(strong="none"), "threads": 1,
              "validations": 0}  # fmt: skip
    return TrainConfig(**{**fields, **changes})


def weights(supernet: Supernet) -> list[torch.Tensor]:
    return [p.detach().clone() for p in supernet.parameters()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def judge_of(supernet, digits) -> Judge:
    options = {"calibration_images": 256, "validation_images": 128, "device": torch.device("cpu")}
    return Judge(NETWORK, supernet, digits, **options)


def test_learning_rate_warms_up_decays_and_ends_constant():
    c = config(learning_rate=1.0, warmup=0.1, final_rate=0.05)
    rates = [learning_rate(c, step, 100, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert rates[-10:] == [0.05] * 10


def test_exponential_schedule_falls_in_stairs_to_its_constant_ending():
    c = config(learning_rate=1.0, warmup=0.0, schedule="exponential", decay_epochs=2.0)
    rates = [learning_rate(c, step, 1000, 10) for step in range(1000)]
    assert rates[:20] == [1.0] * 20
    assert rates[20:40] == pytest.approx([0.97] * 20)
    assert rates[-1] == pytest.approx(0.97**49)
    low = config(learning_rate=1.0, warmup=0.0, schedule="exponential", decay_rate=0.5)
    assert learning_rate(low, 999, 1000, 10) == 0.05
    assert learning_rate(config(schedule="constant", warmup=0.0), 999, 1000, 10) == 0.1


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
def test_every_optimiser_resumes_exactly(digits, tmp_path, name):
    changes = {"optimizer": name, "learning_rate": 0.01, "ema": 0.9}
    whole = trained(digits, tmp_path / "whole", **changes)
    first = Trainer(NETWORK, digits, config(**changes), 0)
    for step, batch in enumerate(first.stream.batches(0, 3)):
        first.step(step, 6, *batch)
    (tmp_path / "part").mkdir()
    Checkpoints(tmp_path / "part", first).save(Progress(3, 6))
    resumed = trained(digits, tmp_path / "part", resume=True, **changes)
    assert equal(weights(resumed.supernet), weights(whole.supernet))
    pairs = zip(resumed.average.tensors.items(), whole.average.tensors.items(), strict=True)
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def test_the_average_is_what_is_judged(digits, tmp_path):
    trainer = trained(digits, tmp_path / "a", ema=0.9)
    fresh = NETWORK.supernet()
    load_checkpoint(tmp_path / "a" / FILE_NAME, NETWORK, fresh)
    expected = [trainer.average.tensors[name] for name, _ in fresh.named_parameters()]
    assert equal(weights(fresh), expected)
    assert not equal(weights(fresh), weights(trainer.supernet))


def test_the_average_equals_a_plain_recurrence():
    parameter = torch.nn.Parameter(torch.zeros(2))
    average = Average([("p", parameter)], decay=0.5)
    expected = np.zeros(2)
    for step, value in enumerate((1.0, -2.0, 5.0, 3.0, 8.0)):
        parameter.data = torch.tensor([value, 2 * value])
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * np.array([value, 2 * value])
    assert average.tensors["p"].tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_all_norms_start_at_one_on_request(digits):
    trainer = Trainer(NETWORK, digits, config(zero_init=False), 0)
    norms = [p for n, p in trainer.supernet.named_parameters() if n.endswith("norm.weight_C")]
    assert norms
    assert all((p == 1).all() for p in norms)
    default = Trainer(NETWORK, digits, config(), 0).supernet
    assert any((p == 0).all() for n, p in default.named_parameters() if n.endswith("weight_C"))


def test_gradients_are_clipped_by_norm_and_by_value(digits):
    def gradients(**changes):
        trainer = Trainer(NETWORK, digits, config(**changes), 0)
        x, labels = next(trainer.stream.batches(0, 1))
        result = trainer.step(0, 6, x, labels)
        return result.norm.item(), [p.grad for p in trainer.supernet.parameters()]

    norm, free = gradients(clip_norm=None)
    total = math.sqrt(sum(g.double().square().sum().item() for g in free))
    assert norm == pytest.approx(total, rel=1e-5)
    before, clipped = gradients(clip_norm=norm / 2)
    assert before == pytest.approx(norm, rel=1e-5)
    torch.testing.assert_close(clipped[0], free[0] / 2, rtol=1e-4, atol=1e-7)
    _, by_value = gradients(clip_norm=None, clip_value=0.01)
    for got, raw in zip(by_value, free, strict=True):
        torch.testing.assert_close(got, raw.clamp(-0.01, 0.01))


@pytest.mark.parametrize("augment", [
    {"strong": "rand", "mixup": 0.2, "cutmix": 1.0}, {"strong": "auto_cifar"}, {"mixup": 0.2},
])  # fmt: skip
def test_augmented_trainings_are_reproducible_and_differ(digits, tmp_path, augment):
    changes = {"augment": AugmentConfig(**augment), "steps": 2, "accumulate": 2}
    one = trained(digits, tmp_path / "a", **changes)
    same = trained(digits, tmp_path / "b", **changes)
    plain = trained(digits, tmp_path / "c", steps=2, accumulate=2)
    assert equal(weights(one.supernet), weights(same.supernet))
    assert not equal(weights(one.supernet), weights(plain.supernet))


def test_batches_that_cannot_be_cut_are_refused(digits):
    with pytest.raises(ConfigError, match="cannot be cut into 3 equal parts"):
        Trainer(NETWORK, digits, config(accumulate=3), 0)


def test_norms_and_biases_have_no_weight_decay():
    optimizer = make_optimizer(NETWORK.supernet(), config(weight_decay=0.01))
    decayed, free = optimizer.param_groups
    assert decayed["weight_decay"] == 0.01
    assert all(p.dim() > 1 for p in decayed["params"])
    assert free["weight_decay"] == 0
    assert all(p.dim() == 1 for p in free["params"])
    assert decayed["nesterov"]


def trained(digits, folder, seed=0, resume=False, **changes) -> Trainer:
    folder.mkdir(exist_ok=True)
    trainer = Trainer(NETWORK, digits, config(**changes), seed)
    train(trainer, folder, resume=resume)
    return trainer


def test_same_seed_same_weights_another_seed_others(digits, tmp_path):
    one = trained(digits, tmp_path / "a")
    torch.manual_seed(99)  # the global generator does not matter
    same = trained(digits, tmp_path / "b")
    other = trained(digits, tmp_path / "c", seed=1)
    assert equal(weights(one.supernet), weights(same.supernet))
    assert not equal(weights(one.supernet), weights(other.supernet))


def test_training_learns(digits, tmp_path):
    trainer = trained(digits, tmp_path / "a", steps=60)
    rows = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 60
    assert max(rows[-1][key] for key in ("largest", "smallest", "random")) < 0.95 * math.log(10)
    judge = judge_of(trainer.supernet, digits)
    assert judge.evaluate(NETWORK.largest) > 0.5
    assert judge.evaluate(NETWORK.smallest) > 0.2  # it sees 4 x 4 pixels


def test_resuming_gives_the_uninterrupted_weights(digits, tmp_path):
    whole = trained(digits, tmp_path / "whole")
    part = tmp_path / "part"
    part.mkdir()
    trainer = Trainer(NETWORK, digits, config(), 0)
    step = trainer.step

    def stop_at_3(number, *args):
        result = step(number, *args)
        if number == 2:
            Checkpoints(part, trainer).save(Progress(3, 6))
            raise KeyboardInterrupt
        return result

    trainer.step = stop_at_3
    with pytest.raises(KeyboardInterrupt):
        train(trainer, part, resume=False)
    resumed = trained(digits, part, resume=True)
    assert equal(weights(resumed.supernet), weights(whole.supernet))


def test_minutes_become_steps_without_touching_the_weights(digits, capsys):
    trainer = Trainer(NETWORK, digits, config(steps=None, minutes=0.02), 0)
    before = weights(trainer.supernet)
    resolved = trainer.resolved()
    assert resolved.steps >= 1
    assert resolved.minutes is None
    assert equal(weights(trainer.supernet), before)
    assert not trainer.optimizer.state
    assert f"{resolved.steps} steps" in capsys.readouterr().err


def test_epochs_become_steps(digits):
    trainer = Trainer(NETWORK, digits, config(steps=None, epochs=3), 0)
    assert trainer.resolved().steps == 3 * (len(digits.train) // 32)


def test_a_loss_that_is_no_number_stops_the_training(digits, tmp_path):
    with pytest.raises(TrainingDiverged, match=r"train\.learning_rate=4"):
        trained(digits, tmp_path / "a", learning_rate=100.0, warmup=0.0, momentum=0.99,
                clip_norm=None, steps=60)  # fmt: skip


def test_checkpoint_restores_weights_and_momentum(digits, tmp_path):
    trainer = trained(digits, tmp_path / "a", steps=2)
    fresh = Trainer(NETWORK, digits, config(), 5)
    at = load_checkpoint(tmp_path / "a" / FILE_NAME, NETWORK, fresh.supernet, fresh.optimizer)
    assert (at.step, at.steps) == (2, 2)
    assert equal(weights(fresh.supernet), weights(trainer.supernet))
    mine, theirs = (t.optimizer.state_dict()["state"] for t in (fresh, trainer))
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert torch.equal(mine[key]["momentum_buffer"], theirs[key]["momentum_buffer"])
