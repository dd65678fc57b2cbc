"""The sandwich step, the loop around it, calibration and evaluation."""

import json
import math
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from conftest import small_network
from torch import nn
from torch.nn import functional as F

from elastic_nas.config import AugmentConfig, TrainConfig
from elastic_nas.data.dataset import load_dataset
from elastic_nas.errors import DataError, TrainingDiverged
from elastic_nas.genotype import sample
from elastic_nas.network import Network
from elastic_nas.nn.child import Child, randomise
from elastic_nas.nn.supernet import Supernet, resize
from elastic_nas.training.calibration import calibrate
from elastic_nas.training.checkpoint import FILE_NAME, Progress, load_checkpoint, save_checkpoint
from elastic_nas.training.evaluation import Judge
from elastic_nas.training.loop import Trainer, learning_rate, sgd, train
from elastic_nas.training.step import (
    Regularisation,
    children_of_step,
    normalise,
    sandwich_step,
)

NETWORK = Network("tiny:size=8", 10)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def config(**changes) -> TrainConfig:
    fields = {"steps": 6, "batch_size": 32, "augment": AugmentConfig(strong="none"), "threads": 1}
    return TrainConfig(**{**fields, **changes})


def weights(supernet: Supernet) -> list[torch.Tensor]:
    return [p.detach().clone() for p in supernet.parameters()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- one step ---------------------------------------------------------------------------------


def scatter(supernet: Supernet, child: Child, totals: dict[str, torch.Tensor]) -> None:
    """Add a plain child's gradients to where the supernet keeps those weights."""
    shared = dict(supernet.named_parameters())
    for name, parameter in child.named_parameters():
        _, index, layer, kind = name.split(".")
        unit = child.names[int(index)].replace(".", "_")
        prefix = f"blocks.{unit}.{layer}.{kind}_"
        (full,) = [key for key in shared if key.startswith(prefix)]
        region = [slice(0, size) for size in parameter.shape]
        if parameter.dim() == 4:  # a smaller kernel is the centre of the larger one
            rim = (shared[full].shape[-1] - parameter.shape[-1]) // 2
            region[2:] = [slice(rim, rim + parameter.shape[-1])] * 2
        total = totals.setdefault(full, torch.zeros_like(shared[full]))
        total[tuple(region)] += parameter.grad


def naive_gradients(supernet, network, x, labels, children, smoothing):
    """The step as the papers write it: separate networks that start from the shared weights."""
    totals: dict[str, torch.Tensor] = {}
    teacher = None
    for genotype in children:
        child = supernet.slice(genotype).train()
        logits = child(resize(x, child.resolution))
        if teacher is None:
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            teacher = logits.softmax(1).detach()
        else:
            loss = F.cross_entropy(logits, teacher)
        loss.backward()
        scatter(supernet, child, totals)
    return totals


@pytest.mark.parametrize("name", ["tiny:size=8", "compact:size=64", "bignas", "attentive_nas"])
def test_gradients_of_a_step_equal_separate_networks(name):
    network = small_network(name)
    supernet = network.supernet()
    randomise(supernet, 1)
    size = network.dims[0].choices[-1]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, size, size, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (8,), generator=generator)
    children = children_of_step(network, seed=3, step=5, random_children=2)
    expected = naive_gradients(supernet, network, x, labels, children, 0.1)
    sandwich_step(supernet, network.task, x, labels, children, Regularisation(0.1))
    for key, parameter in supernet.named_parameters():
        assert parameter.grad is not None, key
        if key == "blocks.classifier.linear.weight_OC":  # a narrow view takes another kernel
            torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(parameter.grad, expected[key]), key


def test_gradients_add_up_and_nothing_is_zeroed():
    supernet, x = NETWORK.supernet(), torch.randn(8, 3, 8, 8)
    labels = torch.arange(8)
    children = [NETWORK.largest, NETWORK.smallest]
    for _ in range(2):
        sandwich_step(supernet, NETWORK.task, x, labels, children, Regularisation())
    twice = [p.grad.clone() for p in supernet.parameters()]
    supernet.zero_grad()
    sandwich_step(supernet, NETWORK.task, x, labels, children, Regularisation())
    once = [p.grad for p in supernet.parameters()]
    for a, b in zip(twice, once, strict=True):
        torch.testing.assert_close(a, 2 * b, rtol=1e-4, atol=1e-6)


def test_only_the_largest_child_is_regularised():
    calls = []

    class Spy(nn.Module):
        def forward(self, x, genotype, *, dropout=0.0, drop_connect=0.0):
            calls.append((genotype, dropout, drop_connect))
            return torch.zeros(len(x), 10, requires_grad=True)

    children = children_of_step(NETWORK, 0, 0, 2)
    regularisation = Regularisation(0.1, dropout=0.2, drop_connect=0.3)
    args = (torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long), children, regularisation)
    losses = sandwich_step(Spy(), NETWORK.task, *args)
    assert calls[0] == (NETWORK.largest, 0.2, 0.3)
    assert [call[1:] for call in calls[1:]] == [(0, 0)] * 3
    assert calls[-1][0] == NETWORK.smallest
    assert [loss.item() for loss in losses] == pytest.approx([math.log(10)] * 4)


def test_dropout_and_drop_connect_reach_their_layers():
    supernet = NETWORK.supernet()
    randomise(supernet, 0)
    x = torch.randn(4, 3, 8, 8)
    plain = supernet(x, NETWORK.largest)
    for options in ({"dropout": 0.5}, {"drop_connect": 0.5}):
        assert not torch.allclose(supernet(x, NETWORK.largest, **options), plain)


def test_children_of_a_step_depend_on_seed_and_step_alone():
    Random(1).random()
    first = children_of_step(NETWORK, 0, 7, 3)
    assert first == children_of_step(NETWORK, 0, 7, 3)
    assert first[0] == NETWORK.largest
    assert first[-1] == NETWORK.smallest
    assert first != children_of_step(NETWORK, 0, 8, 3)
    assert first != children_of_step(NETWORK, 1, 7, 3)


def test_losses_by_hand():
    task = NETWORK.task
    logits = torch.tensor([[0.0, math.log(3)]])  # probabilities 1/4 and 3/4
    smoothed = 0.95 * math.log(4 / 3) + 0.05 * math.log(4)
    assert task.loss(logits, torch.tensor([1]), 0.1).item() == pytest.approx(smoothed)
    teacher = task.teacher(torch.tensor([[0.0, 0.0]], requires_grad=True))
    assert not teacher.requires_grad
    assert teacher.dtype == torch.float32
    distilled = 0.5 * math.log(4) + 0.5 * math.log(4 / 3)
    assert task.distillation_loss(logits, teacher).item() == pytest.approx(distilled)


def test_normalise_is_what_the_exported_graph_does():
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    got = normalise(x, (0.5, 0.2, 0.0), (0.5, 0.1, 2.0)).flatten().tolist()
    assert got == pytest.approx([-1, 0, 0.5])


# --- the loop -----------------------------------------------------------------------------------


def test_learning_rate_warms_up_decays_and_ends_constant():
    c = config(learning_rate=1.0, warmup=0.1, final_rate=0.05)
    rates = [learning_rate(c, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert rates[-10:] == [0.05] * 10


def test_norms_and_biases_have_no_weight_decay():
    optimizer = sgd(NETWORK.supernet(), config(weight_decay=0.01))
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

    def stop_at_3(number, steps, x, labels):
        losses = step(number, steps, x, labels)
        if number == 2:
            save_checkpoint(
                part / FILE_NAME, NETWORK, trainer.supernet, trainer.optimizer, Progress(3, 6)
            )
            raise KeyboardInterrupt
        return losses

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
    with pytest.raises(TrainingDiverged, match=r"train\.learning_rate=3"):
        trained(digits, tmp_path / "a", learning_rate=100.0, warmup=0.0, momentum=0.99,
                clip_norm=None, steps=60)  # fmt: skip


def test_checkpoint_restores_weights_and_momentum(digits, tmp_path):
    trainer = trained(digits, tmp_path / "a", steps=2)
    fresh = Trainer(NETWORK, digits, config(), 5)
    at = load_checkpoint(tmp_path / "a" / FILE_NAME, NETWORK, fresh.supernet, fresh.optimizer)
    assert at == Progress(2, 2)
    assert equal(weights(fresh.supernet), weights(trainer.supernet))
    mine, theirs = (t.optimizer.state_dict()["state"] for t in (fresh, trainer))
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert torch.equal(mine[key]["momentum_buffer"], theirs[key]["momentum_buffer"])


# --- calibration and evaluation -----------------------------------------------------------------


def judge_of(supernet, digits, **changes) -> Judge:
    options = {"calibration_images": 256, "validation_images": 128, "device": torch.device("cpu")}
    return Judge(NETWORK, supernet, digits, **{**options, **changes})


def test_calibration_is_exact_for_unequal_shifting_batches():
    norm = nn.BatchNorm2d(3)
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(n, 3, 4, 4, generator=generator) * scale + shift
        for n, shift, scale in ((5, 0.0, 1.0), (17, 3.0, 0.5), (2, -300.0, 2.0))
    ]
    child = nn.Sequential(norm)
    calibrate(child, batches)
    everything = torch.cat(batches).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean.double(), everything.mean(1), rtol=1e-5, atol=1e-5)
    variance = everything.var(1, correction=0)
    torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=1e-5)
    assert norm.momentum == 0.1
    assert not child.training
    assert not norm._forward_pre_hooks


def test_calibration_without_images_is_an_error():
    with pytest.raises(DataError, match="no images"):
        calibrate(nn.Sequential(nn.BatchNorm2d(3)), [])


def test_calibrated_child_in_one_batch_computes_what_the_supernet_computes(digits):
    supernet = NETWORK.supernet()
    randomise(supernet, 2)
    judge = judge_of(supernet, digits, calibration_images=200)
    genotype = sample(NETWORK.dims, Random(4))
    child = judge.child(genotype)
    pixels = judge.calibration.deployed(digits.preprocess, child.resolution)
    x = normalise(torch.from_numpy(pixels), digits.preprocess.mean, digits.preprocess.std)
    with torch.no_grad():
        torch.testing.assert_close(child(x), supernet(x, genotype), rtol=1e-3, atol=1e-3)


def test_children_are_judged_on_search_validation_only(digits):
    judge = judge_of(NETWORK.supernet(), digits, validation_images=10_000)
    assert judge.validation is digits.validation
    assert judge.calibration.name == "train"
    accuracy = judge.evaluate(NETWORK.smallest)
    child = judge.child(NETWORK.smallest)
    assert accuracy == pytest.approx(judge.right(child, digits.validation).mean())
    pixels = digits.validation.deployed(digits.preprocess, child.resolution)
    x = normalise(torch.from_numpy(pixels), digits.preprocess.mean, digits.preprocess.std)
    with torch.no_grad():
        expected = child(x).argmax(1).numpy() == digits.validation.labels
    assert np.array_equal(judge.right(child, digits.validation), expected)


def test_evaluating_twice_gives_the_same_and_leaves_the_supernet_alone(digits):
    supernet = NETWORK.supernet()
    before = weights(supernet)
    judge = judge_of(supernet, digits)
    genotype = sample(NETWORK.dims, Random(1))
    assert judge.evaluate(genotype) == judge.evaluate(genotype)
    assert equal(weights(supernet), before)


def test_calibration_settings_hash_tells_settings_apart(digits):
    supernet = NETWORK.supernet()
    hashes = {judge_of(supernet, digits, calibration_images=n).settings_hash for n in (64, 65)}
    assert len(hashes) == 2
