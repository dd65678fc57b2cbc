"""The translation from ONNX to ncnn: what it writes, what it refuses."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from elastic_nas import plugins
from elastic_nas.errors import ElasticNasError
from elastic_nas.latency.micromodels import block_model, child_model, null_model
from elastic_nas.network import Network
from elastic_nas.runtimes import onnxruntime_cpu
from elastic_nas.runtimes._graph import ATTRIBUTES, read_graph
from elastic_nas.runtimes._ncnn_writer import WRITERS, write_ncnn
from elastic_nas.runtimes.ncnn import Runtime
from elastic_nas.specs.mbconv import MBConvSpec

pytest.importorskip("ncnn")

DEFAULTS = {(2, 1), (12, 1)}
"""Dilations, which pnnx states and ncnn assumes."""


def translated(spec):
    model = block_model(spec, 0)
    return write_ncnn(read_graph(model, spec.input_shape, "ncnn"))[0]


def layers(text):
    """How often each layer stands in a param file, with its parameters but those left at zero."""
    found = Counter()
    for line in text.splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        pairs = [pair.split("=") for pair in rest[int(inputs) + int(outputs) :]]
        params = {(int(k), round(float(v), 6)) for k, v in pairs if float(v)}
        found[kind, frozenset(params - DEFAULTS if "Conv" in kind else params)] += 1
    return found


specs = st.builds(
    MBConvSpec,
    height=st.integers(3, 12),
    width=st.integers(3, 12),
    in_ch=st.just(8),
    mid_ch=st.sampled_from([8, 12, 40]),
    out_ch=st.sampled_from([8, 20]),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    se_ch=st.sampled_from([0, 4]),
    expanded=st.just(True),
    activation=st.sampled_from(["relu", "hswish", "swish"]),
    gate=st.sampled_from(["sigmoid", "hsigmoid"]),
    shortcut=st.sampled_from(["projected", "identity"]),
).filter(lambda spec: spec.height % 2 == spec.width % 2)


@settings(max_examples=30, deadline=None)
@given(spec=specs)
def test_any_block_computes_what_onnx_runtime_computes(spec):
    model = block_model(spec, 1)
    x = np.random.default_rng(2).standard_normal((1, *spec.input_shape)).astype(np.float32)
    expected = onnxruntime_cpu.Runtime().run(model, x)
    error = np.abs(Runtime().run(model, x) - expected).max()
    assert error < 1e-4 * np.abs(expected).max()


def test_children_of_every_space_compute_what_onnx_runtime_computes(network):
    genotype = network.smallest
    model, shape = child_model(network, genotype, 0), network.blocks(genotype)[0].input_shape
    x = np.random.default_rng(2).uniform(0, 255, (1, *shape)).astype(np.float32)
    expected = onnxruntime_cpu.Runtime().run(model, x)
    assert np.abs(Runtime().run(model, x) - expected).max() < 1e-3 * np.abs(expected).max()


def test_activations_are_fused_as_pnnx_fuses_them():
    spec = MBConvSpec(8, 8, 8, 24, 8, 3, 1, 4, True, "relu", "sigmoid", "identity")
    kinds = [line.split()[0] for line in translated(spec).splitlines()[2:]]
    assert kinds == [
        "Input", "Split", "Convolution", "ConvolutionDepthWise", "Split", "Pooling",
        "InnerProduct", "InnerProduct", "BinaryOp", "Convolution", "BinaryOp",
    ]  # fmt: skip
    swish = MBConvSpec(8, 8, 8, 24, 16, 3, 1, 0, True, "swish", "sigmoid", "identity")
    kinds = [line.split()[0] for line in translated(swish).splitlines()[2:]]
    assert kinds == [
        "Input",
        "Convolution",
        "Swish",
        "ConvolutionDepthWise",
        "Swish",
        "Convolution",
    ]


def test_every_operator_that_is_read_is_written():
    assert WRITERS.keys() == ATTRIBUTES.keys() | {"Swish"}


@pytest.mark.parametrize(
    ("op", "change"),
    [
        ("Conv", helper.make_attribute("dilations", [2, 2])),
        ("Conv", helper.make_attribute("pads", [0, 1, 1, 1])),
        ("HardSigmoid", helper.make_attribute("alpha", 0.2)),
        ("AveragePool", helper.make_attribute("count_include_pad", 1)),
    ],
)
def test_attributes_that_are_not_translated_are_refused_by_name(op, change):
    spec = MBConvSpec(9, 9, 8, 24, 16, 3, 2, 8, True, "relu", "hsigmoid", "projected")
    model = onnx.load_from_string(block_model(spec, 0))
    Runtime().convert(model.SerializeToString(), spec.input_shape)
    node = next(node for node in model.graph.node if node.op_type == op)
    for attribute in [a for a in node.attribute if a.name == change.name]:
        node.attribute.remove(attribute)
    node.attribute.append(change)
    with pytest.raises(ElasticNasError, match=rf"its operator {op} \('.*{change.name}="):
        Runtime().convert(model.SerializeToString(), spec.input_shape)


def test_a_model_for_another_input_is_refused():
    with pytest.raises(ElasticNasError, match=r"on \(2,\): it takes \(1,\)"):
        Runtime().convert(null_model(), (2,))
    with pytest.raises(ElasticNasError, match=r"its input is \[1\]"):
        Runtime().load(Runtime().convert(null_model(), (1,)), (2,))


def test_a_damaged_conversion_is_refused_before_ncnn_reads_it(capfd):
    network = Network("tiny", 10)
    shape = network.blocks(network.smallest)[0].input_shape
    whole = Runtime().convert(child_model(network, network.smallest, 0), shape)
    head, _, content = whole.partition(b"\n")
    about = json.loads(head)
    others = [b"null", b"[]", b"{}", json.dumps(about | {"format": "other"}).encode()]
    others.append(json.dumps(about | {"param": "3"}).encode())
    for damaged in [
        whole[:-1],
        whole + b"\0",
        whole[:20],
        *(b"\n".join((o, content)) for o in others),
    ]:
        with pytest.raises(ElasticNasError, match="ncnn refuses the model"):
            Runtime().load(damaged, shape)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("threads", [1, 2])
def test_ncnn_gets_the_options_that_were_asked_for(monkeypatch, threads):
    ncnn, nets = Runtime().package(), []

    def net():
        nets.append(made())
        return nets[-1]

    made = ncnn.Net
    monkeypatch.setattr(ncnn, "Net", net)
    Runtime(threads).prepare(null_model(), (1,))
    options = nets[0].opt
    assert options.num_threads == threads
    assert options.lightmode
    half = [name for name in dir(options) if "16" in name]
    assert half
    assert not any(getattr(options, name) for name in half)


def test_inputs_need_not_be_contiguous_and_are_not_written_to():
    x = np.arange(-6, 6, dtype=np.float32).reshape(12, 1)
    kept = x.copy()
    assert Runtime().run(null_model(), x[::-2]).ravel().tolist() == [5, 3, 1, 0, 0, 0]
    assert np.array_equal(x, kept)


@pytest.mark.slow
@pytest.mark.parametrize("space", plugins.available("spaces"))
def test_pnnx_writes_the_same_layers_and_weights(space, tmp_path):
    pnnx = Path(pytest.importorskip("pnnx").__file__).parent / "pnnx"
    network = small_network(space)
    for genotype in (network.smallest, network.largest):
        model, shape = child_model(network, genotype, 0), network.blocks(genotype)[0].input_shape
        (tmp_path / "m.onnx").write_bytes(model)
        size = ",".join(map(str, (1, *shape)))
        subprocess.run(
            [pnnx, "m.onnx", f"inputshape=[{size}]", "fp16=0"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        text, weights = write_ncnn(read_graph(model, shape, "ncnn"))
        assert layers(text) == layers((tmp_path / "m.ncnn.param").read_text())
        assert weights == (tmp_path / "m.ncnn.bin").read_bytes()
