"""The optimiser that a run file asks for, and the average of the weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from elastic_nas.config import TrainConfig


def make_optimizer(supernet: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, RMSProp or AdamW; fused kernels on a GPU.

    Weight decay spares norms and biases unless `decay_norms`. RMSProp is torch's: epsilon is added
    to the root, where TensorFlow's adds it under the root.
    """
    parameters = list(supernet.parameters())
    spared = 0.0 if not config.decay_norms else config.weight_decay
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": spared},
    ]
    fused = parameters[0].is_cuda or None
    rate, momentum = config.learning_rate, config.momentum
    match config.optimizer:
        case "rmsprop":
            return torch.optim.RMSprop(
                groups,
                lr=rate,
                alpha=_or(config.smoothing, 0.9),
                eps=_or(config.epsilon, 1e-3),
                momentum=momentum,
            )
        case "adamw":
            betas = (momentum, _or(config.smoothing, 0.999))
            eps = _or(config.epsilon, 1e-8)
            return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=eps, fused=fused)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=fused)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


class Average:
    """An exponential moving average of a network's parameters.

    Early steps average less, ``(1 + n) / (10 + n)``, so that the initial weights are soon forgotten
    (as TensorFlow's ExponentialMovingAverage with a step count).

    Args:
        named: The parameters that are averaged.
        decay: Of the average.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self._live = dict(named)
        self._decay = decay
        self.tensors: dict[str, Tensor] = {k: p.detach().clone() for k, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after step number `step`, from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        live = [p.detach() for p in self._live.values()]
        torch._foreach_lerp_(list(self.tensors.values()), live, 1 - decay)
