"""Calibration is exact; evaluation slices, calibrates and judges on the right images."""

from random import Random

import numpy as np
import pytest
import torch
from torch import nn

from elastic_nas.data.dataset import load_dataset
from elastic_nas.errors import DataError
from elastic_nas.genotype import sample
from elastic_nas.network import Network
from elastic_nas.nn.child import randomise
from elastic_nas.training.calibration import calibrate
from elastic_nas.training.evaluation import Judge
from elastic_nas.training.step import normalise

NETWORK = Network("tiny:size=8", 10)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


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
    before = [p.detach().clone() for p in supernet.parameters()]
    judge = judge_of(supernet, digits)
    genotype = sample(NETWORK.dims, Random(1))
    assert judge.evaluate(genotype) == judge.evaluate(genotype)
    assert all(map(torch.equal, supernet.parameters(), before))


def test_calibration_settings_hash_tells_settings_apart(digits):
    supernet = NETWORK.supernet()
    judges = [judge_of(supernet, digits, calibration_images=n) for n in (64, 65)]
    hashes = {judge.settings_hash(judge.calibration.sha256) for judge in judges}
    assert len(hashes) == 2
