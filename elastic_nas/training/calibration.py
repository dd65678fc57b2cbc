"""Batch-norm calibration: a child's own statistics, re-estimated on training images."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elastic_nas.errors import DataError
from elastic_nas.training.distributed import ALONE, Ranks


@dataclass
class _Moments:
    """Merged statistics of one norm, in float64."""

    count: int = 0
    mean_C: Tensor | float = 0.0
    square_C: Tensor | float = 0.0
    """Mean of squared deviations from `mean_C`."""

    def merge(self, count: int, mean_C: Tensor, square_C: Tensor) -> None:
        """Add a batch: exact for unequal batches (Chan et al., 1979)."""
        if not count:
            return
        total = self.count + count
        delta = mean_C - self.mean_C
        self.square_C = (
            self.count * self.square_C + count * square_C + delta**2 * (self.count * count / total)
        ) / total
        self.mean_C = self.mean_C + delta * (count / total)
        self.count = total

    def row(self, channels: int) -> Tensor:
        """Count, means and squares in a row: (1 + 2 x channels,), on the CPU."""
        count = torch.tensor([self.count], dtype=torch.float64)
        if isinstance(self.mean_C, Tensor) and isinstance(self.square_C, Tensor):
            return torch.cat([count, self.mean_C.cpu(), self.square_C.cpu()])
        return torch.cat([count, count.new_zeros(2 * channels)])


def calibrate(child: nn.Module, batches: Iterable[Tensor], ranks: Ranks = ALONE) -> None:
    """Give every batch norm of `child` the exact mean and variance over all batches, in place.

    Each batch is normalised by its own statistics, as in training, and the statistics are merged
    exactly. (Torch's ``momentum=None`` averages variances, which is biased where batches differ.)

    Args:
        child: A sliced child; left in evaluation mode.
        batches: Normalised images (N, C, H, W) at the child's resolution; large batches are better.
        ranks: The processes that each bring their own batches, none of them perhaps; all get the
            statistics of all batches.

    Raises:
        DataError: There was no batch.
    """
    norms = [module for module in child.modules() if isinstance(module, nn.BatchNorm2d)]
    moments = {norm: _Moments() for norm in norms}
    counts: dict[nn.Module, int] = {}

    def count(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counts[norm] = inputs[0].numel() // inputs[0].shape[1]

    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    momenta = [norm.momentum for norm in norms]
    try:
        child.train()
        with torch.no_grad():
            for norm in norms:
                norm.momentum = 1.0  # the running statistics become those of the last batch
            for batch in batches:
                child(batch)
                for norm in norms:
                    _add_batch(moments[norm], norm, counts.pop(norm))
        for norm, merged in zip(norms, _of_all(ranks, norms, moments), strict=True):
            _store(norm, merged)
    finally:
        for hook, norm, momentum in zip(hooks, norms, momenta, strict=True):
            hook.remove()
            norm.momentum = momentum
        child.eval()


def _add_batch(moments: _Moments, norm: nn.BatchNorm2d, count: int) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    biased_C = norm.running_var.double() * ((count - 1) / count)
    moments.merge(count, norm.running_mean.double().clone(), biased_C)


def _of_all(
    ranks: Ranks, norms: list[nn.BatchNorm2d], moments: dict[nn.BatchNorm2d, _Moments]
) -> list[_Moments]:
    """The moments of each norm, merged over all processes in the order of their ranks."""
    if ranks.alone:
        return [moments[norm] for norm in norms]
    rows = [moments[norm].row(norm.num_features) for norm in norms]
    merged = [_Moments() for _ in norms]
    for gathered in ranks.gather(torch.cat([torch.empty(0, dtype=torch.float64), *rows])):
        parts = torch.split(gathered, list(map(len, rows)))
        for one, part, norm in zip(merged, parts, norms, strict=True):
            count, mean_C, square_C = torch.split(part, [1, norm.num_features, norm.num_features])
            one.merge(int(count), mean_C, square_C)
    return merged


def _store(norm: nn.BatchNorm2d, moments: _Moments) -> None:
    if not moments.count:
        raise DataError("calibration saw no images; give it at least one batch.")
    assert isinstance(moments.mean_C, Tensor)
    assert isinstance(moments.square_C, Tensor)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(moments.mean_C)
        norm.running_var.copy_(moments.square_C)
