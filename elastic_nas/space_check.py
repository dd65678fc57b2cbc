"""Whether a space from somebody's file is what a space must be: looked at once, before it is used.

The spaces of the package are held to the same by its tests.
"""

import re
from itertools import islice, product
from typing import Any

from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.genotype import Dim
from elastic_nas.settings import KEYS
from elastic_nas.specs import BlockSpec, Unit
from elastic_nas.strict import shown

MOST_DIMS, MOST_CHOICES, MOST_UNITS = 1000, 1000, 1000
MOST_SPECS = 100_000
"""Blocks of a unit that are looked at."""
MOST_CHOICE = 100_000
"""A width, a number of pixels, a kernel or a factor is at most this."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_DIM = re.compile(r"resolution|(?:[A-Za-z0-9_-]+\.)+(?:width|kernel|expand|depth)")


def check_space(space: Any, name: str) -> None:
    """Refuse a space whose dims or units are not what all else relies on.

    Args:
        space: The plugin object.
        name: Its file, for the message.

    Raises:
        ConfigError: Something is not as it must be, or fails when it is looked at.
    """
    try:
        _check_dims(space.dims)
        _check_units(space.units, len(space.dims))
    except ElasticNasError:
        raise
    except _Wrong as wrong:
        raise ConfigError(f"the space in {name!r} cannot be used: {wrong}.") from wrong
    except Exception as error:  # of somebody's code
        told = f"{type(error).__name__}: {error}"
        raise ConfigError(f"the space in {name!r} fails when it is used: {told:.300}.") from error


class _Wrong(ValueError):
    """What is wrong with a space, in words."""


def _need(fine: object, words: str) -> None:
    if not fine:
        raise _Wrong(words)


def _check_dims(dims: Any) -> None:
    fine = isinstance(dims, tuple) and all(isinstance(dim, Dim) for dim in dims)
    _need(fine, f"dims must be a tuple of Dim, not {shown(dims)}")
    _need(0 < len(dims) <= MOST_DIMS, f"it has {len(dims)} dims; 1 to {MOST_DIMS} can be used")
    names = [dim.name for dim in dims]
    _need(all(isinstance(name, str) for name in names), "the name of a dim must be a text")
    _need(len(set(names)) == len(names), "two dims have the same name")
    _need(names[0] == "resolution", f"its first dim must be resolution, not {shown(names[0])}")
    for position, dim in enumerate(dims):
        _need(
            _DIM.fullmatch(dim.name) and len(dim.name) <= 100,
            f"a dim is called {shown(dim.name)}; names are resolution, or such as stage2.kernel "
            f"and stage2.block1.kernel, with {', '.join(KEYS[1:])} at the end",
        )
        _check_choices(dim)
        _check_needs(dims, position)


def _check_choices(dim: Dim) -> None:
    choices = dim.choices
    numbers = isinstance(choices, tuple) and all(type(choice) is int for choice in choices)
    _need(numbers, f"{dim.name} has the choices {shown(choices)}: they must be whole numbers")
    _need(0 < len(choices) <= MOST_CHOICES, f"{dim.name} has {len(choices)} choices")
    in_range = all(0 <= choice <= MOST_CHOICE for choice in choices)
    _need(in_range, f"{dim.name} has the choices {shown(choices)}: 0 to {MOST_CHOICE:,} can be")
    _need(
        list(choices) == sorted(set(choices)),
        f"{dim.name} has the choices {shown(choices)}: they must ascend",
    )


def _check_needs(dims: tuple[Dim, ...], position: int) -> None:
    needs, name = dims[position].needs, dims[position].name
    if needs is None:
        return
    pair = isinstance(needs, tuple) and len(needs) == 2 and all(type(n) is int for n in needs)
    _need(pair, f"{name} needs {shown(needs)}, which is no pair of position and index")
    parent, least = needs
    _need(0 <= parent < position, f"{name} needs dim {parent}, which does not stand before it")
    there = 0 <= least < len(dims[parent].choices)
    _need(there, f"{name} needs choice {least} of {dims[parent].name}, which has none such")


def _check_units(units: Any, genes: int) -> None:
    fine = isinstance(units, tuple) and all(isinstance(unit, Unit) for unit in units)
    _need(fine, f"units must be a tuple of Unit, not {shown(units)}")
    _need(0 < len(units) <= MOST_UNITS, f"it has {len(units)} units; 1 to {MOST_UNITS} can be used")
    names = [unit.name for unit in units]
    _need(len(set(names)) == len(names), "two units have the same name")
    for unit in units:
        named = isinstance(unit.name, str) and _NAME.fullmatch(unit.name)
        _need(named, f"a unit is called {shown(unit.name)}; letters, digits, dots and - _ can be")
        _need(
            all(type(gene) is int and 0 <= gene < genes for gene in unit.genes),
            f"{unit.name} depends on genes that its space lacks",
        )
        every = product(*map(range, unit.sizes))
        for indices in islice(every, MOST_SPECS):
            spec = unit.spec_at(indices)
            fine = spec is None or isinstance(spec, BlockSpec)
            _need(fine, f"{unit.name} builds {shown(spec)}, which is no block")
            if spec is not None:
                _need(spec.costs.macs >= 0, f"{unit.name} has a negative cost")
