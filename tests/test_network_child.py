"""A network of one child is that child: described, built, trained and delivered."""

import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import fake_latency
import numpy as np
import pytest
import torch
from conftest import small_network
from small_run import DEVICE, done, facts, refused, run_file, table_of_here

from elastic_nas import additive, plugins
from elastic_nas.errors import CheckpointError, ConfigError, GenotypeError, UnknownName
from elastic_nas.genotype import children, count, format_genotype, sample
from elastic_nas.latency.predictor import Predictor
from elastic_nas.network import Network
from elastic_nas.nn.child import randomise
from elastic_nas.nn.supernet import Supernet
from elastic_nas.nn.transfer import adopt, inherit
from elastic_nas.settings import from_settings
from elastic_nas.single import SingleChild
from elastic_nas.spaces import tiny

TINY = Network("tiny:size=8", 10)


def alone(parent: Network, genotype) -> Network:
    """The network of one child, of a space that may be one for tests."""
    single = Network(f"{parent.space_name}@{format_genotype(genotype)}", parent.classes)
    single.__dict__["space"] = SingleChild(parent.space, genotype)
    return single


def some_children(network: Network, n: int):
    rng = Random(0)
    ends = [network.smallest, network.largest]
    return ends + [sample(network.dims, rng) for _ in range(n)]


@pytest.mark.parametrize("name", plugins.available("spaces"))
def test_it_is_described_as_its_parent_describes_it(name):
    parent = Network(name, 7)
    for genotype in some_children(parent, 10):
        single = alone(parent, genotype)
        (own,) = children(single.dims)
        assert count(single.dims) == 1
        assert own == single.largest == single.smallest == (0,) * len(single.dims)
        assert single.blocks(own) == parent.blocks(genotype)
        assert single.macs(own) == parent.macs(genotype)
        assert single.params(own) == parent.params(genotype)
        assert single.resolution(own) == parent.resolution(genotype)
        assert single.settings(own) == parent.settings(genotype)
        assert from_settings(single.dims, single.settings(own)) == own
        assert additive.macs(single, np.array([own])).tolist() == [parent.macs(genotype)]
        assert [list(unit.specs()) for unit in single.units] == [[s] for s in single.blocks(own)]
        known = {dim.name: dim.choices for dim in parent.dims}
        assert all(set(dim.choices) <= set(known[dim.name]) for dim in single.dims)
        assert all(len(dim.choices) == 1 and dim.needs is None for dim in single.dims)


def test_equal_children_are_equal_networks():
    genes = format_genotype(TINY.largest)
    by_word, by_genes = Network("tiny:size=8@largest", 10), Network(f"tiny:size=8@{genes}", 10)
    assert by_word == by_genes
    assert by_word.space_name == f"tiny:size=8@{genes}"
    assert by_word.space.name == f"tiny:size=8,activation=relu@{genes}"
    assert by_word.identity == by_genes.identity == Network(by_word.space.name, 10).identity
    inactive = tuple(0 if dim.needs is None else 1 for dim in TINY.dims)
    assert Network(f"tiny:size=8@{format_genotype(inactive)}") == Network("tiny:size=8@smallest")


def test_other_children_are_other_networks():
    names = [f"tiny:size=8@{format_genotype(g)}" for g in some_children(TINY, 20)]
    assert len({Network(name).identity for name in names}) == len(names)
    assert TINY.identity != Network("tiny:size=8@largest", 10).identity


def test_it_knows_the_network_of_the_whole_space():
    single = Network("tiny:size=8@smallest", 10)
    assert single.whole == TINY
    assert TINY.whole is TINY
    assert replace(single, classes=3).whole == Network("tiny:size=8", 3)


def test_a_child_of_a_space_in_a_file(tmp_path, monkeypatch):
    folder = tmp_path / "me@home"
    folder.mkdir()
    shutil.copy(Path(tiny.__file__), folder / "mine.py")
    monkeypatch.chdir(folder)
    genes = format_genotype(TINY.largest)
    for text in ("./mine.py:size=8@largest", f"./mine.py:size=8@{genes}"):
        single = Network(text, 10)
        assert single.space_name == f"./mine.py:size=8@{genes}"
        assert single.space.name == f"mine:size=8,activation=relu@{genes}"
        assert single.blocks(single.largest) == TINY.blocks(TINY.largest)
    assert Network("./mine.py@smallest").dims == Network("tiny@smallest").dims
    anchored = plugins.anchored("./mine.py@smallest")
    assert anchored == f"{folder}/mine.py@smallest"
    assert plugins.anchored("./mine.py:size=8@0,1") == f"{folder}/mine.py:size=8@0,1"
    assert plugins.anchored("tiny@0,1") == "tiny@0,1"
    assert Network(str(folder / "mine.py")).whole.space.name == "mine:size=16,activation=relu"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("tiny@0,1", GenotypeError, "'0,1' names no child of tiny.*has 25 genes, the"),
        ("tiny@" + "9," * 24 + "9", GenotypeError, "gene resolution is 9, but it must be 0 to 2"),
        ("tiny@biggest", GenotypeError, "'biggest' names no child(.|\n)*smallest or largest"),
        ("tiny@", GenotypeError, "'' names no child of tiny"),
        ("tinny@largest", UnknownName, "no space called 'tinny'; did you mean 'tiny'"),
        ("tiny:sise=8@largest", ConfigError, "no option 'sise'; did you mean 'size'"),
        ("tiny@largest@largest", UnknownName, "no space called 'tiny@largest'"),
    ],
)  # fmt: skip
def test_what_is_no_child_is_refused(text, error, message):
    with pytest.raises(error, match=message):
        Network(text)


def images(network: Network) -> torch.Tensor:
    size = network.dims[0].choices[-1]
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def random_supernet(network: Network, seed: int) -> Supernet:
    supernet = network.supernet()
    randomise(supernet, seed)
    return supernet


def test_its_initial_weights_are_those_of_its_own_width():
    supernet = Network("bignas@smallest").supernet()
    project = supernet.blocks["stage7_block1"].project.weight_OCKK
    assert project.shape[0] == 320
    assert float(project.detach().std()) == pytest.approx((2 / 320) ** 0.5, rel=0.02)
    shared = Network("bignas").supernet().blocks["stage7_block1"].project.weight_OCKK
    assert float(shared.detach()[:320].std()) == pytest.approx((2 / 352) ** 0.5, rel=0.02)


def test_an_inherited_child_computes_the_same_bit_for_bit(network):
    parent, x = random_supernet(network, 1), images(network)
    for genotype in (network.smallest, sample(network.dims, Random(3))):
        description = alone(network, genotype)
        single = random_supernet(description, 2)
        assert sum(p.numel() for p in single.parameters()) == network.params(genotype)
        inherit(single, parent, genotype)
        with torch.no_grad():
            expected = parent(x, genotype)
            assert torch.equal(single(x, description.largest), expected)
        assert single.slice(description.largest).specs == network.blocks(genotype)


def test_inherited_and_adopted_weights_are_copies():
    parent, single = random_supernet(TINY, 1), random_supernet(alone(TINY, TINY.largest), 2)
    before = parent.state_dict()["blocks.stem.conv.weight_OCKK"].clone()
    inherit(single, parent, TINY.largest)
    adopt(parent, single)
    with torch.no_grad():
        single.blocks["stem"].conv.weight_OCKK.zero_()
    assert torch.equal(parent.state_dict()["blocks.stem.conv.weight_OCKK"], before)


def test_a_supernet_adopts_its_largest_child_bit_for_bit(network):
    single, x = random_supernet(alone(network, network.largest), 1), images(network)
    parent = network.supernet()
    matrices = {n: t.clone() for n, t in parent.state_dict().items() if "to_kernel" in n}
    adopt(parent, single)
    with torch.no_grad():
        expected = single(x, (0,) * len(network.dims))
        assert torch.equal(parent(x, network.largest), expected)
    assert all(torch.equal(parent.state_dict()[n], t) for n, t in matrices.items())


def test_a_projection_that_the_largest_child_has_not_begins_as_the_identity():
    network = small_network("attentive_nas")  # stem and first stage are 24 wide, or 16
    parent = network.supernet()
    adopt(parent, random_supernet(alone(network, network.largest), 1))
    shortcut = parent.blocks["stage1_block1"].shortcut.weight_OCKK.detach()
    assert torch.equal(shortcut[:, :, 0, 0], torch.eye(24))


def test_weights_of_another_child_are_refused():
    parent = TINY.supernet()
    smallest = alone(TINY, TINY.smallest).supernet()
    with pytest.raises(CheckpointError, match=r"its stem is .*height 4.*height 8.* is needed"):
        adopt(parent, smallest)
    with pytest.raises(CheckpointError, match="weights are of another child"):
        inherit(smallest, parent, TINY.largest)
    deeper = next(
        (*TINY.smallest[:i], 1, *TINY.smallest[i + 1 :])
        for i, dim in enumerate(TINY.dims)
        if dim.name == "stage1.depth"
    )
    with pytest.raises(CheckpointError, match=r"its stage1.block2 is missing, but kind mbconv"):
        inherit(smallest, parent, deeper)
    with pytest.raises(
        CheckpointError, match=r"its stage1.block2 is kind mbconv.*missing is needed"
    ):
        inherit(alone(TINY, deeper).supernet(), parent, TINY.smallest)
    with pytest.raises(CheckpointError, match=r"its classifier is .*out_features 4"):
        adopt(parent, Network("tiny:size=8@largest", 4).supernet())


def test_its_latency_is_what_the_whole_spaces_model_predicts():
    table = fake_latency.table(TINY)
    table.models = {"0123": fake_latency.model(ratios=(2.0,) * 60), **table.models}
    whole = Predictor(TINY, table)
    for genotype in some_children(TINY, 5):
        own = Predictor(alone(TINY, genotype), table)
        assert own.model == table.models[TINY.identity]
        zeros = np.zeros((1, len(alone(TINY, genotype).dims)), int)
        expected = whole.bound_ms(np.array([genotype]))
        np.testing.assert_allclose(own.bound_ms(zeros), expected, rtol=1e-12)


def test_describe_on_the_command_line():
    found = facts("describe", "tiny:size=8@smallest", "--classes", "10")
    assert found["children"] == 1
    assert found["smallest"] == found["largest"]
    assert found["smallest"]["macs"] == TINY.macs(TINY.smallest)
    assert found["smallest"]["settings"] == TINY.settings(TINY.smallest)
    shown = facts("describe", "tiny:size=8@smallest", "--child", "largest", "--classes", "10")
    assert shown["params"] == TINY.params(TINY.smallest)
    assert "names no child of tiny" in refused("describe", "tiny@0,1")


def test_it_is_trained_searched_exported_and_verified_like_any_network(tmp_path, stopped_clock):
    out, exported = tmp_path / "run", tmp_path / "exported"
    file = run_file(tmp_path / "run.yaml", steps=2)
    done("train", file, "--space", "tiny:size=8@smallest", "--out", out)
    table = out / "latency_tables" / f"{DEVICE}.json"
    table_of_here(TINY).write(table)
    child = ("tiny:size=8@smallest", "--classes", 10)
    bound_ms = facts("predict", DEVICE, *child, "--table", table)["bound_ms"]
    done("search", out, "--device", DEVICE)
    best = facts("query", out, "--device", DEVICE, "--latency", "1s")
    assert best["params"] == TINY.params(TINY.smallest)
    assert best["bound_ms"] == bound_ms
    genes = best["genotype"]
    made = facts("export", out, "--device", DEVICE, "--genotype", genes, "--out", exported)
    assert made["macs"] == TINY.macs(TINY.smallest)
    assert made["space"] == f"tiny:size=8@{format_genotype(TINY.smallest)}"
    assert facts("verify", exported)["parity"]["top1_agreement"] == 1
