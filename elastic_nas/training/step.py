"""One training step: the sandwich rule with in-place distillation.

Sandwich rule: Yu and Huang, 2019, https://arxiv.org/abs/1903.05134; in-place distillation and
regularising the largest child only: Yu et al., 2020 (BigNAS), https://arxiv.org/abs/2003.11142.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from elastic_nas.nn.supernet import Supernet
from elastic_nas.training.sampling import Lesson


@dataclass(frozen=True)
class Regularisation:
    """What regularised children have to bear: see the run file's keys of these names."""

    label_smoothing: float = 0.0
    dropout: float = 0.0
    drop_connect: float = 0.0
    drop_connect_stages: int | None = None

    @property
    def in_forward(self) -> dict[str, Any]:
        """Arguments of `Supernet.forward`."""
        return {
            "dropout": self.dropout,
            "drop_connect": self.drop_connect,
            "drop_connect_stages": self.drop_connect_stages,
        }


NONE = Regularisation()


@dataclass(frozen=True)
class Teaching:
    """How a step teaches, the same in all steps.

    Attributes:
        task: Gives the losses.
        regularisation: Of the regularised children.
        divergence: ``soft`` or ``alpha``: the loss of the children that learn from the first.
        parts: Pieces that a batch is cut into, to save memory; each sees the same children.
    """

    task: Any
    regularisation: Regularisation = NONE
    divergence: str = "soft"
    parts: int = 1


def sandwich_step(
    supernet: Supernet,
    teaching: Teaching,
    x_NCHW: Tensor,
    targets: Tensor,
    lessons: Sequence[Lesson],
    autocast: AbstractContextManager[Any] | None = None,
) -> Tensor:
    """Accumulate the summed gradients of all children; the caller zeroes before and steps after.

    The first child learns from the labels and, through its probabilities, teaches the others.
    Each backward pass follows its forward pass at once, which frees its graph: the peak memory
    is that of the largest child alone.

    Args:
        supernet: The shared weights.
        teaching: What all steps share.
        x_NCHW: Normalised images at the largest resolution; children resize on the device.
        targets: Class indices (N,), or shares of classes (N, K).
        lessons: The children and what they learn.
        autocast: Context of the forward passes; losses are in float32 all the same.

    Returns:
        The loss of each child, (children,), detached, on the device.
    """
    autocast = autocast or nullcontext()
    pieces = zip(x_NCHW.chunk(teaching.parts), targets.chunk(teaching.parts), strict=True)
    parts = [_pass(supernet, teaching, x, y, lessons, autocast) for x, y in pieces]
    return torch.stack(parts).sum(dim=0)


def _pass(
    supernet: Supernet,
    teaching: Teaching,
    x_NCHW: Tensor,
    targets: Tensor,
    lessons: Sequence[Lesson],
    autocast: AbstractContextManager[Any],
) -> Tensor:
    """All children on one piece of the batch, each loss weighted by the piece's share of it."""
    task, losses = teaching.task, []
    teacher: Tensor | None = None
    for lesson in lessons:
        burden = teaching.regularisation if lesson.regularised else NONE
        with autocast:
            logits = supernet(x_NCHW, lesson.genotype, **burden.in_forward)
        if lesson.from_labels:
            loss = task.loss(logits, targets, burden.label_smoothing)
        else:
            assert teacher is not None, "the first child must learn from labels"
            loss = task.distillation_loss(logits, teacher, teaching.divergence)
        if teacher is None:
            teacher = task.teacher(logits)
        loss = loss / teaching.parts
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses)


def normalise(x_NCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels of 0-255 to normalised float32 in channels-last layout, as the exported graph does."""
    scale, shift = _affine(tuple(mean), tuple(std), x_NCHW.device, torch.get_default_dtype())
    x = x_NCHW.float() * scale + shift
    return x.contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel, made once: each copy to a GPU would wait for its work."""
    shifts = [-m / s for m, s in zip(mean, std, strict=True)]
    scale = torch.tensor([1 / (255 * s) for s in std], device=device, dtype=dtype)
    shift = torch.tensor(shifts, device=device, dtype=dtype)
    return scale.view(1, -1, 1, 1), shift.view(1, -1, 1, 1)
