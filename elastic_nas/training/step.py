"""One training step: the sandwich rule with in-place distillation.

Sandwich rule: Yu and Huang, 2019, https://arxiv.org/abs/1903.05134; in-place distillation and
regularising the largest child only: Yu et al., 2020 (BigNAS), https://arxiv.org/abs/2003.11142.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from elastic_nas.genotype import Genotype, sample_genes
from elastic_nas.network import Network
from elastic_nas.nn.supernet import Supernet


@dataclass(frozen=True)
class Regularisation:
    """What the largest child alone has to bear."""

    label_smoothing: float = 0.0
    dropout: float = 0.0
    drop_connect: float = 0.0


def children_of_step(
    network: Network, seed: int, step: int, random_children: int
) -> list[Genotype]:
    """The largest, the random and the smallest child of one step, from a generator of their own."""
    rng = Random(f"children-{seed}-{step}")
    drawn = [sample_genes(network.dims, rng) for _ in range(random_children)]
    return [network.largest, *drawn, network.smallest]


def sandwich_step(
    supernet: Supernet,
    task: Any,
    x_NCHW: Tensor,
    labels_N: Tensor,
    children: Sequence[Genotype],
    regularisation: Regularisation,
    autocast: AbstractContextManager[Any] | None = None,
) -> list[Tensor]:
    """Accumulate the summed gradients of all children; the caller zeroes before and steps after.

    The first child learns from the labels and, through its probabilities, teaches the others.
    Each backward pass follows its forward pass at once, which frees its graph: the peak memory
    is that of the largest child alone.

    Args:
        supernet: The shared weights.
        task: Gives the losses.
        x_NCHW: Normalised images at the largest resolution; children resize on the device.
        labels_N: Class indices.
        children: The largest, the random ones, the smallest.
        regularisation: For the first child only.
        autocast: Context of the forward passes; losses are in float32 all the same.

    Returns:
        The loss of each child, detached scalars on the device.
    """
    autocast = autocast or nullcontext()
    with autocast:
        logits = supernet(
            x_NCHW,
            children[0],
            dropout=regularisation.dropout,
            drop_connect=regularisation.drop_connect,
        )
    loss = task.loss(logits, labels_N, regularisation.label_smoothing)
    loss.backward()
    losses, teacher = [loss.detach()], task.teacher(logits)
    for genotype in children[1:]:
        with autocast:
            logits = supernet(x_NCHW, genotype)
        loss = task.distillation_loss(logits, teacher)
        loss.backward()
        losses.append(loss.detach())
    return losses


def normalise(x_NCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels of 0-255 to normalised float32 in channels-last layout, as the exported graph does."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=x_NCHW.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=x_NCHW.device)
    x = x_NCHW.float() * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)
