"""Elastic layers: one weight of the largest shape; a child reads its corner and its centre.

Weight sharing follows BigNAS (Yu et al., 2020, sec. 3) and Once-for-All (Cai et al., 2020,
sec. 3.3), its learned kernel-transform matrices where a space asks for them. Each layer narrows
its weight in one method, which both `forward` and `slice` call. Suffixes of names spell shapes:
O, C output and input channels, K taps, N batch, H, W.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-5


class _Narrow(torch.autograd.Function):
    """The leading corner and centre of a weight, with one full-size gradient a call.

    Indexing would allocate and fill one for each dimension that it narrows.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, region: tuple[slice, ...]) -> Tensor:
        ctx.shape, ctx.region = weight.shape, region
        return weight[region]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        full = gradient.new_zeros(ctx.shape)
        full[ctx.region] = gradient
        return full, None


def narrow(weight: Tensor, *region: slice) -> Tensor:
    """A view of a region of `weight`, whose gradient flows back there."""
    view: Tensor = _Narrow.apply(weight, region)  # type: ignore[no-untyped-call]
    return weight if view.shape == weight.shape else view


def centre(weight: Tensor, kernel: int) -> slice:
    """Where, on an axis of taps, the middle `kernel` of them lie."""
    rim = (weight.shape[-1] - kernel) // 2
    return slice(rim, rim + kernel)


class ElasticConv2d(nn.Module):
    """A convolution whose width and kernel are arguments of the call; padding kernel // 2.

    Args:
        in_ch: Most input channels.
        out_ch: Most output channels.
        kernel: Largest kernel.
        stride: Of every child.
        depthwise: Each output channel reads its own input channel alone.
        bias: Whether there is one.
        transformed: Smaller kernels, descending, that are the centre of the next larger one
            times a matrix: one for each size, shared by the channels, the identity at first.
    """

    def __init__(
        self,
        in_ch: int,
        out_ch: int,
        kernel: int,
        stride: int = 1,
        *,
        depthwise: bool = False,
        bias: bool = False,
        transformed: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.stride, self.depthwise, self.transformed = stride, depthwise, tuple(transformed)
        fan_in = 1 if depthwise else in_ch
        fan_out = kernel**2 * (1 if depthwise else out_ch)
        self.weight_OCKK = nn.Parameter(
            torch.randn(out_ch, fan_in, kernel, kernel) * sqrt(2.0 / fan_out)
        )
        self.bias_O = nn.Parameter(torch.zeros(out_ch)) if bias else None
        self.to_kernel = nn.ParameterDict({str(k): torch.eye(k**2) for k in transformed})

    def active(self, in_ch: int, out_ch: int, kernel: int) -> tuple[Tensor, Tensor | None]:
        """The child's view of weight and bias; the only place that knows how to narrow them."""
        hops = [size for size in self.transformed if size >= kernel]
        taps = centre(self.weight_OCKK, hops[0] if hops else kernel)
        inputs = slice(1 if self.depthwise else in_ch)
        weight = narrow(self.weight_OCKK, slice(out_ch), inputs, taps, taps)
        for size in hops:
            taps = centre(weight, size)
            rows_OCK = weight[..., taps, taps].flatten(2)
            rows_OCK = F.linear(rows_OCK, self.to_kernel[str(size)])
            weight = rows_OCK.view(*rows_OCK.shape[:2], size, size)
        return weight, None if self.bias_O is None else self.bias_O[:out_ch]

    def forward(self, x_NCHW: Tensor, out_ch: int, kernel: int = 1) -> Tensor:
        """(N, C, H, W) to (N, out_ch, H', W'), reading the first C input channels."""
        in_ch = x_NCHW.shape[1]
        weight, bias = self.active(in_ch, out_ch, kernel)
        groups = in_ch if self.depthwise else 1
        return F.conv2d(x_NCHW, weight, bias, self.stride, kernel // 2, groups=groups)

    def slice(self, in_ch: int, out_ch: int, kernel: int = 1) -> nn.Conv2d:
        """An ordinary convolution that computes the same thing on its own weight."""
        weight, bias = self.active(in_ch, out_ch, kernel)
        conv = plain_conv(
            in_ch,
            out_ch,
            kernel,
            self.stride,
            depthwise=self.depthwise,
            bias=bias is not None,
        )
        with torch.no_grad():
            conv.weight.copy_(weight)
            if bias is not None and conv.bias is not None:
                conv.bias.copy_(bias)
        return conv


def plain_conv(
    in_ch: int,
    out_ch: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    depthwise: bool = False,
    bias: bool = False,
) -> nn.Conv2d:
    """The ordinary convolution that an `ElasticConv2d` narrows to."""
    groups = in_ch if depthwise else 1
    return nn.Conv2d(in_ch, out_ch, kernel, stride, kernel // 2, groups=groups, bias=bias)


class ElasticBatchNorm2d(nn.Module):
    """Batch norm on batch statistics only, over as many channels as it is given.

    It keeps no running statistics at all: each child would need its own. A sliced child gets an
    ordinary `nn.BatchNorm2d`, to be calibrated.

    Attributes:
        normalise: Of images, weight and bias; those who train in several processes put
            `sync_norm` here.
    """

    def __init__(self, channels: int, *, zero_init: bool = False) -> None:
        super().__init__()
        self.normalise: Callable[[Tensor, Tensor, Tensor], Tensor] = _normalise
        self.weight_C = nn.Parameter(torch.zeros(channels) if zero_init else torch.ones(channels))
        self.bias_C = nn.Parameter(torch.zeros(channels))

    def active(self, channels: int) -> tuple[Tensor, Tensor]:
        """The child's view of weight and bias."""
        return self.weight_C[:channels], self.bias_C[:channels]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Same shape as the input."""
        return self.normalise(x_NCHW, *self.active(x_NCHW.shape[1]))

    def slice(self, channels: int) -> nn.BatchNorm2d:
        """An ordinary batch norm with the same weight and bias and fresh statistics."""
        norm = nn.BatchNorm2d(channels, eps=NORM_EPS)
        with torch.no_grad():
            for own, shared in zip((norm.weight, norm.bias), self.active(channels), strict=True):
                own.copy_(shared)
        return norm


def _normalise(x_NCHW: Tensor, weight_C: Tensor, bias_C: Tensor) -> Tensor:
    return F.batch_norm(x_NCHW, None, None, weight_C, bias_C, training=True, eps=NORM_EPS)


class ElasticLinear(nn.Module):
    """A linear layer that reads as many input features as it is given."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight_OC = nn.Parameter(torch.randn(out_features, in_features) * 0.01)
        self.bias_O = nn.Parameter(torch.zeros(out_features))

    def active(self, in_features: int) -> Tensor:
        """The child's view of the weight."""
        return narrow(self.weight_OC, slice(None), slice(in_features))

    def forward(self, x_NC: Tensor) -> Tensor:
        """(N, C) to (N, out_features)."""
        return F.linear(x_NC, self.active(x_NC.shape[1]), self.bias_O)

    def slice(self, in_features: int) -> nn.Linear:
        """An ordinary linear layer that computes the same thing on its own weight."""
        linear = nn.Linear(in_features, self.bias_O.shape[0])
        with torch.no_grad():
            linear.weight.copy_(self.active(in_features))
            linear.bias.copy_(self.bias_O)
        return linear


def activate(x: Tensor, kind: str) -> Tensor:
    """The activation of that name: relu, hswish, swish, sigmoid or hsigmoid.

    Raises:
        ValueError: There is no such activation.
    """
    match kind:
        case "relu":
            return F.relu(x)
        case "hswish":
            return F.hardswish(x)
        case "swish":
            return F.silu(x)
        case "sigmoid":
            return torch.sigmoid(x)
        case "hsigmoid":
            return F.hardsigmoid(x)
    raise ValueError(f"no activation called {kind!r}")
