"""MBConv: expand, depthwise, squeeze-excite, project, shortcut; elastic, plain and as ONNX."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elastic_nas.nn.layers import NORM_EPS, ElasticBatchNorm2d, ElasticConv2d, activate, plain_conv
from elastic_nas.nn.onnx_writer import GraphWriter
from elastic_nas.specs.mbconv import MBConvSpec


def halve(x_NCHW: Tensor) -> Tensor:
    """2x2 average pool with stride 2; the rim of odd sizes averages what is there."""
    return F.avg_pool2d(x_NCHW, 2, 2, ceil_mode=True, count_include_pad=False)


def drop_branch(x_NCHW: Tensor, rate: float) -> Tensor:
    """Drop-connect: zero the branch of whole images with probability `rate`, scale the others."""
    if not rate:
        return x_NCHW
    keep = torch.rand(x_NCHW.shape[0], 1, 1, 1, device=x_NCHW.device) >= rate
    return x_NCHW * keep.to(x_NCHW.dtype) / (1 - rate)


class Plain(nn.Module):
    """The block that an `MBConvSpec` describes, as ordinary layers."""

    def __init__(self, spec: MBConvSpec) -> None:
        super().__init__()
        self.spec = spec
        if spec.expanded:
            self.expand = plain_conv(spec.in_ch, spec.mid_ch)
            self.expand_norm = nn.BatchNorm2d(spec.mid_ch, eps=NORM_EPS)
        self.depthwise = plain_conv(
            spec.mid_ch, spec.mid_ch, spec.kernel, spec.stride, depthwise=True
        )
        self.depthwise_norm = nn.BatchNorm2d(spec.mid_ch, eps=NORM_EPS)
        if spec.se_ch:
            self.squeeze = plain_conv(spec.mid_ch, spec.se_ch, bias=True)
            self.excite = plain_conv(spec.se_ch, spec.mid_ch, bias=True)
        self.project = plain_conv(spec.mid_ch, spec.out_ch)
        self.project_norm = nn.BatchNorm2d(spec.out_ch, eps=NORM_EPS)
        if spec.has_projection:
            self.shortcut = plain_conv(spec.in_ch, spec.out_ch)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, in_ch, H, W) to (N, out_ch, H', W')."""
        spec, y = self.spec, x_NCHW
        if spec.expanded:
            y = activate(self.expand_norm(self.expand(y)), spec.activation)
        y = activate(self.depthwise_norm(self.depthwise(y)), spec.activation)
        if spec.se_ch:
            squeezed = F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))
            y = y * activate(self.excite(squeezed), spec.gate)
        y = self.project_norm(self.project(y))
        if not spec.has_shortcut:
            return y
        x_NCHW = halve(x_NCHW) if spec.stride == 2 else x_NCHW
        return y + (self.shortcut(x_NCHW) if spec.has_projection else x_NCHW)

    def write(self, graph: GraphWriter, x: str, name: str) -> str:
        """Add this block to an ONNX graph, norms folded; returns its output's name."""
        spec, y = self.spec, x
        if spec.expanded:
            y = graph.conv(f"{name}.expand", y, self.expand, self.expand_norm)
            y = graph.activation(f"{name}.expand_act", y, spec.activation)
        y = graph.conv(f"{name}.depthwise", y, self.depthwise, self.depthwise_norm)
        y = graph.activation(f"{name}.depthwise_act", y, spec.activation)
        if spec.se_ch:
            pooled = graph.pool(f"{name}.pool", y)
            squeezed = graph.conv(f"{name}.squeeze", pooled, self.squeeze)
            squeezed = graph.activation(f"{name}.squeeze_act", squeezed, "relu")
            gate = graph.conv(f"{name}.excite", squeezed, self.excite)
            gate = graph.activation(f"{name}.gate", gate, spec.gate)
            y = graph.node("Mul", f"{name}.scale", [y, gate])
        y = graph.conv(f"{name}.project", y, self.project, self.project_norm)
        if not spec.has_shortcut:
            return y
        if spec.stride == 2:
            x = graph.halve(f"{name}.halve", x, spec.height)
        if spec.has_projection:
            x = graph.conv(f"{name}.shortcut", x, self.shortcut)
        return graph.node("Add", f"{name}.add", [y, x])


class Elastic(nn.Module):
    """Shared weights of all `MBConvSpec`s that can stand at one position.

    The last norm starts at zero, so that a fresh block computes its shortcut alone.

    Args:
        specs: All of them.
        kernel_transform: Smaller depthwise kernels are learned functions of larger ones.
    """

    def __init__(self, specs: list[MBConvSpec], *, kernel_transform: bool = False) -> None:
        super().__init__()
        in_ch, mid_ch = max(s.in_ch for s in specs), max(s.mid_ch for s in specs)
        out_ch, se_ch = max(s.out_ch for s in specs), max(s.se_ch for s in specs)
        kernel, *smaller = sorted({s.kernel for s in specs}, reverse=True)
        if any(s.expanded for s in specs):
            self.expand = ElasticConv2d(in_ch, mid_ch, 1)
            self.expand_norm = ElasticBatchNorm2d(mid_ch)
        self.depthwise = ElasticConv2d(
            mid_ch,
            mid_ch,
            kernel,
            specs[0].stride,
            depthwise=True,
            transformed=smaller if kernel_transform else (),
        )
        self.depthwise_norm = ElasticBatchNorm2d(mid_ch)
        if se_ch:
            self.squeeze = ElasticConv2d(mid_ch, se_ch, 1, bias=True)
            self.excite = ElasticConv2d(se_ch, mid_ch, 1, bias=True)
        self.project = ElasticConv2d(mid_ch, out_ch, 1)
        zero_init = any(s.has_shortcut for s in specs)
        self.project_norm = ElasticBatchNorm2d(out_ch, zero_init=zero_init)
        if any(s.has_projection for s in specs):
            self.shortcut = ElasticConv2d(in_ch, out_ch, 1)

    def forward(self, x_NCHW: Tensor, spec: MBConvSpec, drop_connect: float = 0.0) -> Tensor:
        """What `slice(spec)` computes, on the shared weights.

        Drop-connect leaves blocks with a pooled or projected shortcut alone, as AttentiveNAS does:
        only where the shortcut is the input itself is an image without the branch one block less.
        """
        y = x_NCHW
        if spec.expanded:
            y = activate(self.expand_norm(self.expand(y, spec.mid_ch)), spec.activation)
        y = self.depthwise(y, spec.mid_ch, spec.kernel)
        y = activate(self.depthwise_norm(y), spec.activation)
        if spec.se_ch:
            squeezed = F.relu(self.squeeze(y.mean((2, 3), keepdim=True), spec.se_ch))
            y = y * activate(self.excite(squeezed, spec.mid_ch), spec.gate)
        y = self.project_norm(self.project(y, spec.out_ch))
        if not spec.has_shortcut:
            return y
        x_NCHW = halve(x_NCHW) if spec.stride == 2 else x_NCHW
        if spec.has_projection:
            x_NCHW = self.shortcut(x_NCHW, spec.out_ch)
        return drop_branch(y, drop_connect if spec.keeps_input else 0.0) + x_NCHW

    def slice(self, spec: MBConvSpec) -> Plain:
        """The child's own copy."""
        plain = Plain(spec)
        if spec.expanded:
            plain.expand = self.expand.slice(spec.in_ch, spec.mid_ch)
            plain.expand_norm = self.expand_norm.slice(spec.mid_ch)
        plain.depthwise = self.depthwise.slice(spec.mid_ch, spec.mid_ch, spec.kernel)
        plain.depthwise_norm = self.depthwise_norm.slice(spec.mid_ch)
        if spec.se_ch:
            plain.squeeze = self.squeeze.slice(spec.mid_ch, spec.se_ch)
            plain.excite = self.excite.slice(spec.se_ch, spec.mid_ch)
        plain.project = self.project.slice(spec.mid_ch, spec.out_ch)
        plain.project_norm = self.project_norm.slice(spec.out_ch)
        if spec.has_projection:
            plain.shortcut = self.shortcut.slice(spec.in_ch, spec.out_ch)
        return plain
