"""Sorted channels: the largest child computes the same, and narrow children lose the least."""

import copy

import pytest
import torch
from conftest import small_network
from torch import nn

from elastic_nas.genotype import Genotype
from elastic_nas.network import Network
from elastic_nas.nn.child import randomise
from elastic_nas.nn.importance import sort_channels, tied_channels
from elastic_nas.nn.supernet import Supernet


def random_supernet(network: Network, seed: int = 1) -> Supernet:
    """Every parameter random, matrices between kernels too."""
    supernet = network.supernet()
    randomise(supernet, seed)
    return supernet


def images(network: Network, batch: int = 2) -> torch.Tensor:
    size = network.dims[0].choices[-1]
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def logits(supernet: Supernet, x: torch.Tensor, genotype: Genotype) -> torch.Tensor:
    with torch.no_grad():
        return supernet(x, genotype)


def relative(error: torch.Tensor, scale: torch.Tensor) -> float:
    return float(error.norm() / scale.norm())


def test_the_largest_child_computes_the_same(network):
    single, x = random_supernet(network), images(network)
    double = copy.deepcopy(single).double()
    for supernet, limit in ((single, 1e-4), (double, 1e-10)):
        own = x.to(next(supernet.parameters()).dtype)
        before = logits(supernet, own, network.largest)
        sort_channels(supernet)
        assert relative(logits(supernet, own, network.largest) - before, before) < limit


@pytest.mark.parametrize("name", ["tiny", "ofa_mobilenetv3"])
def test_everything_is_permuted_but_classes_and_what_channels_share(name):
    supernet = random_supernet(small_network(name))
    weights = copy.deepcopy(supernet.state_dict())
    sort_channels(supernet)
    fixed = {name for name in weights if "to_kernel" in name} | {"blocks.classifier.linear.bias_O"}
    for name, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, weights[name]) == (name in fixed), name
        assert torch.equal(tensor.flatten().sort()[0], weights[name].flatten().sort()[0])
    weights = copy.deepcopy(supernet.state_dict())
    sort_channels(supernet)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in supernet.state_dict().items())


def norms(*readers: nn.Module) -> list[float]:
    """L1 norms of columns, by loops."""
    weights = [next(reader.parameters()).detach() for reader in readers]
    columns = range(weights[0].shape[1])
    return [sum(float(w[:, column].abs().sum()) for w in weights) for column in columns]


def descends(values: list[float]) -> bool:
    return values == sorted(values, reverse=True)


def test_the_order_of_each_width_is_that_of_its_readers():
    network = Network("tiny", 10)
    supernet = random_supernet(network).double()
    sort_channels(supernet)
    blocks = supernet.blocks
    stages = {
        n: [blocks[f"stage{n}_block{k}"] for k in (1, 2, 3) if n > 1 or k < 3] for n in (1, 2, 3)
    }
    for block in [block for stage in stages.values() for block in stage]:
        assert descends(norms(block.project))
        assert not hasattr(block, "excite") or descends(norms(block.excite))
    for stage, after in ((stages[1], stages[2][0]), (stages[2], stages[3][0])):
        # In a stage, widths are equal: the first block's outputs are added to by all the others.
        expansions = [block.expand for block in stage[1:]]
        assert descends(norms(*expansions, after.expand, after.shortcut))
    assert descends(norms(*[block.expand for block in stages[3][1:]], blocks["head"].conv))
    assert descends(norms(blocks["classifier"].linear))
    # The stem is 16 wide, the first stage 24: there is a projection, and nothing ties them.
    assert descends(norms(stages[1][0].expand, stages[1][0].shortcut))


def test_a_block_without_expansion_or_projection_ties_everything_around_it():
    network = small_network("attentive_nas")
    supernet = random_supernet(network).double()
    sort_channels(supernet)
    one, two = (supernet.blocks[f"stage1_block{k}"] for k in (1, 2))  # 24 wide, like the stem
    after = supernet.blocks["stage2_block1"]
    assert descends(norms(one.project, two.project, after.expand, after.shortcut))
    assert not descends(norms(one.project))
    assert descends(norms(supernet.blocks["head"].hidden))
    assert descends(norms(supernet.blocks["classifier"].linear))


NARROW = {
    "stem.width": 8,
    "stage1.width": 8,
    "stage2.width": 16,
    "stage3.width": 24,
    "stage2.block1.expand": 3,
    "stage3.block2.expand": 3,
    "head.width": 64,
}
"""A dim of `tiny` and what the narrow child has there; its other dims are the largest child's."""


def narrowed(network: Network, dim: str, value: int) -> Genotype:
    names = [dim.name for dim in network.dims]
    place = names.index(dim)
    gene = network.dims[place].choices.index(value)
    return (*network.largest[:place], gene, *network.largest[place + 1 :])


def with_few_that_matter(supernet: Supernet, share: float) -> Supernet:
    """Leave a random `share` of all channels with weights that read them, and few to the rest."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for channels in tied_channels(supernet):
            n = channels.readers[0].shape[1]
            idle = torch.randperm(n, generator=generator)[round(share * n) :]
            for weight in channels.readers:
                weight[:, idle] *= 1e-4
    return supernet


@pytest.mark.parametrize("dim", NARROW)
def test_a_narrow_child_keeps_the_channels_that_matter(dim):
    network = Network("tiny", 10)
    supernet, x = with_few_that_matter(random_supernet(network), 0.3), images(network)
    child = narrowed(network, dim, NARROW[dim])
    expected = logits(supernet, x, network.largest)
    before = relative(logits(supernet, x, child) - expected, expected)
    sort_channels(supernet)
    after = relative(logits(supernet, x, child) - expected, expected)
    assert after < before / 3
