"""The end of the trunk: 1x1 convolution, global pool, perhaps a hidden layer."""

from torch import Tensor, nn

from elastic_nas.nn.layers import NORM_EPS, ElasticBatchNorm2d, ElasticConv2d, activate, plain_conv
from elastic_nas.nn.onnx_writer import GraphWriter
from elastic_nas.specs.head import HeadSpec


class Plain(nn.Module):
    """The block that a `HeadSpec` describes, as ordinary layers."""

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__()
        self.spec = spec
        self.conv = plain_conv(spec.in_ch, spec.mid_ch)
        self.norm = nn.BatchNorm2d(spec.mid_ch, eps=NORM_EPS)
        if spec.hidden_ch:
            self.hidden = plain_conv(spec.mid_ch, spec.hidden_ch)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, in_ch, H, W) to (N, features)."""
        x = activate(self.norm(self.conv(x_NCHW)), self.spec.activation)
        x = x.mean((2, 3), keepdim=True)
        if self.spec.hidden_ch:
            x = activate(self.hidden(x), self.spec.activation)
        return x.flatten(1)

    def write(self, graph: GraphWriter, x: str, name: str) -> str:
        """Add this block to an ONNX graph, norm folded; returns its output's name."""
        x = graph.conv(f"{name}.conv", x, self.conv, self.norm)
        x = graph.activation(f"{name}.act", x, self.spec.activation)
        x = graph.pool(f"{name}.pool", x)
        if self.spec.hidden_ch:
            x = graph.conv(f"{name}.hidden", x, self.hidden)
            x = graph.activation(f"{name}.hidden_act", x, self.spec.activation)
        return graph.flatten(f"{name}.flatten", x)


class Elastic(nn.Module):
    """Shared weights of all `HeadSpec`s that can stand at one position."""

    def __init__(self, specs: list[HeadSpec]) -> None:
        super().__init__()
        in_ch, mid_ch = max(s.in_ch for s in specs), max(s.mid_ch for s in specs)
        hidden_ch = max(s.hidden_ch for s in specs)
        self.conv = ElasticConv2d(in_ch, mid_ch, 1)
        self.norm = ElasticBatchNorm2d(mid_ch)
        if hidden_ch:
            self.hidden = ElasticConv2d(mid_ch, hidden_ch, 1)

    def forward(self, x_NCHW: Tensor, spec: HeadSpec) -> Tensor:
        """What `slice(spec)` computes, on the shared weights."""
        x = activate(self.norm(self.conv(x_NCHW, spec.mid_ch)), spec.activation)
        x = x.mean((2, 3), keepdim=True)
        if spec.hidden_ch:
            x = activate(self.hidden(x, spec.hidden_ch), spec.activation)
        return x.flatten(1)

    def slice(self, spec: HeadSpec) -> Plain:
        """The child's own copy."""
        plain = Plain(spec)
        plain.conv = self.conv.slice(spec.in_ch, spec.mid_ch)
        plain.norm = self.norm.slice(spec.mid_ch)
        if spec.hidden_ch:
            plain.hidden = self.hidden.slice(spec.mid_ch, spec.hidden_ch)
        return plain
