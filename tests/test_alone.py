"""One child trained alone, and a supernet that begins with its trained largest child."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_run import cli, done, refused, run_file

from elastic_nas.errors import ConfigError
from elastic_nas.genotype import parse_genotype
from elastic_nas.network import Network
from elastic_nas.run_file import read_run_file
from elastic_nas.runs import RunFolder
from elastic_nas.training.checkpoint import load_checkpoint
from elastic_nas.training.start import begin_with

STEPS = ("--set", "train.steps=2")


def supernet_of(folder: Path):
    network = RunFolder(folder).network
    supernet = network.supernet()
    load_checkpoint(RunFolder(folder).weights, network, supernet)
    return network, supernet


def images(size: int = 8) -> torch.Tensor:
    return torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_a_child_from_scratch_is_a_run_that_ships(made_run, tmp_path, stopped_clock):
    out = tmp_path / "alone"
    text = done("train-child", made_run, "--genotype", "smallest", "--out", out, *STEPS)
    assert f"elastic-nas export {out} --genotype largest" in text
    network, _ = supernet_of(out)
    parent = RunFolder(made_run).network
    assert network.blocks(network.largest) == parent.blocks(parent.smallest)
    folder = tmp_path / "shipped"
    done("export", out, "--genotype", "largest", "--out", folder)
    assert json.loads((folder / "manifest.json").read_text())["parity"]["top1_agreement"] == 1
    done("verify", folder)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert "largest" in rows[0]
    assert "smallest" not in rows[0]


def test_without_a_length_a_child_trains_as_long_as_the_run(made_run, tmp_path):
    done("train-child", made_run, "--genotype", "largest", "--out", tmp_path / "a")
    steps = [RunFolder(folder).run_file.read_text() for folder in (made_run, tmp_path / "a")]
    assert len({text.partition("steps: ")[2].partition(" ")[0] for text in steps}) == 1


def test_inherited_weights_compute_what_the_child_computes(made_run):
    parent, supernet = supernet_of(made_run)
    genotype = parse_genotype(parent.dims, "1,1,1,1,1,2,1,2" + ",0" * (len(parent.dims) - 8))
    network = Network(f"{parent.space_name}@{','.join(map(str, genotype))}", parent.classes)
    single = network.supernet(seed=5)
    words = begin_with(RunFolder(made_run), network, single)
    assert "inherited" in words
    x = images()
    assert torch.equal(single(x, network.largest), supernet(x, genotype))


def test_inherited_training_has_a_tenth_of_the_rate_unless_told(made_run, tmp_path):
    words = ("train-child", made_run, "--genotype", "smallest", "--from", "inherited", *STEPS)
    done(*words, "--out", tmp_path / "a")
    done(*words, "--out", tmp_path / "b", "--set", "train.learning_rate=0.03")
    files = [tmp_path / name / "run.yaml" for name in "ab"]
    rates = [read_run_file(file).train.learning_rate for file in files]
    assert rates == [pytest.approx(0.01), 0.03]
    written = (tmp_path / "a" / "run.yaml").read_text()
    assert f"init: {made_run}" in written


def test_odd_paths_and_tiny_rates_reach_the_run_file_as_they_are(made_run, tmp_path):
    odd = tmp_path / "a: run #1"  # as YAML text, a mapping and a comment
    shutil.copytree(made_run, odd)
    words = ("train-child", odd, "--genotype", "smallest", "--from", "inherited", *STEPS)
    text = (odd / "run.yaml").read_text()
    (odd / "run.yaml").write_text(text.replace("learning_rate: 0.1 ", "learning_rate: 0.0001 "))
    done(*words, "--out", tmp_path / "a")
    train = read_run_file(tmp_path / "a" / "run.yaml").train
    assert (train.init, train.learning_rate) == (str(odd), 1e-5)


def test_a_supernet_begins_with_its_trained_largest_child(made_run, tmp_path):
    alone = tmp_path / "alone"
    done("train-child", made_run, "--genotype", "largest", "--out", alone, *STEPS)
    single_network, single = supernet_of(alone)
    network = RunFolder(made_run).network
    supernet = network.supernet(seed=9)
    words = begin_with(RunFolder(alone), network, supernet)
    assert "largest" in words
    x = images()
    expected = single(x, single_network.largest)
    torch.testing.assert_close(supernet(x, network.largest), expected, rtol=1e-4, atol=1e-4)
    out = tmp_path / "supernet"
    file = run_file(tmp_path / "run.yaml")
    done("train", file, "--init", alone, "--out", out, "--set", "train.steps=1")
    assert str(alone) in (out / "run.yaml").read_text()
    moved = supernet_of(out)[1]
    far = network.supernet(seed=0)  # what it would have begun with
    target = dict(supernet.named_parameters())

    def distance(other):
        return sum((p - target[n]).abs().sum().item() for n, p in other.named_parameters())

    assert distance(moved) < distance(far) / 5


def test_resuming_does_not_begin_again(made_run, tmp_path):
    words = ("train-child", made_run, "--genotype", "smallest", "--from", "inherited")
    first = cli(*words, "--out", tmp_path / "a", *STEPS)
    again = cli(*words, "--out", tmp_path / "a", "--resume", "--set", "train.steps=4")
    assert "beginning with the inherited weights" in first.stderr
    assert "beginning" not in again.stderr
    assert "going on from step 2 of 4" in again.stderr


def test_weights_of_other_networks_are_refused(made_run, tmp_path):
    origin = RunFolder(made_run)
    for name, classes, message in (
        ("tiny:size=16", 10, "cannot begin with: it takes a run of tiny:size=16"),
        ("tiny:size=8", 7, "tells 10 classes apart, these images have 7"),
        ("tiny:size=16@smallest", 10, "or of the child"),
    ):
        network = Network(name, classes)
        with pytest.raises(ConfigError, match=message):
            begin_with(origin, network, network.supernet())
    assert "from scratch or inherited" in refused(
        "train-child", made_run, "--genotype", "smallest", "--from", "nothing", "--out", tmp_path
    )
    assert "did you mean 'smallest'" in refused(
        "train-child", made_run, "--genotype", "smalest", "--out", tmp_path / "x"
    )
    assert "leave --init or --resume out" in refused(
        "train", "--resume", "--out", made_run, "--init", made_run
    )
    assert "does not exist" in refused(
        "train", run_file(tmp_path / "run.yaml"), "--init", tmp_path / "none",
        "--out", tmp_path / "y",
    )  # fmt: skip


def test_a_run_begins_with_weights_of_its_own_space(made_run):
    network, supernet = supernet_of(made_run)
    fresh = network.supernet(seed=3)
    assert begin_with(RunFolder(made_run), network, fresh) == "the weights"
    assert all(map(torch.equal, fresh.parameters(), supernet.parameters()))
