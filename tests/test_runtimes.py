"""The contract of runtimes, in every precision that this machine has."""

import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from onnx import TensorProto, helper

from elastic_nas import plugins
from elastic_nas.errors import ConfigError, ElasticNasError, MissingExtra
from elastic_nas.latency.micromodels import block_model, child_model, null_model
from elastic_nas.machine import environment
from elastic_nas.measure import Protocol, measure
from elastic_nas.network import Network
from elastic_nas.nn.onnx_writer import GraphWriter
from elastic_nas.specs import spec_kinds
from elastic_nas.specs.classifier import ClassifierSpec
from elastic_nas.specs.conv import ConvSpec
from elastic_nas.specs.head import HeadSpec
from elastic_nas.specs.mbconv import MBConvSpec

NAMES = plugins.available("runtimes")
PACKAGES = {"onnxruntime_cpu": "onnxruntime", "torch_eager": "torch"}
NEEDS = {"bf16": {"avx512_bf16", "amx_bf16"}}
"""CPU flags, one of which a precision needs."""
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}

BLOCKS = {
    "stem": ConvSpec(13, 13, 3, 8, 3, 2, "hswish"),
    "inverted": MBConvSpec(9, 9, 8, 24, 8, 5, 1, 8, True, "swish", "sigmoid", "projected"),
    "strided": MBConvSpec(9, 9, 8, 24, 16, 3, 2, 8, True, "relu", "hsigmoid", "projected"),
    "even": MBConvSpec(8, 8, 8, 24, 16, 3, 2, 0, True, "relu", "sigmoid", "projected"),
    "narrow": MBConvSpec(7, 7, 8, 8, 8, 7, 1, 0, False, "hswish", "sigmoid", "identity"),
    "head": HeadSpec(5, 5, 16, 24, 0, "relu"),
    "hidden": HeadSpec(5, 5, 16, 24, 40, "swish"),
    "classifier": ClassifierSpec(40, 10),
}


def made(name, precision="fp32"):
    return plugins.load("runtimes", name).Runtime(precision=precision)


def variants():
    """What computes on the CPU: PyTorch's fp16 does not."""
    every = [(name, p) for name in NAMES for p in plugins.load("runtimes", name).Runtime.precisions]
    return [variant for variant in every if variant != ("torch_eager", "fp16")]


@pytest.fixture(params=variants(), ids="-".join)
def runtime(request):
    """Every runtime in each of its precisions."""
    return available(*request.param)


def available(name, precision):
    flags = NEEDS.get(precision)
    if flags and not flags & set(environment()["flags"]):
        pytest.skip(f"this CPU has no {precision}")
    pytest.importorskip(PACKAGES.get(name, name))
    return made(name, precision)


@pytest.fixture(params=[v for v in variants() if v[1] in TOLERANCE], ids="-".join)
def exact(request):
    """Every runtime in the precisions that are close to fp32; int8 is judged by accuracy."""
    return available(*request.param)


@pytest.fixture(params=NAMES)
def plain(request):
    """Every runtime in fp32."""
    pytest.importorskip(PACKAGES.get(request.param, request.param))
    return made(request.param)


def reference(model, x):
    return made("onnxruntime_cpu").run(model, x)


def images(shape, batch=2):
    return np.random.default_rng(0).uniform(0, 255, (batch, *shape)).astype(np.float32)


def features(shape, batch=2):
    return np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)


def largest_error(found, expected):
    """Relative to the largest number that is expected."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_a_runtime_describes_itself(runtime):
    described = runtime.describe()
    assert [*described] == ["name", "version", "provider", "threads", "graph_optimization"]
    assert described.pop("threads") == runtime.threads == 1
    assert all(isinstance(text, str) and text for text in described.values())
    assert not runtime.owns_threads


def test_the_version_is_the_installed_one(plain):
    library = sys.modules.get(plain.name) or pytest.importorskip(plain.name)
    assert library.__version__.startswith(plain.version)


def test_a_child_computes_what_onnx_runtime_computes(exact):
    runtime = exact
    network = Network("tiny", 10)
    for genotype in (network.smallest, network.largest):
        model = child_model(network, genotype, 0)
        x = images(network.blocks(genotype)[0].input_shape)
        error = largest_error(runtime.run(model, x), reference(model, x))
        assert error < TOLERANCE[runtime.precision]


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_block_computes_what_onnx_runtime_computes(exact, block):
    runtime = exact
    model, x = block_model(block, 0), features(block.input_shape)
    error = largest_error(runtime.run(model, x), reference(model, x))
    assert error < TOLERANCE[runtime.precision]


def test_tensors_with_several_readers_are_computed_whole(plain):
    """No fusion may swallow what something else reads."""
    import torch

    graph, conv = GraphWriter(), torch.nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 1.5]])[..., None, None])
        conv.bias.copy_(torch.tensor([0.25, -0.75]))
    y = graph.conv("conv", "input", conv)
    y = graph.node("Add", "first", [y, graph.activation("relu", y, "relu")])
    gate = graph.activation("gate", y, "sigmoid")
    y = graph.node("Add", "second", [graph.node("Mul", "scaled", [y, gate]), gate])
    model = graph.model((2, 3, 3), y, (2, 3, 3)).SerializeToString()
    x = features((2, 3, 3))
    assert largest_error(plain.run(model, x), reference(model, x)) < 1e-6


def test_every_block_kind_is_tried():
    assert {block.kind for block in BLOCKS.values()} == spec_kinds().keys()


def test_what_is_timed_is_the_same_computation_on_the_same_input(runtime):
    timed, block = runtime, BLOCKS["strided"]
    for shape, model in [
        (block.input_shape, block_model(block, 0)),
        ((3, 16, 16), child_model(network := Network("tiny", 10), network.largest, 0)),
    ]:
        run = timed.prepare(model, shape)
        expected = made("onnxruntime_cpu").prepare(model, shape)()[0]
        (one,) = (np.array(output) for output in run())
        assert one.shape == expected.shape
        assert np.isfinite(one).all()
        assert np.array_equal(one, run()[0])
        if timed.precision in TOLERANCE:
            assert largest_error(one, expected) < TOLERANCE[timed.precision]


def test_converting_is_deterministic_and_all_that_loading_needs(runtime):
    block = BLOCKS["strided"]
    model = block_model(block, 0)
    converted = runtime.convert(model, block.input_shape)
    assert isinstance(converted, bytes)
    assert converted == runtime.convert(model, block.input_shape)
    loaded, prepared = (
        runtime.load(converted, block.input_shape),
        runtime.prepare(model, block.input_shape),
    )
    assert np.array_equal(loaded()[0], prepared()[0])


def test_run_takes_bytes_and_files(plain, tmp_path):
    (tmp_path / "null.onnx").write_bytes(null_model())
    x = np.array([[-1.0], [2.0]], np.float32)
    for model in (null_model(), tmp_path / "null.onnx"):
        assert plain.run(model, x).tolist() == [[0.0], [2.0]]
    assert x.tolist() == [[-1.0], [2.0]]


def test_what_is_no_model_is_refused_in_silence(runtime, tmp_path, capfd):
    x = np.zeros((1, 1), np.float32)
    for nonsense in (b"not a model", b""):
        with pytest.raises(ElasticNasError, match="refuses the model"):
            runtime.prepare(nonsense, (1,))
        with pytest.raises(ElasticNasError, match="refuses the model"):
            runtime.run(nonsense, x)
    with pytest.raises(ElasticNasError, match=r"missing\.onnx"):
        runtime.run(tmp_path / "missing.onnx", x)
    with pytest.raises(ElasticNasError, match="cannot run"):
        runtime.run(null_model(), np.zeros((1, 2, 3), np.float32))
    runtime.prepare(null_model(), (1,))()
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_the_runtime_lacks_is_named(runtime):
    node = helper.make_node("Frobnicate", ["input"], ["out"], name="odd")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1])
        for name in ("input", "out")
    ]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    with pytest.raises(ElasticNasError, match="Frobnicate"):
        runtime.prepare(model, (1,))


def test_threads_and_precisions_are_explicit(plain):
    cls = type(plain)
    assert cls(2).owns_threads
    assert cls(2).describe()["threads"] == 2
    for number in (0, 100_000):
        with pytest.raises(ConfigError, match="threads must be 1 to"):
            cls(number)
    with pytest.raises(ConfigError, match=r"'fp31'.*fp32"):
        cls(precision="fp31")
    with pytest.raises(ConfigError, match="'abacus'"):
        cls(provider="abacus").prepare(null_model(), (1,))


def test_two_threads_compute_the_same(plain):
    block = BLOCKS["inverted"]
    model, x = block_model(block, 0), features(block.input_shape)
    assert largest_error(type(plain)(2).run(model, x), reference(model, x)) < 1e-4


def test_a_missing_package_says_how_to_install_it(plain, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setitem(sys.modules, plain.name, None)
    assert plain.version == ""
    assert plain.describe()["version"] == ""
    advice = f"{plain.name} is not installed: pip install '"
    with pytest.raises(MissingExtra, match=advice):
        plain.prepare(null_model(), (1,))
    with pytest.raises(MissingExtra, match=advice):
        plain.run(null_model(), np.zeros((1, 1), np.float32))


def test_the_stop_watch_accepts_the_runtime(runtime):
    block = BLOCKS["strided"]
    runs = {"block": runtime.prepare(block_model(block, 0), block.input_shape)}
    timing = measure(runs, Protocol(rounds=2, min_samples=1), owns_threads=runtime.owns_threads)
    assert timing["block"].contended_p90 > 0


def ran(code):
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def test_nothing_heavy_is_imported_before_it_is_used():
    ran(
        "import sys\nfrom elastic_nas import plugins\n"
        f"for name in {NAMES}:\n"
        "    runtime = plugins.load('runtimes', name).Runtime()\n"
        "    assert runtime.describe()['version'], name\n"
        "    heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'ncnn', 'scipy', 'pydantic'}\n"
        "    assert not heavy & set(sys.modules), name\n"
    )


def test_the_arithmetic_and_the_threads_of_the_process_stay_as_they_are():
    ended = ran(
        "import torch\nfrom elastic_nas import plugins\n"
        "from elastic_nas.latency.micromodels import null_model\n"
        "torch.set_num_threads(2)\n"
        f"for name in {NAMES}:\n"
        "    plugins.load('runtimes', name).Runtime().prepare(null_model(), (1,))()\n"
        "    assert 2.2250738585072014e-308 / 2 > 0, f'{name} flushes numbers near zero'\n"
        "    assert torch.get_num_threads() == 2, name\n"
    )
    assert not ended.stdout + ended.stderr


def test_micromodels_leave_the_global_generator_and_torchs_threads_alone():
    import torch

    state, network = torch.random.get_rng_state(), Network("tiny", 10)
    torch.set_num_threads(2)
    try:
        child_model(network, network.smallest, 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    spec = BLOCKS["strided"]
    assert block_model(spec, 3) == block_model(spec, 3) != block_model(spec, 4)
    assert torch.equal(torch.random.get_rng_state(), state)
