"""The stem: convolution, norm, activation; elastic, plain and as ONNX."""

from torch import Tensor, nn

from elastic_nas.nn.layers import NORM_EPS, ElasticBatchNorm2d, ElasticConv2d, activate, plain_conv
from elastic_nas.nn.onnx_writer import GraphWriter
from elastic_nas.specs.conv import ConvSpec


class Plain(nn.Module):
    """The block that a `ConvSpec` describes, as ordinary layers."""

    def __init__(self, spec: ConvSpec) -> None:
        super().__init__()
        self.spec = spec
        self.conv = plain_conv(spec.in_ch, spec.out_ch, spec.kernel, spec.stride)
        self.norm = nn.BatchNorm2d(spec.out_ch, eps=NORM_EPS)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, in_ch, H, W) to (N, out_ch, H', W')."""
        return activate(self.norm(self.conv(x_NCHW)), self.spec.activation)

    def write(self, graph: GraphWriter, x: str, name: str) -> str:
        """Add this block to an ONNX graph, norm folded; returns its output's name."""
        x = graph.conv(f"{name}.conv", x, self.conv, self.norm)
        return graph.activation(f"{name}.act", x, self.spec.activation)


class Elastic(nn.Module):
    """Shared weights of all `ConvSpec`s that can stand at one position."""

    def __init__(self, specs: list[ConvSpec]) -> None:
        super().__init__()
        out_ch, kernel = max(s.out_ch for s in specs), max(s.kernel for s in specs)
        self.conv = ElasticConv2d(specs[0].in_ch, out_ch, kernel, specs[0].stride)
        self.norm = ElasticBatchNorm2d(out_ch)

    def forward(self, x_NCHW: Tensor, spec: ConvSpec) -> Tensor:
        """What `slice(spec)` computes, on the shared weights."""
        return activate(self.norm(self.conv(x_NCHW, spec.out_ch, spec.kernel)), spec.activation)

    def slice(self, spec: ConvSpec) -> Plain:
        """The child's own copy."""
        plain = Plain(spec)
        plain.conv = self.conv.slice(spec.in_ch, spec.out_ch, spec.kernel)
        plain.norm = self.norm.slice(spec.out_ch)
        return plain
