"""Sorting channels by importance, so that narrow children inherit the most of a trained network.

Children read the first channels of every weight. In a network that was trained alone any channel
may matter; a supernet that starts from it is sorted first, its largest child unchanged.
Once-for-All (Cai et al., 2020, https://arxiv.org/abs/1908.09791, sec. 3.4): a channel matters as
much as the L1 norm of the weights that read it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from elastic_nas.nn.supernet import Supernet
from elastic_nas.specs import BlockSpec
from elastic_nas.specs.head import HeadSpec
from elastic_nas.specs.mbconv import MBConvSpec

LAYERS: dict[str, dict[str, tuple[str, str]]] = {
    "conv": {"conv": ("in", "out"), "norm": ("", "out")},
    "mbconv": {
        "expand": ("in", "mid"),
        "expand_norm": ("", "mid"),
        "depthwise": ("", "mid"),
        "depthwise_norm": ("", "mid"),
        "squeeze": ("mid", "squeezed"),
        "excite": ("squeezed", "mid"),
        "project": ("mid", "out"),
        "project_norm": ("", "out"),
        "shortcut": ("in", "out"),
    },
    "head": {"conv": ("in", "mid"), "norm": ("", "mid"), "hidden": ("mid", "out")},
    "classifier": {"linear": ("in", "out")},
}
"""Of each layer of each block kind: the channels that its columns read, if they mix channels, and
those that its rows write."""


@dataclass(eq=False)
class Channels:
    """Channels that stand in the same order in several weights.

    Attributes:
        places: Weights and the dimension in which these channels stand.
        readers: Those of the weights whose columns say how much each channel matters.
    """

    places: list[tuple[nn.Parameter, int]] = field(default_factory=list)
    readers: list[nn.Parameter] = field(default_factory=list)

    def importance(self) -> Tensor:
        """The L1 norm of all that reads each channel: (C,)."""
        columns = [weight.abs().transpose(0, 1).flatten(1).sum(1) for weight in self.readers]
        return torch.stack(columns).sum(0)

    def sort(self) -> None:
        """Put the most important channel first, in all places."""
        order = self.importance().argsort(descending=True, stable=True)
        for weight, dimension in self.places:
            weight.copy_(weight.index_select(dimension, order))


@torch.no_grad()
def sort_channels(supernet: Supernet) -> None:
    """Permute all channels so that the most important come first; in place.

    What the largest child computes stays the same, but for rounding.
    """
    for channels in tied_channels(supernet):
        channels.sort()


def tied_channels(supernet: Supernet) -> list[Channels]:
    """All channels that may be permuted: not those of images, and not the classes, unread.

    Channels are tied as the largest child ties them: a shortcut without a projection adds a
    block's input channels to its outputs, and without an expansion the depthwise convolution
    works on the input channels themselves.
    """
    stream = image = Channels()
    found: dict[Channels, None] = {}
    for unit, block in zip(supernet.units, supernet.blocks.values(), strict=True):
        spec = unit.spec_at(tuple(size - 1 for size in unit.sizes))
        assert spec is not None  # the largest child has every block
        axes = _axes(spec, stream)
        for layer, weight, reads, writes in _weights(spec, block):
            axes[writes].places.append((weight, 0))
            if reads and weight.dim() > 1:
                axes[reads].places.append((weight, 1))
                if _counts(spec, layer):
                    axes[reads].readers.append(weight)
        stream = axes["out"]
        found |= dict.fromkeys(axes.values())
    return [channels for channels in found if channels.readers and channels is not image]


def _axes(spec: BlockSpec, stream: Channels) -> dict[str, Channels]:
    """The channels of a block of the largest child, whose input is the `stream`, by name."""
    match spec:
        case MBConvSpec():
            adds_input = spec.has_shortcut and not spec.has_projection
            return {
                "in": stream,
                "mid": Channels() if spec.expanded else stream,
                "squeezed": Channels(),
                "out": stream if adds_input else Channels(),
            }
        case HeadSpec():
            mid = Channels()
            return {"in": stream, "mid": mid, "out": Channels() if spec.hidden_ch else mid}
    return {"in": stream, "out": Channels()}


def _weights(spec: BlockSpec, block: nn.Module) -> Iterator[tuple[str, nn.Parameter, str, str]]:
    """Layer, weight or bias, and the channels that it reads and writes."""
    for layer, (reads, writes) in LAYERS[spec.kind].items():
        module = getattr(block, layer, None)
        if module is not None:
            # Not the matrices between kernels, which all channels share.
            for weight in module.parameters(recurse=False):
                yield layer, weight, reads, writes


def _counts(spec: BlockSpec, layer: str) -> bool:
    """Whether what a layer reads says how much a channel matters.

    The squeeze only steers the gate, and a projection of the shortcut may be of other children.
    """
    if isinstance(spec, MBConvSpec) and layer == "shortcut":
        return spec.has_projection
    return layer != "squeeze"
