"""PyTorch's own promises: where it computes, and with how many threads."""

import numpy as np
import pytest
import torch

from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.latency.micromodels import child_model, null_model
from elastic_nas.network import Network
from elastic_nas.runtimes import _graph, torch_eager
from elastic_nas.runtimes.torch_eager import Runtime


def test_the_threads_are_those_asked_for_and_only_meanwhile(monkeypatch):
    seen = []

    def relu(x):
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return x

    monkeypatch.setattr(torch, "relu", relu)
    run = Runtime(threads=2).prepare(null_model(), (1,))
    assert torch.get_num_threads() == 1
    run()
    assert seen == [(2, True)]
    assert torch.get_num_threads() == 1


def test_threads_are_given_back_after_an_error(monkeypatch):
    def relu(_):
        raise RuntimeError("stop here")

    monkeypatch.setattr(torch, "relu", relu)
    with pytest.raises(RuntimeError):
        Runtime(threads=2).prepare(null_model(), (1,))()
    assert torch.get_num_threads() == 1


def test_half_precision_is_for_the_gpu():
    with pytest.raises(ConfigError, match="'fp16' on the CPU; it has fp32"):
        Runtime(precision="fp16")
    assert Runtime(precision="fp16", provider="cuda").describe()["provider"] == "cuda"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match="no CUDA device here"):
        Runtime(provider="cuda").prepare(null_model(), (1,))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 3e-2)])
def test_a_gpu_computes_the_same(precision, tolerance):
    network = Network("tiny", 10)
    model = child_model(network, network.smallest, 0)
    shape = network.blocks(network.smallest)[0].input_shape
    expected = Runtime().prepare(model, shape)()[0]
    found = Runtime(precision=precision, provider="cuda").prepare(model, shape)()[0]
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_no_tensor_is_kept_longer_than_it_is_read():
    network = Network("tiny", 10)
    model = child_model(network, network.largest, 0)
    graph = _graph.read_graph(model, (3, 16, 16), "torch")
    alive, most = {graph.input}, 0
    for _, inputs, output, dead in torch_eager._steps(graph):
        assert set(inputs) <= alive | graph.weights.keys()
        assert not dead & graph.weights.keys()
        alive = (alive | {output}) - dead
        most = max(most, len(alive))
    assert alive == {graph.output}
    assert most <= 3


def test_an_input_of_another_shape_is_refused():
    with pytest.raises(ElasticNasError, match=r"torch cannot run the model on \(2,\)"):
        Runtime().prepare(null_model(), (2,))
