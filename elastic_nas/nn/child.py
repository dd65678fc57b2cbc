"""A child: plain modules in a row, nothing elastic left."""

from collections.abc import Mapping

import onnx
import torch
from torch import Tensor, nn

from elastic_nas.nn.onnx_writer import GraphWriter
from elastic_nas.specs import BlockSpec


class Child(nn.Module):
    """One architecture with its own weights, as plain PyTorch.

    Args:
        blocks: Plain block modules by unit name, in order.
    """

    def __init__(self, blocks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(blocks)
        self.blocks = nn.ModuleList(blocks.values())

    @property
    def specs(self) -> tuple[BlockSpec, ...]:
        """What the blocks are."""
        return tuple(block.spec for block in self.blocks)  # type: ignore[misc]

    @property
    def resolution(self) -> int:
        """Input height = width in pixels."""
        return self.specs[0].input_shape[-1]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Normalised images at the child's resolution to logits (N, classes)."""
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        return x_NCHW

    def to_onnx(
        self, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
    ) -> onnx.ModelProto:
        """The child as an ONNX model, batch norms folded, dynamic batch.

        Args:
            mean: With `std`, per channel in 0-1: the graph takes pixels of 0-255 and normalises
                them itself. Without, it takes normalised images.
            std: See `mean`.
        """
        graph, x = GraphWriter(), "input"
        if mean is not None and std is not None:
            x = graph.normalise(x, mean, std)
        for name, block in zip(self.names, self.blocks, strict=True):
            x = block.write(graph, x, name)  # type: ignore[operator]
        return graph.model(self.specs[0].input_shape, x, self.specs[-1].output_shape)


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Give every parameter and statistic a random value of a trained network's size.

    For timing (zeros and denormals would be untypical) and for tests (fresh norms are all ones
    and would hide mistakes). Returns the module itself.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() > 1:
                fan_in = tensor[0].numel()
                tensor.copy_(noise * (2 / fan_in) ** 0.5)
            elif "var" in name:
                tensor.copy_(1 + 0.5 * noise.tanh())
            else:
                is_scale = "weight" in name
                tensor.copy_(is_scale + 0.2 * noise)
    return module
