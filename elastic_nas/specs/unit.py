"""A unit: one position in a network, and the block that a genotype puts there."""

from collections.abc import Callable, Iterator
from itertools import product

from elastic_nas.genotype import Dims, Genotype
from elastic_nas.specs.block import BlockSpec


class Unit:
    """One position in the network, holding a block or nothing, as few genes decide.

    Args:
        name: E.g. ``stage2.block1``; names modules, ONNX nodes and reports.
        genes: Positions in `dims` of the genes that this unit depends on.
        dims: All dims of the network.
        build: The block for the choices (not indices) of those genes, in that order; None
            where the child is not that deep.
        kernel_transform: Smaller kernels are learned functions of larger ones, not their centres
            alone. How weights are shared is no part of any block: a child bears no trace of it.
    """

    def __init__(
        self,
        name: str,
        genes: tuple[int, ...],
        dims: Dims,
        build: Callable[..., BlockSpec | None],
        *,
        kernel_transform: bool = False,
    ) -> None:
        self.name = name
        self.genes = genes
        self.kernel_transform = kernel_transform
        self.sizes = tuple(len(dims[gene].choices) for gene in genes)
        self._choices = tuple(dims[gene].choices for gene in genes)
        self._build = build
        self._specs: dict[tuple[int, ...], BlockSpec | None] = {}

    def spec(self, genotype: Genotype) -> BlockSpec | None:
        """The block that this genotype puts here, or None."""
        return self.spec_at(tuple(genotype[gene] for gene in self.genes))

    def spec_at(self, indices: tuple[int, ...]) -> BlockSpec | None:
        """The same, from the choice indices of this unit's own genes only."""
        if indices not in self._specs:
            pairs = zip(self._choices, indices, strict=True)
            self._specs[indices] = self._build(*(choices[index] for choices, index in pairs))
        return self._specs[indices]

    def specs(self) -> Iterator[BlockSpec]:
        """Every block that can stand here, with repeats."""
        for indices in product(*map(range, self.sizes)):
            spec = self.spec_at(indices)
            if spec is not None:
                yield spec
