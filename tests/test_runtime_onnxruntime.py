"""ONNX Runtime's own promises."""

import math
from collections import Counter

import numpy as np
import pytest

from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.latency.micromodels import block_model, child_model, null_model
from elastic_nas.measure import Protocol, measure
from elastic_nas.network import Network
from elastic_nas.runtimes._quantise import SCHEMES, quantise, scheme_for
from elastic_nas.runtimes._runtime import fixed_input
from elastic_nas.runtimes.onnxruntime_cpu import XNNPACK, Runtime
from elastic_nas.specs.classifier import ClassifierSpec


def test_threads_are_explicit():
    assert Runtime(2).owns_threads
    assert Runtime(2).describe()["threads"] == 2
    with pytest.raises(ConfigError, match="threads must be 1 to"):
        Runtime(0)


def test_session_options(monkeypatch):
    import onnxruntime

    made = {}

    def session(source, options, **rest):
        made.update(options=options, **rest)
        raise RuntimeError("stop here")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(ElasticNasError):
        Runtime(2).prepare(b"", (1,))
    options = made["options"]
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert made["providers"] == ["CPUExecutionProvider"]
    assert made["provider_options"] == [{}]
    assert made["enable_fallback"] == 0


def test_another_provider_than_asked_for_is_refused(monkeypatch):
    import onnxruntime

    class Elsewhere:
        def __init__(self, *_, **__): ...

        def get_providers(self):
            return ["FastExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Elsewhere)
    with pytest.raises(ElasticNasError, match="not CPUExecutionProvider"):
        Runtime().prepare(b"", (1,))


def test_the_version_needs_no_import():
    import onnxruntime

    assert Runtime().version == onnxruntime.__version__


def test_micromodels_are_timed_for_real_and_leave_the_global_generator_alone():
    import torch

    state = torch.random.get_rng_state()
    network, runtime = Network("tiny", 10), Runtime()
    specs = [*network.blocks(network.smallest), ClassifierSpec(96, 100)]
    runs = {
        str(i): runtime.prepare(block_model(spec, 0), spec.input_shape)
        for i, spec in enumerate(specs)
    }
    for run, spec in zip(runs.values(), specs, strict=True):
        assert run()[0].shape == (1, *spec.output_shape)
    timings = measure(runs, Protocol(warmup=1, rounds=2, accepted_per_round=2, min_samples=1))
    assert all(timing.contended_p90 > 0 for timing in timings.values())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert block_model(specs[1], 3) == block_model(specs[1], 3) != block_model(specs[1], 4)


# --- int8 ---------------------------------------------------------------------------------------

NETWORK = Network("tiny:size=32,activation=relu", 10)


def optimised(model: bytes, folder) -> Counter[str]:
    """The operators that ONNX Runtime really runs."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimised.onnx").graph
    return Counter(node.op_type for node in graph.node)


def int8_of(genotype, **options):
    shape = NETWORK.blocks(genotype)[0].input_shape
    model = child_model(NETWORK, genotype, 0)
    return Runtime(precision="int8", **options).convert(model, shape)


def test_int8_children_run_integer_kernels(tmp_path):
    ran = optimised(int8_of(NETWORK.largest), tmp_path)
    assert not {"Conv", "FusedConv", "Gemm", "Add"} & ran.keys()
    assert ran["QLinearConv"] > 20
    assert ran["QGemm"] == 1
    assert ran["QuantizeLinear"] <= 1 + ran["HardSigmoid"]  # of the image, and after each gate
    hswish = Network("tiny:size=32", 10)
    model = child_model(hswish, hswish.largest, 0)
    shape = hswish.blocks(hswish.largest)[0].input_shape
    converted = Runtime(precision="int8").convert(model, shape)
    import onnx

    kinds = Counter(node.op_type for node in onnx.load_from_string(converted).graph.node)
    assert kinds["HardSwish"] == onnx_count(model, "HardSwish")  # whole, as export will have it


def onnx_count(model: bytes, kind: str) -> int:
    import onnx

    return sum(node.op_type == kind for node in onnx.load_from_string(model).graph.node)


def test_int8_classifies_as_fp32_does():
    genotype = NETWORK.largest
    shape = NETWORK.blocks(genotype)[0].input_shape
    model, x = child_model(NETWORK, genotype, 0), fixed_input(shape)
    exact, rough = Runtime().run(model, x), Runtime(precision="int8").run(model, x)
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("arch", "flags", "scheme"),
    [
        ("x86_64", ["avx512f", "avx512_vnni"], "U8S8"),
        ("x86_64", ["avx2", "avx_vnni"], "U8S8"),
        ("x86_64", ["avx2"], "U8S8-reduced"),
        ("aarch64", ["asimd", "asimddp"], "S8S8"),
        ("arm64", [], "S8S8"),
    ],
)
def test_the_scheme_follows_the_instructions(arch, flags, scheme):
    assert scheme_for(arch, flags) == scheme
    assert scheme_for(arch, flags, "CPUExecutionProvider") == scheme
    assert scheme_for(arch, flags, "TensorrtExecutionProvider") == "S8S8-symmetric"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_quantise_as_they_say(scheme):
    import onnx
    from onnx import TensorProto, numpy_helper

    converted = onnx.load_from_string(int8_of(NETWORK.smallest, scheme=scheme))
    values = {tensor.name: tensor for tensor in converted.graph.initializer}
    activations = {
        values[node.input[2]].data_type
        for node in converted.graph.node
        if node.op_type == "QuantizeLinear"
    }
    signed = scheme.startswith("S8S8")
    assert activations == {TensorProto.INT8 if signed else TensorProto.UINT8}
    weights = [t for t in values.values() if t.data_type == TensorProto.INT8 and len(t.dims) == 4]
    kernels = [numpy_helper.to_array(tensor) for tensor in weights]
    assert kernels
    largest = max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels)
    assert largest <= 64 if scheme == "U8S8-reduced" else 64 < largest <= 128
    zeros = {
        int(numpy_helper.to_array(values[node.input[2]]))
        for node in converted.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert (zeros == {0}) == (scheme == "S8S8-symmetric")
    biases = {values[n.input[0]].data_type for n in converted.graph.node if n.input[0] in values}
    assert (TensorProto.INT32 in biases) == (scheme != "S8S8-symmetric")


def test_a_range_of_one_value_has_a_scale():
    ranges = {"input": (0.0, 0.0), "logits": (0.0, 0.0)}
    made = Runtime().load(quantise(null_model(), ranges, "U8S8"), (1,))
    assert np.isfinite(made()[0]).all()


def test_every_filter_has_a_scale_of_its_own():
    import onnx

    graph = onnx.load_from_string(int8_of(NETWORK.smallest)).graph
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    source = {node.output[0]: node.input for node in graph.node}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        kernel, scale, _ = source[node.input[1]]
        assert sizes[scale] == sizes[kernel][:1]


def test_models_of_a_gpu_are_symmetric_by_themselves():
    asked = int8_of(NETWORK.smallest, scheme="S8S8-symmetric")
    assert int8_of(NETWORK.smallest, provider="TensorrtExecutionProvider") == asked
    assert int8_of(NETWORK.smallest) != asked


def test_a_wrong_scheme_is_named():
    with pytest.raises(ConfigError, match="U8S8, U8S8-reduced, S8S8"):
        Runtime(precision="int8", scheme="U8U8")
    with pytest.raises(ConfigError, match="other precisions have none"):
        Runtime(scheme="U8S8")


# --- providers ----------------------------------------------------------------------------------


def test_a_provider_that_is_not_installed_is_named():
    with pytest.raises(ConfigError, match=r"no TensorrtExecutionProvider; it has .*CPUExec"):
        Runtime(provider="TensorrtExecutionProvider").prepare(null_model(), (1,))


def test_a_provider_may_leave_nothing_to_the_cpu(monkeypatch):
    """A stand-in for CUDA that falls back, as ONNX Runtime does without a word."""
    import onnxruntime

    made = {}

    class Session:
        def __init__(self, source, options, **rest):
            made.update(options=options, **rest)

        def get_providers(self):
            return ["CPUExecutionProvider"]

    every = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: every)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    runtime = Runtime(provider="CUDAExecutionProvider")
    with pytest.raises(ElasticNasError, match=r"runs the model on \['CPU.*, not CUDA"):
        runtime.prepare(null_model(), (1,))
    entry = made["options"].get_session_config_entry("session.disable_cpu_ep_fallback")
    assert entry == "1"
    assert made["providers"] == ["CUDAExecutionProvider"]
    assert runtime.describe()["provider"] == "CUDAExecutionProvider"


def test_nodes_that_fall_back_are_an_error(monkeypatch):
    """The real session with a provider that takes no node of ours."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    if (
        "AzureExecutionProvider"
        not in onnxruntime.capi.onnxruntime_pybind11_state.get_available_providers()
    ):
        pytest.skip("this build has no provider that takes nothing")
    real = onnxruntime.InferenceSession

    def session(source, options, **_):
        return real(source, options, providers=["AzureExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    runtime, spec = Runtime(provider="CUDAExecutionProvider"), ClassifierSpec(8, 2)
    with pytest.raises(ElasticNasError, match=r"CUDAExec.* would leave Gemm to the CPU\.$"):
        runtime.prepare(block_model(spec, 0), spec.input_shape)
    session_of_old = real.__base__  # before ONNX Runtime 1.24
    monkeypatch.delattr(session_of_old, "get_provider_graph_assignment_info")
    with pytest.raises(ElasticNasError, match="fallback to CPU EP has been explicitly disabled"):
        runtime.prepare(block_model(spec, 0), spec.input_shape)


@pytest.mark.parametrize("threads", [1, 3])
def test_xnnpack_is_told_its_threads(monkeypatch, threads):
    import onnxruntime

    made = {}

    def session(source, options, **rest):
        made.update(rest)
        raise RuntimeError("stop here")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [XNNPACK])
    with pytest.raises(ElasticNasError, match="stop here"):
        Runtime(threads, provider=XNNPACK).prepare(null_model(), (1,))
    assert made["provider_options"] == [{"intra_op_num_threads": str(threads)}]


# --- memory -------------------------------------------------------------------------------------


IN_PLACE = {"Relu", "Sigmoid", "HardSigmoid", "Mul", "Add", "Flatten"}


def peak_by_shapes(model: bytes) -> int:
    """The largest sum of tensors that are still to be read, the input besides; every operator of
    `IN_PLACE` writes over an input that nothing else reads."""
    import onnx

    parsed = onnx.load_from_string(model)
    for value in (*parsed.graph.input, *parsed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(parsed).graph
    sizes = {
        value.name: 4 * math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    live, peak = set[str](), 0
    for i, node in enumerate(graph.node):
        (made,) = node.output
        read = {name for name in node.input if name in live and last[name] == i}
        reused = node.op_type in IN_PLACE and any(sizes[name] == sizes[made] for name in read)
        peak = max(peak, sum(sizes[name] for name in live) + (0 if reused else sizes[made]))
        live = (live | {made}) - read
    return sizes[graph.input[0].name] + peak


@pytest.mark.parametrize("space", ["bignas", NETWORK.space_name])
def test_peak_activations_are_those_of_the_live_tensors(space):
    network, runtime = Network(space, 10), Runtime()
    genotype = network.smallest if space == "bignas" else network.largest
    specs, child = network.blocks(genotype), child_model(network, genotype, 0)
    counted = runtime.peak_activation_bytes(child, specs[0].input_shape)
    assert counted == pytest.approx(peak_by_shapes(child), rel=0.03)
    for spec in dict.fromkeys(specs):
        model = block_model(spec, 0)
        counted, least = (
            runtime.peak_activation_bytes(model, spec.input_shape),
            peak_by_shapes(model),
        )
        reordered = 4 * (math.prod(spec.input_shape) + math.prod(spec.output_shape))
        assert least <= counted <= least + reordered  # from and to the layout of other runtimes


def test_a_batch_without_a_name_is_counted_alike():
    import onnx

    spec = NETWORK.blocks(NETWORK.largest)[4]
    named = block_model(spec, 0)
    model = onnx.load_from_string(named)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
    nameless = model.SerializeToString()
    count = Runtime().peak_activation_bytes
    assert count(nameless, spec.input_shape) == count(named, spec.input_shape)


def test_a_layer_holds_its_input_and_its_output():
    spec = ClassifierSpec(4000, 1000)
    counted = Runtime().peak_activation_bytes(block_model(spec, 0), spec.input_shape)
    assert counted == pytest.approx(4 * (4000 + 1000), abs=256)
