"""Weights between a supernet and a supernet of one of its children alone."""

from collections.abc import Iterator

import torch
from torch import nn

from elastic_nas.errors import CheckpointError
from elastic_nas.genotype import Genotype
from elastic_nas.nn.supernet import Supernet
from elastic_nas.specs import BlockSpec

IDENTITY = "shortcut.weight_OCKK"
"""The one weight that other children may have where the largest child adds its input as it is."""


@torch.no_grad()
def inherit(single: Supernet, parent: Supernet, genotype: Genotype) -> None:
    """Copy a child's weights out of a supernet, so that `single` computes what the child computes.

    Args:
        single: A supernet of that child alone.
        parent: The supernet that holds the child's weights.
        genotype: Of the child, in the parent's space.

    Raises:
        CheckpointError: `single` is of another child.
    """
    child = parent.slice(genotype)
    _check_same(single, dict(zip(child.names, child.specs, strict=True)))
    for own, plain in zip(single.blocks.values(), child.blocks, strict=True):
        given = dict(plain.named_parameters())
        for name, parameter in own.named_parameters():
            parameter.copy_(given[_plain_name(name)])


@torch.no_grad()
def adopt(parent: Supernet, single: Supernet) -> None:
    """Fill a supernet with the weights of its largest child, which was trained alone.

    A projection of the shortcut that the largest child does without becomes the identity, which
    is what that child computes there; matrices between kernels stay as they are.

    Args:
        parent: A fresh supernet.
        single: A supernet of the parent's largest child alone.

    Raises:
        CheckpointError: `single` is of another child.
    """
    _check_same(single, dict(_largest(parent)))
    for own, given in zip(parent.blocks.values(), single.blocks.values(), strict=True):
        weights = dict(given.named_parameters())
        for name, parameter in own.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])
            elif name == IDENTITY:
                nn.init.dirac_(parameter)


def _plain_name(name: str) -> str:
    """What a plain block calls the parameter ``expand.weight_OCKK``: ``expand.weight``."""
    layer, _, parameter = name.rpartition(".")
    return f"{layer}.{parameter.partition('_')[0]}"


def _largest(supernet: Supernet) -> Iterator[tuple[str, BlockSpec]]:
    """Name and spec of each block of the largest child."""
    for unit in supernet.units:
        spec = unit.spec_at(tuple(size - 1 for size in unit.sizes))
        if spec is not None:
            yield unit.name, spec


def _check_same(single: Supernet, expected: dict[str, BlockSpec]) -> None:
    """Refuse a supernet that is not of exactly this child."""
    found = dict(_largest(single))
    for name in [*expected, *found]:
        one, other = found.get(name), expected.get(name)
        if one != other:
            raise CheckpointError(
                f"these weights are of another child: its {name} is {_shown(one)}, but "
                f"{_shown(other)} is needed. Train the right child alone, with the same classes."
            )


def _shown(spec: BlockSpec | None) -> str:
    return "missing" if spec is None else ", ".join(f"{k} {v}" for k, v in spec.key.items())
