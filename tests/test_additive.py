"""Counted peaks and file sizes against the graphs that children really become."""

import os
from random import Random

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elastic_nas import additive, plugins
from elastic_nas.additive import AdditiveCost, file_bytes, peak_activation_bytes
from elastic_nas.genotype import sample
from elastic_nas.latency.micromodels import block_model, child_model
from elastic_nas.network import Network
from elastic_nas.specs.conv import ConvSpec
from elastic_nas.specs.head import HeadSpec
from elastic_nas.specs.mbconv import MBConvSpec

SPACES = {name: Network(name, 10) for name in plugins.available("spaces")}
IN_PLACE = {"Relu", "HardSwish", "Sigmoid", "HardSigmoid", "Mul", "Add", "Flatten"}


def few_children(network):
    rng = Random(3)
    return [network.smallest, *(sample(network.dims, rng) for _ in range(2))]


def peak_of_graph(model: bytes) -> int:
    """The most bytes that are alive at one time when the nodes run in order.

    A node that may work in place takes the memory of its first input that nobody needs any more.
    """
    proto = onnx.load_model_from_string(model)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(proto).graph
    size = {
        value.name: 4 * int(np.prod([d.dim_value or 1 for d in value.type.tensor_type.shape.dim]))
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    alive, peak = {"input"}, 0
    for i, node in enumerate(graph.node):
        done = {name for name in node.input if name in alive and last[name] == i}
        reused = node.op_type in IN_PLACE and any(
            size[name] == size[node.output[0]] for name in done
        )
        after = alive if reused else alive | {node.output[0]}
        peak = max(peak, sum(size[name] for name in after))
        alive = (alive | {node.output[0]}) - done
    return peak


@pytest.mark.parametrize("name", SPACES)
def test_the_counted_peak_is_that_of_the_graph(name):
    network = SPACES[name]
    children = few_children(network) if name != "bignas" else [network.smallest]
    counted = peak_activation_bytes(network, np.array(children))
    for child, peak in zip(children, counted, strict=True):
        assert peak == peak_of_graph(child_model(network, child, 0))


@pytest.mark.parametrize("name", SPACES)
def test_the_peak_is_the_largest_of_the_blocks(name, monkeypatch):
    network = SPACES[name]
    rng = np.random.default_rng(1)
    genes = [rng.integers(0, len(dim.choices), 40) for dim in network.dims]
    genotypes = np.stack(genes, axis=1)
    slow = [
        max(spec.costs.peak_bytes for spec in network.blocks(tuple(map(int, genotype))))
        for genotype in genotypes
    ]
    assert peak_activation_bytes(network, genotypes).tolist() == slow
    monkeypatch.setattr(additive, "MAX_TABLE", 1)
    alone = AdditiveCost(network, lambda spec: spec.costs.peak_bytes, np.maximum)
    assert alone(genotypes).tolist() == slow


def test_peaks_by_hand():
    assert ConvSpec(8, 8, 3, 4, 3, 2, "relu").costs.peak_bytes == 4 * (3 * 64 + 4 * 16)
    assert ConvSpec(8, 8, 3, 4, 3, 1, "swish").costs.peak_bytes == 4 * 2 * 4 * 64
    block = {"height": 8, "width": 8, "in_ch": 4, "mid_ch": 24, "out_ch": 4, "kernel": 3}
    rest = {"se_ch": 0, "expanded": True, "activation": "relu", "gate": "sigmoid"}
    same = MBConvSpec(**block, stride=1, **rest, shortcut="identity")
    assert same.costs.peak_bytes == 4 * 64 * (4 + 24 + 24)  # the input waits for the shortcut
    smaller = MBConvSpec(**block, stride=2, **rest, shortcut="identity")
    assert smaller.costs.peak_bytes == 4 * (64 * 24 + 16 * 24)


CHANNELS = st.integers(1, 64)


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, 12),
    channels=st.tuples(CHANNELS, CHANNELS, CHANNELS, st.integers(0, 8)),
    stride=st.sampled_from([1, 2]),
    expanded=st.booleans(),
    activation=st.sampled_from(["relu", "swish"]),
    shortcut=st.sampled_from(["projected", "identity"]),
)
def test_a_blocks_peak_is_that_of_its_graph(size, channels, stride, expanded, activation, shortcut):
    in_ch, mid_ch, out_ch, se_ch = channels
    spec = MBConvSpec(
        height=size,
        width=size,
        in_ch=in_ch,
        mid_ch=mid_ch if expanded else in_ch,
        out_ch=out_ch,
        kernel=3,
        stride=stride,
        se_ch=se_ch,
        expanded=expanded,
        activation=activation,
        gate="sigmoid",
        shortcut=shortcut,
    )
    assert spec.costs.peak_bytes == peak_of_graph(block_model(spec, 0))


@given(
    st.integers(1, 12), CHANNELS, CHANNELS, st.integers(0, 64), st.sampled_from(["relu", "swish"])
)
@example(1, 2, 8, 0, "relu")
@settings(deadline=None, max_examples=30)
def test_a_heads_peak_is_that_of_its_graph(size, in_ch, mid_ch, hidden_ch, activation):
    spec = HeadSpec(size, size, in_ch, mid_ch, hidden_ch, activation)
    assert spec.costs.peak_bytes == peak_of_graph(block_model(spec, 0))


def quantised_size(model: bytes, shape, folder) -> int:
    """Bytes of the model in ONNX Runtime's own int8 form, quantised on noise."""
    from onnxruntime import quantization

    class Noise(quantization.CalibrationDataReader):
        images = iter([{"input": np.random.default_rng(0).normal(size=(1, *shape))}])

        def get_next(self):
            image = next(self.images, None)
            return image and {key: value.astype(np.float32) for key, value in image.items()}

    (folder / "fp32.onnx").write_bytes(model)
    quantization.quantize_static(
        folder / "fp32.onnx",
        folder / "int8.onnx",
        Noise(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
    )
    return os.path.getsize(folder / "int8.onnx")


@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_int8_files_are_estimated_from_above(end, tmp_path):
    network = SPACES["tiny"]
    child = getattr(network, end)
    model = child_model(network, child, 0)
    actual = quantised_size(model, network.blocks(child)[0].input_shape, tmp_path)
    (estimate,) = file_bytes(network, np.array([child]), "int8")
    assert actual + 20 * 1024 <= estimate <= 1.1 * actual + 40 * 1024  # room for metadata


def test_files_of_other_precisions_hold_fp32():
    network = SPACES["tiny"]
    children = np.array([network.smallest, network.largest])
    fp32, bf16, int8 = (file_bytes(network, children, p) for p in ("fp32", "bf16", "int8"))
    assert fp32.tolist() == bf16.tolist()
    assert int8[1] < fp32[1] / 2
