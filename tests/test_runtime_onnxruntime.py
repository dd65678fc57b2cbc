"""ONNX Runtime's own promises."""

import pytest

from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.latency.micromodels import block_model
from elastic_nas.measure import Protocol, measure
from elastic_nas.network import Network
from elastic_nas.runtimes.onnxruntime_cpu import Runtime
from elastic_nas.specs.classifier import ClassifierSpec


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
