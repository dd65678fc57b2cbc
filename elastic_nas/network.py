"""Network = space + task head + classes: what is trained, sliced, described and exported.

The description needs no torch; `supernet()` imports it when called.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from elastic_nas import plugins
from elastic_nas.errors import ConfigError
from elastic_nas.genotype import (
    Dims,
    Genotype,
    canonical,
    check,
    format_genotype,
    largest,
    smallest,
)
from elastic_nas.settings import to_settings
from elastic_nas.single import single_child
from elastic_nas.space_check import check_space
from elastic_nas.specs import BlockSpec, Unit

if TYPE_CHECKING:
    from elastic_nas.nn.supernet import Supernet

MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Network:
    """One description of the network; MACs, parameters, latency keys and modules derive from it.

    Attributes:
        space_name: The space's text form, with options or a path, e.g. ``tiny:size=32``. With a
            child behind it, ``tiny@largest`` or ``tiny@0,2,1``, the network is that child alone;
            the name then says its genotype.
        classes: Number of outputs.
        task_name: A module of ``elastic_nas/tasks/``.
        named_in: The file from outside that gives these names, such as the record of a run; nothing
            where the user gives them. Names of code from outside run only if `trusted` allows it.
    """

    space_name: str
    classes: int = 1000
    task_name: str = "image_classification"
    named_in: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= MAX_CLASSES:
            raise ConfigError(f"classes must be 2 to {MAX_CLASSES}, got {self.classes}.")
        name, child = plugins.split_child(self.space_name)
        if child is not None:  # equal children are equal networks
            genes = format_genotype(self.space.genotype)
            object.__setattr__(self, "space_name", f"{name}@{genes}")

    @cached_property
    def space(self) -> Any:
        """The space plugin, or one child of it as a space.

        Raises:
            UnknownName: There is no such space.
            ConfigError: It has no such option, or its file makes no space; see `check_space`.
            GenotypeError: It has no such child.
        """
        name, child = plugins.split_child(self.space_name)
        space = plugins.create("spaces", name, self.named_in)
        file, _ = plugins.split_options(name)
        if file.endswith(".py"):
            check_space(space, file)
        return space if child is None else single_child(space, child)

    @cached_property
    def whole(self) -> "Network":
        """The network of the whole space where this is one of its children alone, else itself."""
        name, child = plugins.split_child(self.space_name)
        return self if child is None else replace(self, space_name=name)

    @cached_property
    def task(self) -> Any:
        """The task plugin."""
        return plugins.create("tasks", self.task_name, self.named_in)

    @cached_property
    def dims(self) -> Dims:
        """All elastic dimensions."""
        dims: Dims = self.space.dims
        return dims

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Every position in the network: the space's trunk, then the task's head."""
        return (*self.space.units, *self.task.units(self.space, self.classes))

    @property
    def largest(self) -> Genotype:
        """The child with every gene at its last choice."""
        return largest(self.dims)

    @property
    def smallest(self) -> Genotype:
        """The child with every gene at its first choice, canonical."""
        return smallest(self.dims)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype with inactive genes zeroed."""
        return canonical(self.dims, genotype)

    def blocks(self, genotype: Genotype) -> tuple[BlockSpec, ...]:
        """The child's blocks in order, as a runtime sees them.

        Raises:
            GenotypeError: The genotype does not fit this network.
        """
        check(self.dims, genotype)
        specs = (unit.spec(genotype) for unit in self.units)
        return tuple(spec for spec in specs if spec is not None)

    def resolution(self, genotype: Genotype) -> int:
        """Input height = width in pixels."""
        return int(self.blocks(genotype)[0].input_shape[-1])

    def macs(self, genotype: Genotype) -> int:
        """Multiply-accumulates of convolutions and linear layers at batch 1."""
        return sum(spec.costs.macs for spec in self.blocks(genotype))

    def params(self, genotype: Genotype) -> int:
        """Learned numbers: weights, norm weights and biases, biases."""
        return sum(spec.costs.params for spec in self.blocks(genotype))

    def settings(self, genotype: Genotype) -> dict[str, Any]:
        """The genotype spelled out: resolution, width, kernel, expand, depth."""
        return to_settings(self.dims, self.canonical(check(self.dims, genotype)))

    @cached_property
    def identity(self) -> str:
        """A hash of what the space and its options mean: dims and both ends, 16 hex digits."""
        ends = [[spec.key for spec in self.blocks(g)[:-1]] for g in (self.smallest, self.largest)]
        dims = [(dim.name, dim.choices, dim.needs) for dim in self.dims]
        text = json.dumps([self.space.name, dims, ends], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def supernet(self, seed: int = 0) -> "Supernet":
        """A freshly initialised supernet of this network (imports torch)."""
        from elastic_nas.nn.supernet import Supernet

        return Supernet(self.units, seed)
