"""Batch norm over the images of all processes together.

Torch's own works on CUDA alone. Here count, mean and sum of squared deviations are merged (Chan,
Golub and LeVeque, 1979, eq. 2.1), which is exact for unequal counts and keeps float32's precision
where the mean is large against the deviation: a mean of squares would lose it.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

DIMS = (0, 2, 3)


class Group(Protocol):
    """The processes whose images are normalised together."""

    def stack(self, vector_N: Tensor) -> Tensor:
        """The vectors of all processes: (processes, N)."""

    def sum_(self, tensor: Tensor) -> None:
        """Add up a tensor over all processes, in place."""


def sync_norm(group: Group, eps: float, x_NCHW: Tensor, weight_C: Tensor, bias_C: Tensor) -> Tensor:
    """Normalise by the statistics of all processes' images, in float32 at least.

    The gradient is that of the sum of all processes' losses; those of weight and bias are this
    process's share of it.

    Args:
        group: The processes; each must call this for the same norms in the same order.
        eps: Added to the variance.
        x_NCHW: This process's images, of any number.
        weight_C: Scale.
        bias_C: Shift.
    """
    y: Tensor = _SyncNorm.apply(x_NCHW, weight_C, bias_C, group, eps)  # type: ignore[no-untyped-call]
    return y


class _SyncNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_NCHW: Tensor, weight_C: Tensor, bias_C: Tensor, group: Group, eps: float
    ) -> Tensor:
        x = x_NCHW.to(weight_C.dtype)
        count, mean_C, square_C = _merged(group, x)
        scale_C = (square_C / count + eps).rsqrt()
        ctx.group, ctx.count = group, count
        ctx.save_for_backward(x_NCHW, weight_C, mean_C, scale_C)
        y = (x - _wide(mean_C)) * _wide(scale_C * weight_C) + _wide(bias_C)
        return y.to(x_NCHW.dtype)

    @staticmethod
    def backward(ctx: Any, gradient_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x_NCHW, weight_C, mean_C, scale_C = ctx.saved_tensors
        gradient = gradient_NCHW.to(weight_C.dtype)
        normal = (x_NCHW.to(weight_C.dtype) - _wide(mean_C)) * _wide(scale_C)
        bias_C, slope_C = gradient.sum(DIMS), (gradient * normal).sum(DIMS)
        sums_2C = torch.cat([bias_C, slope_C])  # a copy: this process's own go to the parameters
        ctx.group.sum_(sums_2C)
        shift_C, tilt_C = (sums_2C / ctx.count).chunk(2)
        inner = gradient - _wide(shift_C) - normal * _wide(tilt_C)
        return (inner * _wide(scale_C * weight_C)).to(x_NCHW.dtype), slope_C, bias_C, None, None


def _merged(group: Group, x_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and sum of squared deviations over all processes, without waiting."""
    channels = x_NCHW.shape[1]
    n = x_NCHW.numel() // channels
    variance_C, mean_C = torch.var_mean(x_NCHW, DIMS, correction=0)
    own = torch.cat([mean_C.new_full((1,), n), mean_C, variance_C * n])
    rows = group.stack(own).double()
    count_P1, mean_PC, square_PC = torch.split(rows, [1, channels, channels], dim=1)
    count = count_P1.sum()
    total_C = (count_P1 * mean_PC).sum(0) / count
    square_C = (square_PC + count_P1 * (mean_PC - total_C) ** 2).sum(0)
    return count.to(own.dtype), total_C.to(own.dtype), square_C.to(own.dtype)


def _wide(vector_C: Tensor) -> Tensor:
    return vector_C.view(1, -1, 1, 1)
