"""ONNX models to be timed: single blocks and whole children, with random weights.

They come from the writer that exports children, so that what is timed is what ships.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from elastic_nas.genotype import Genotype
from elastic_nas.specs import BlockSpec

if TYPE_CHECKING:
    from torch import nn

    from elastic_nas.network import Network

MEAN = STD = (0.5, 0.5, 0.5)
"""Normalisation inside the timed children: every value costs the same."""


def null_model() -> bytes:
    """A model that does next to nothing: what it takes is the cost of a call."""
    from elastic_nas.nn.onnx_writer import GraphWriter

    graph = GraphWriter()
    output = graph.activation("null", "input", "relu")
    return bytes(graph.model((1,), output, (1,)).SerializeToString())


def block_model(spec: BlockSpec, seed: int) -> bytes:
    """One block as deployed, weights drawn with `seed`."""
    from elastic_nas.nn.onnx_writer import GraphWriter

    graph = GraphWriter()
    output = _module(spec, seed).write(graph, "input", "block")  # type: ignore[operator]
    model = graph.model(spec.input_shape, output, spec.output_shape)
    return bytes(model.SerializeToString())


def child_model(network: "Network", genotype: Genotype, seed: int) -> bytes:
    """A whole child as deployed, normalisation inside, weights drawn with `seed`."""
    from elastic_nas.nn.child import Child

    rows = [(unit.name, unit.spec(genotype)) for unit in network.units]
    modules = {name: _module(spec, seed) for name, spec in rows if spec is not None}
    with _one_thread():
        return bytes(Child(modules).to_onnx(MEAN, STD).SerializeToString())


def _module(spec: BlockSpec, seed: int) -> "nn.Module":
    """The plain block; made without initialisation, so the global generator is left alone."""
    import torch

    from elastic_nas.nn.child import randomise
    from elastic_nas.nn.supernet import plain

    with torch.device("meta"):
        module = plain(spec)
    with _one_thread():
        return randomise(module.to_empty(device="cpu"), seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch from a second thread: on a busy machine its threads wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
