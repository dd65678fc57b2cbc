"""A space of one child: what is left of another space when every choice is made.

A child trained alone, and a large network that a supernet starts from, are networks of such
spaces, so that training, export and description need no second code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from elastic_nas.errors import GenotypeError
from elastic_nas.genotype import Dim, Dims, Genotype, format_genotype, is_active, parse_genotype
from elastic_nas.specs import BlockSpec, Unit


@dataclass(frozen=True)
class SingleChild:
    """One child of a space, as a space.

    Its dims are those that change something in the child, with one choice each; its units are the
    positions that the child has, and depend on no gene.

    Attributes:
        space: Whose child it is.
        genotype: Which one, canonical.
    """

    space: Any
    genotype: Genotype

    @property
    def name(self) -> str:
        """The text form: the space's, and the genotype behind an @."""
        return f"{self.space.name}@{format_genotype(self.genotype)}"

    @cached_property
    def dims(self) -> Dims:
        """The dims that are active in the child."""
        genes = zip(self.space.dims, self.genotype, strict=True)
        return tuple(
            Dim(dim.name, (dim.choices[gene],))
            for position, (dim, gene) in enumerate(genes)
            if is_active(self.space.dims, self.genotype, position)
        )

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The positions in the child's trunk."""
        specs = ((unit.name, unit.spec(self.genotype)) for unit in self.space.units)
        return tuple(
            Unit(name, (), self.dims, _always(spec)) for name, spec in specs if spec is not None
        )


def _always(spec: BlockSpec) -> Callable[[], BlockSpec]:
    return lambda: spec


def single_child(space: Any, text: str) -> SingleChild:
    """The child of `space` that ``smallest``, ``largest`` or a genotype such as ``0,2,1`` means.

    Raises:
        GenotypeError: `text` names no child of the space.
    """
    try:
        return SingleChild(space, parse_genotype(space.dims, text))
    except GenotypeError as error:
        raise GenotypeError(
            f"{text!r} names no child of {space.name}: {error}\nBehind the @ stands a genotype of "
            f"{space.name}, or smallest or largest."
        ) from error
