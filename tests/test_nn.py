"""Elastic modules, slicing and the ONNX writer, for every space."""

import io
import warnings
from random import Random

import numpy as np
import pytest
import torch
from torch import nn

from elastic_nas.export.onnx_file import check_file, child_logits, compare, session
from elastic_nas.genotype import sample
from elastic_nas.network import Network
from elastic_nas.nn import mbconv
from elastic_nas.nn.child import randomise
from elastic_nas.nn.layers import ElasticBatchNorm2d, ElasticConv2d, ElasticLinear
from elastic_nas.nn.onnx_writer import folded
from elastic_nas.nn.supernet import Supernet, plain, resize
from elastic_nas.specs.mbconv import MBConvSpec
from elastic_nas.training.calibration import calibrate
from elastic_nas.training.step import normalise

N_CHILDREN = 12
"""Random children of each space that the suite looks at; the slow tests look at `MANY`."""
MANY = 50


@pytest.fixture(scope="module")
def supernet(network: Network) -> Supernet:
    """A supernet with every parameter random: fresh norms are all ones and would hide mistakes."""
    supernet = network.supernet()
    randomise(supernet, seed=1)
    return supernet


def per_dimension(network: Network):
    """The smallest and the largest child, and each with one gene moved to each other choice."""
    for end in (network.smallest, network.largest):
        yield end
        for position, dim in enumerate(network.dims):
            for gene in range(len(dim.choices)):
                yield (*end[:position], gene, *end[position + 1 :])


def children(network: Network, n: int = N_CHILDREN, seed: int = 0):
    rng = Random(seed)
    return [sample(network.dims, rng) for _ in range(n)]


def images(network: Network, batch: int = 2) -> torch.Tensor:
    size = network.dims[0].choices[-1]
    x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def assert_same(supernet: Supernet, network: Network, genotypes) -> None:
    x = images(network)
    resized = {r: resize(x, r) for r in network.dims[0].choices}
    with torch.no_grad():
        for genotype in genotypes:
            child = supernet.slice(genotype).train()  # batch statistics, as in the supernet
            expected = child(resized[child.resolution])
            torch.testing.assert_close(supernet(x, genotype), expected, rtol=1e-5, atol=1e-5)


def test_sliced_child_computes_what_the_supernet_computes_per_dimension(network, supernet):
    every = sorted(set(map(network.canonical, per_dimension(network))))
    assert_same(supernet, network, {*every[::3], network.largest, network.smallest})


def test_sliced_child_computes_what_the_supernet_computes_on_random_children(network, supernet):
    assert_same(supernet, network, children(network))


@pytest.mark.slow
def test_every_dimension_and_many_children_compute_what_the_supernet_computes(network, supernet):
    assert_same(supernet, network, set(map(network.canonical, per_dimension(network))))
    assert_same(supernet, network, children(network, MANY))


def test_child_and_supernet_are_bit_equal_on_one_machine():
    network = Network("tiny", 10)
    supernet = network.supernet()
    randomise(supernet, 3)
    x = images(network)
    with torch.no_grad():
        for genotype in children(network, 10):
            child = supernet.slice(genotype).train()
            assert torch.equal(supernet(x, genotype), child(resize(x, child.resolution)))


def test_a_gene_that_matters_changes_the_output(network, supernet):
    x = images(network)
    with torch.no_grad():
        largest = supernet(x, network.largest)
        for position, dim in enumerate(network.dims):
            if len(dim.choices) > 1:
                genotype = (*network.largest[:position], 0, *network.largest[position + 1 :])
                assert not torch.allclose(supernet(x, genotype), largest), dim.name


def test_child_has_the_parameters_the_specs_count(network, supernet):
    for genotype in children(network, 10):
        child = supernet.slice(genotype)
        assert sum(p.numel() for p in child.parameters()) == network.params(genotype)
        assert child.specs == network.blocks(genotype)


def test_blocks_map_the_shapes_their_specs_say(network, supernet):
    for genotype in children(network, 5, seed=4):
        x = torch.zeros(2, *network.blocks(genotype)[0].input_shape)
        for block in supernet.slice(genotype).blocks:
            assert tuple(x.shape[1:]) == block.spec.input_shape
            x = block(x)
            assert tuple(x.shape[1:]) == block.spec.output_shape


def test_fvcore_counts_what_the_formula_counts(network, supernet):
    check_fvcore(network, supernet, N_CHILDREN)


@pytest.mark.slow
def test_fvcore_counts_what_the_formula_counts_for_many_children(network, supernet):
    check_fvcore(network, supernet, MANY)


def check_fvcore(network, supernet, n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore uses torch.jit, deprecated upstream
        from fvcore.nn import FlopCountAnalysis
    for genotype in children(network, n):
        child = supernet.slice(genotype).eval()
        x = torch.zeros(1, 3, child.resolution, child.resolution)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counter = FlopCountAnalysis(child, x).unsupported_ops_warnings(False)
            counter = counter.uncalled_modules_warnings(False)
            by_operator = counter.by_operator()
        assert by_operator["conv"] + by_operator["linear"] == network.macs(genotype)


def test_slice_copies(network, supernet):
    genotype = network.largest
    child = supernet.slice(genotype)
    before = supernet.state_dict()["blocks.stem.conv.weight_OCKK"].clone()
    with torch.no_grad():
        for parameter in child.parameters():
            parameter.zero_()
    assert torch.equal(supernet.state_dict()["blocks.stem.conv.weight_OCKK"], before)


def test_a_child_reads_the_leading_channels_and_the_centre_taps():
    conv = ElasticConv2d(in_ch=2, out_ch=3, kernel=5)
    with torch.no_grad():
        conv.weight_OCKK.copy_(torch.arange(2 * 3 * 25.0).view(3, 2, 5, 5))
    taps = [[6, 7, 8], [11, 12, 13], [16, 17, 18]]  # centre 3x3 of 0..24 laid out 5x5
    weight, bias = conv.active(in_ch=1, out_ch=1, kernel=3)
    assert weight.tolist() == [[taps]]
    assert bias is None
    assert conv.slice(2, 2, 3).weight[1, 1].tolist()[0] == [81, 82, 83]


def test_narrow_norm_and_linear_read_the_leading_entries():
    norm, linear = ElasticBatchNorm2d(3), ElasticLinear(3, 2)
    with torch.no_grad():
        norm.weight_C.copy_(torch.tensor([1.0, 2, 3]))
        linear.weight_OC.copy_(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
    assert norm.slice(2).weight.tolist() == [1, 2]
    assert linear.slice(2).weight.tolist() == [[1, 2], [4, 5]]
    assert not list(norm.buffers())  # no running statistics in the supernet


def spec(**changes) -> MBConvSpec:
    fields = {
        "height": 5, "width": 5, "in_ch": 8, "mid_ch": 16, "out_ch": 8, "kernel": 3, "stride": 1,
        "se_ch": 4, "expanded": True, "activation": "relu", "gate": "hsigmoid",
        "shortcut": "projected",
    }  # fmt: skip
    return MBConvSpec(**{**fields, **changes})


def test_a_fresh_block_is_its_shortcut():
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(mbconv.Elastic([spec()])(x, spec()), x)
    halved = mbconv.Elastic([spec(stride=2)])(x, spec(stride=2))
    assert torch.equal(halved, mbconv.halve(x))


def test_stride_2_with_equal_widths_is_pooling_alone():
    assert not spec(stride=2).has_projection
    assert spec(stride=2).has_shortcut
    assert spec(stride=2, out_ch=16).has_projection
    assert spec(stride=2).costs.pointwise_macs == 8 * 16 * 25 + 16 * 8 * 9


def test_odd_sizes_average_what_is_there():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert mbconv.halve(x).flatten().tolist() == [2.0, 3.5, 6.5, 8.0]


def test_identity_shortcuts_only_where_nothing_changes():
    assert spec(shortcut="identity").has_shortcut
    assert not spec(shortcut="identity", stride=2).has_shortcut
    assert not spec(shortcut="identity", out_ch=16).has_shortcut


def test_expand_1_has_no_expansion_at_all():
    block = spec(mid_ch=8, expanded=False)
    assert not hasattr(mbconv.Plain(block), "expand")
    with_one = spec(mid_ch=8)
    assert with_one.costs.macs - block.costs.macs == 8 * 8 * 25


def test_drop_connect_drops_whole_branches_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = mbconv.drop_branch(torch.ones(4000, 2, 1, 1), 0.25)
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("change", "dropped"), [({}, True), ({"stride": 2}, False), ({"out_ch": 16}, False)]
)
def test_drop_connect_spares_pooled_and_projected_shortcuts(change, dropped):
    block = spec(**change)
    module, x = mbconv.Elastic([block]), torch.randn(8, 8, 8, 8)
    randomise(module, 0)
    assert torch.equal(module(x, block, 0.9), module(x, block)) is not dropped


def test_folding_gives_what_the_norm_gives():
    conv, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
    randomise(conv, 0)
    randomise(norm.eval(), 1)
    weight, bias = folded(conv, norm)
    x = torch.randn(2, 3, 8, 8)
    got = torch.nn.functional.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias))
    torch.testing.assert_close(got, norm(conv(x)))


def test_onnx_file_computes_what_the_child_computes(network, supernet):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    for genotype in [network.smallest, network.largest, *children(network, 3)]:
        child = supernet.slice(genotype)
        shape = (8, 3, child.resolution, child.resolution)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        x = normalise(torch.from_numpy(pixels), mean, std)
        calibrate(child, [x])  # random statistics would let activations explode
        model = child.to_onnx(mean, std).SerializeToString()
        check_file(model, child_logits(child, x), pixels)


def test_torchs_own_exporter_agrees_with_the_writer(network, supernet):
    child = supernet.slice(network.smallest)
    x = torch.randn(8, 3, child.resolution, child.resolution)
    calibrate(child, [x])
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter announces its removal
        torch.onnx.export(child, (x,), file, dynamo=False, opset_version=18)
    theirs = session(file.getvalue())
    expected = theirs.run(None, {theirs.get_inputs()[0].name: x.numpy()})[0]
    got = session(child.to_onnx().SerializeToString()).run(None, {"input": x.numpy()})[0]
    compare(expected, got, "torch's exporter")


def test_writer_names_nodes_by_block_and_folds_norms(network, supernet):
    model = supernet.slice(network.largest).to_onnx()
    operators = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in operators
    assert {node.name.split(".")[0] for node in model.graph.node} >= {"stem", "stage1", "head"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [node.output[0] for node in model.graph.node].count("logits") == 1
    assert model.ir_version == 8
    assert [entry.version for entry in model.opset_import] == [18]


def test_weights_counted_are_the_weights_written(network, supernet):
    child = supernet.slice(network.largest)
    written = sum(np.prod(t.dims) for t in child.to_onnx().graph.initializer)
    assert written == sum(spec.costs.weights for spec in network.blocks(network.largest))


def test_plain_module_has_the_counted_parameters(network):
    for block in network.blocks(network.largest):
        assert sum(p.numel() for p in plain(block).parameters()) == block.costs.params


def test_same_seed_same_weights():
    one, same, other = (Network("tiny", 10).supernet(seed) for seed in (1, 1, 2))
    state = torch.random.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(
        torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )
    Network("tiny", 10).supernet(1)
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is left alone
