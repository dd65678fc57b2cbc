"""The contract of runtimes, and ONNX Runtime's own promises."""

import subprocess
import sys

import numpy as np
import pytest

from elastic_nas import plugins
from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.latency.micromodels import block_model, child_model, null_model
from elastic_nas.measure import Protocol, measure
from elastic_nas.network import Network
from elastic_nas.runtimes.onnxruntime_cpu import Runtime
from elastic_nas.specs.classifier import ClassifierSpec


@pytest.fixture(params=plugins.available("runtimes"))
def runtime(request):
    return plugins.load("runtimes", request.param).Runtime()


def test_a_runtime_describes_itself(runtime):
    described = runtime.describe()
    assert {"name", "version", "provider", "threads", "graph_optimization"} == described.keys()
    assert described["threads"] == runtime.threads == 1
    assert not runtime.owns_threads


def test_a_prepared_model_runs_and_repeats_itself(runtime):
    network = Network("tiny", 3)
    model = child_model(network, network.smallest, 0)
    run = runtime.prepare(model, network.blocks(network.smallest)[0].input_shape)
    one, other = run(), run()
    assert np.array_equal(one[0], other[0])
    assert np.isfinite(one[0]).all()
    assert one[0].shape == (1, 3)


def test_run_takes_bytes_and_files(runtime, tmp_path):
    (tmp_path / "null.onnx").write_bytes(null_model())
    x = np.array([[-1.0], [2.0]], np.float32)
    for model in (null_model(), tmp_path / "null.onnx"):
        assert runtime.run(model, x).tolist() == [[0.0], [2.0]]


def test_what_is_no_model_is_refused(runtime, tmp_path):
    with pytest.raises(ElasticNasError, match="refuses the model"):
        runtime.prepare(b"not a model", (1,))
    with pytest.raises(ElasticNasError, match="refuses the model"):
        runtime.run(tmp_path / "missing.onnx", np.zeros((1, 1), np.float32))
    with pytest.raises(ElasticNasError, match="cannot run"):
        runtime.run(null_model(), np.zeros((1, 2, 3), np.float32))


def test_threads_are_explicit():
    assert Runtime(2).owns_threads
    assert Runtime(2).describe()["threads"] == 2
    with pytest.raises(ConfigError, match="threads must be 1 to"):
        Runtime(0)


def test_session_options(monkeypatch):
    import onnxruntime

    made = {}

    def session(source, options, providers):
        made.update(options=options, providers=providers)
        raise RuntimeError("stop here")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(ElasticNasError):
        Runtime(2).prepare(b"", (1,))
    options = made["options"]
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert made["providers"] == ["CPUExecutionProvider"]


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


def test_building_micromodels_leaves_torchs_threads_alone():
    import torch

    network = Network("tiny", 10)
    torch.set_num_threads(2)
    try:
        child_model(network, network.smallest, 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


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


def test_the_arithmetic_of_the_process_stays_as_it_is():
    code = (
        "from elastic_nas.latency.micromodels import null_model\n"
        "from elastic_nas.runtimes.onnxruntime_cpu import Runtime\n"
        "Runtime().prepare(null_model(), (1,))()\n"
        "assert 2.2250738585072014e-308 / 2 > 0, 'numbers near zero are flushed'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
