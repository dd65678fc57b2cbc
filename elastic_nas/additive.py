"""Costs that are a sum over blocks, or their maximum, for millions of children a second.

Every unit depends on few genes, so its cost is a small table over their choices. Neighbouring
units share genes and are merged, and a child's cost is a handful of look-ups. Tables are filled as
they are read, so that a few children are quick too.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import GenotypeError
from elastic_nas.genotype import Dims
from elastic_nas.specs import BlockSpec, Unit

if TYPE_CHECKING:
    from elastic_nas.network import Network

MAX_TABLE = 20_000
CHUNK = 4096

NODE_BYTES = 185
"""Of an ONNX file for each node of a graph, names and shapes of its weights included."""
QUANTISED_NODE_BYTES = 900
"""The same with the nodes around it that quantise what it reads and writes."""
CHANNEL_BYTES = 17
"""Of a quantised file for each output channel: scales and zero points of weight and bias."""
FILE_BYTES = 24 * 1024
"""Of an ONNX file for everything else: header, normalisation, metadata."""

LABEL_BYTES = 32
"""Of an ONNX file for each class's name in its metadata."""

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


class AdditiveCost:
    """The sum over a child's blocks of some value of each block, or the largest of them.

    Args:
        network: Whose children are asked for.
        value_of_spec: The value of one block, 0 or more where the largest is asked for; called
            once for each distinct block that is met.
        combine: ``np.add`` for the sum, ``np.maximum`` for the largest.
    """

    def __init__(
        self,
        network: "Network",
        value_of_spec: Callable[[BlockSpec], float],
        combine: np.ufunc = np.add,
    ) -> None:
        self._dims = network.dims
        self._sizes = np.array([len(dim.choices) for dim in network.dims])
        cached = lru_cache(maxsize=None)(value_of_spec)
        units = [_UnitTable(unit, cached) for unit in network.units]
        groups = _merge(units, self._dims)
        self._combine = combine
        self._tables = [_MergedTable(group, self._dims, combine) for group in groups]

    def __call__(self, genotypes: NDArray[np.integer] | Sequence[Sequence[int]]) -> Floats:
        """The cost of each child; inactive genes may have any value.

        Args:
            genotypes: (n, genes) of choice indices, any integer type.

        Returns:
            (n,) of float64.

        Raises:
            GenotypeError: The shape does not fit the space, or a gene is out of range.
        """
        array = self._checked(np.asarray(genotypes))
        total = np.empty(len(array))
        for start in range(0, len(array), CHUNK):
            columns = np.array(array[start : start + CHUNK].T, dtype=np.intp, order="C")
            if columns.min(initial=0) < 0 or (columns.max(axis=1) >= self._sizes).any():
                raise GenotypeError("a gene is out of range for this space.")
            part = total[start : start + CHUNK]
            part[:] = self._tables[0].take(columns)
            for table in self._tables[1:]:
                self._combine(part, table.take(columns), out=part)
        return total

    def _checked(self, array: NDArray[np.integer]) -> NDArray[np.integer]:
        if array.size == 0:
            return np.zeros((0, len(self._dims)), np.int64)
        if array.ndim != 2 or array.shape[1] != len(self._dims) or array.dtype.kind not in "iu":
            raise GenotypeError(
                f"genotypes must be whole numbers of shape (n, {len(self._dims)}); got "
                f"{array.dtype} of shape {array.shape}."
            )
        return array


class _UnitTable:
    """Values of one unit over the choices of its genes."""

    def __init__(self, unit: Unit, value_of_spec: Callable[[BlockSpec], float]) -> None:
        self.unit, self._value_of_spec = unit, value_of_spec
        self._values = np.full(prod(unit.sizes), np.nan)

    def take(self, columns: dict[int, Indices]) -> Floats:
        index = _mixed_radix(self.unit.genes, self.unit.sizes, columns)
        for missing in _unique(index[np.isnan(self._values[index])]):
            indices = np.unravel_index(missing, self.unit.sizes)
            spec = self.unit.spec_at(tuple(int(i) for i in indices))
            self._values[missing] = 0.0 if spec is None else self._value_of_spec(spec)
        return self._values[index]


class _MergedTable:
    """Combined values of neighbouring units over the choices of all their genes."""

    def __init__(self, units: list[_UnitTable], dims: Dims, combine: np.ufunc) -> None:
        self._units, self._combine = units, combine
        genes = {gene for table in units for gene in table.unit.genes}
        self._genes = tuple(sorted(genes or {0}))  # a table needs an axis
        self._sizes = tuple(len(dims[gene].choices) for gene in self._genes)
        self._values = np.full(prod(self._sizes), np.nan)
        self._complete = False

    def take(self, columns: Indices) -> Floats:
        """Values of children whose genes are the `columns`, (genes, n)."""
        index = _mixed_radix(self._genes, self._sizes, columns)
        values = self._values.take(index)
        if not self._complete and np.isnan(values).any():
            self._fill(_unique(index[np.isnan(values)]))
            self._complete = not np.isnan(self._values).any()
            values = self._values.take(index)
        return values

    def _fill(self, index: Indices) -> None:
        genes = np.unravel_index(index, self._sizes)
        columns = dict(zip(self._genes, genes, strict=True))
        self._values[index] = reduce(self._combine, (unit.take(columns) for unit in self._units))


def _unique(index: Indices) -> Indices:
    """The values that occur, ascending; numpy's own `unique` imports masked arrays: 10 ms."""
    ordered = np.sort(index)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(ordered)]]


def _merge(units: list[_UnitTable], dims: Dims) -> list[list[_UnitTable]]:
    """Neighbouring units, as many as fit a table of `MAX_TABLE` values."""
    groups: list[list[_UnitTable]] = []
    genes: set[int] = set()
    for unit in units:
        union = genes | set(unit.unit.genes)
        if groups and prod(len(dims[gene].choices) for gene in union) <= MAX_TABLE:
            groups[-1].append(unit)
            genes = union
        else:
            groups.append([unit])
            genes = set(unit.unit.genes)
    return groups


def _mixed_radix(
    genes: tuple[int, ...], sizes: tuple[int, ...], columns: Indices | dict[int, Indices]
) -> Indices:
    """The flat index into a table over `genes`, the last gene fastest.

    Without genes it is one index, of the only value that there is.
    """
    index: Indices | None = None
    for gene, size in zip(genes, sizes, strict=True):
        if index is None:
            index = columns[gene].copy()
        elif size > 1:
            index *= size
            index += columns[gene]
    return np.zeros(1, np.intp) if index is None else index


def macs(network: "Network", genotypes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Multiply-accumulates of children at batch 1: (n, genes) to (n,)."""
    return _rounded(_cost(network, network.identity, _spec_macs)(genotypes))


def params(network: "Network", genotypes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Learned numbers of children: (n, genes) to (n,)."""
    return _rounded(_cost(network, network.identity, _spec_params)(genotypes))


def peak_activation_bytes(network: "Network", genotypes: NDArray[np.integer]) -> NDArray[np.int64]:
    """The most that a child's activations take at one time in fp32: (n, genes) to (n,).

    The largest of its blocks' `peak_bytes`, counted, not measured: weights are not in it, nor what
    a runtime adds by padding channels and by keeping buffers.
    """
    return _rounded(_cost(network, network.identity, _spec_peak, np.maximum)(genotypes))


def file_bytes(
    network: "Network", genotypes: NDArray[np.integer], precision: str = "fp32"
) -> NDArray[np.int64]:
    """An upper estimate of the sizes of children's ONNX files: (n, genes) to (n,).

    Args:
        network: Whose children.
        genotypes: (n, genes) of choice indices.
        precision: ``int8``: a byte a weight. Any other (bf16, fp16) is made from the fp32 file when
            it is loaded.
    """
    fixed = FILE_BYTES + LABEL_BYTES * network.classes
    of_spec = _spec_quantised_bytes if precision == "int8" else _spec_bytes
    return _rounded(_cost(network, network.identity, of_spec)(genotypes)) + fixed


@lru_cache(maxsize=16)
def _cost(
    network: "Network",
    _identity: str,
    value_of_spec: Callable[[BlockSpec], float],
    combine: np.ufunc = np.add,
) -> AdditiveCost:
    """Filled tables are kept: a search asks for the same network again and again."""
    return AdditiveCost(network, value_of_spec, combine)


def _rounded(values: Floats) -> NDArray[np.int64]:
    return np.rint(values).astype(np.int64)


def _spec_macs(spec: BlockSpec) -> float:
    return spec.costs.macs


def _spec_params(spec: BlockSpec) -> float:
    return spec.costs.params


def _spec_bytes(spec: BlockSpec) -> float:
    return 4 * spec.costs.weights + NODE_BYTES * _nodes(spec)


def _spec_quantised_bytes(spec: BlockSpec) -> float:
    costs = spec.costs
    return costs.weights + CHANNEL_BYTES * costs.channels + QUANTISED_NODE_BYTES * _nodes(spec)


def _spec_peak(spec: BlockSpec) -> float:
    return spec.costs.peak_bytes


def _nodes(spec: BlockSpec) -> int:
    """ONNX nodes that a block becomes, at most: the largest number of its kind."""
    return {"classifier": 1, "conv": 3, "head": 7, "mbconv": 15}.get(spec.kind, 20)
