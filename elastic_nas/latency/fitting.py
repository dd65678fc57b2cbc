"""The latency model of a network, fitted and calibrated on the children in a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elastic_nas.genotype import check
from elastic_nas.latency.model import FEATURES, FittedModel, block_features, calibrate, fit
from elastic_nas.latency.rows import ChildRow
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import noise_floor

if TYPE_CHECKING:
    from elastic_nas.network import Network
    from elastic_nas.specs import Unit

Floats = NDArray[np.float64]


def fit_model(network: "Network", table: LatencyTable) -> FittedModel:
    """The network's model from all its children in the table, wherever they were measured.

    Raises:
        MissingEntries: The table lacks blocks of these children.
        GenotypeError: The table holds a child that the network has not.
    """
    fitted, others = (rows_of(network, table, role) for role in ("fit", "calibrate"))
    features = features_of(network, table, fitted)
    model = fit(features, ms_of(fitted), table.provenance["null_ms"])
    return calibrate(model, features_of(network, table, others), ms_of(others), noise_of(others))


def rows_of(network: "Network", table: LatencyTable, role: str) -> list[ChildRow]:
    """The network's children of one role."""
    return [r for r in table.children if (r.space, r.role) == (network.identity, role)]


def features_of(network: "Network", table: LatencyTable, rows: Sequence[ChildRow]) -> Floats:
    """`model.FEATURES` of children that were measured with any number of classes: (n, 8).

    Each is the sum over the child's blocks; a block that several children have is looked up once.

    Raises:
        MissingEntries: The table lacks blocks of these children.
        GenotypeError: The network has no such child.
    """
    total = np.zeros((len(rows), len(FEATURES)))
    for classes in dict.fromkeys(row.classes for row in rows):
        mine = [place for place, row in enumerate(rows) if row.classes == classes]
        genotypes = np.array([check(network.dims, rows[place].genotype) for place in mine])
        for unit in _units(network, classes):
            own = list(map(tuple, genotypes[:, list(unit.genes)].tolist()))
            numbers = {indices: number for number, indices in enumerate(dict.fromkeys(own))}
            known = np.array([_unit_features(unit, table, indices) for indices in numbers])
            total[mine] += known[[numbers[indices] for indices in own]]
    return total


def _units(network: "Network", classes: int) -> "tuple[Unit, ...]":
    """The network's units with a head of so many classes; its trunk is not made again."""
    head: tuple[Unit, ...] = network.task.units(network.space, classes)
    return (*network.units[: -len(head)], *head)


def _unit_features(
    unit: "Unit", table: LatencyTable, indices: tuple[int, ...]
) -> tuple[float, ...]:
    spec = unit.spec_at(indices)
    if spec is None:
        return (0.0,) * len(FEATURES)
    return block_features(spec, table.entry_ms(spec)[0])


def ms_of(rows: Sequence[ChildRow]) -> Floats:
    """What children take: (n,)."""
    return np.array([row.ms for row in rows])


def noise_of(rows: Sequence[ChildRow]) -> float:
    """How well their measurement agrees with itself; see `measure.noise_floor`."""
    return noise_floor(row.timing for row in rows)
