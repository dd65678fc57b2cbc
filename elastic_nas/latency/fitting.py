"""The latency model of a network, fitted and calibrated on the children in a table."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elastic_nas.latency.model import FEATURES, FittedModel, calibrate, child_features, fit
from elastic_nas.latency.rows import ChildRow
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import noise_floor

if TYPE_CHECKING:
    from elastic_nas.network import Network

Floats = NDArray[np.float64]


def fit_model(network: "Network", table: LatencyTable) -> FittedModel:
    """The network's model from all its children in the table, wherever they were measured.

    Raises:
        MissingEntries: The table lacks blocks of these children.
    """
    fitted, others = (rows_of(network, table, role) for role in ("fit", "calibrate"))
    model = fit(features_of(network, table, fitted), _ms(fitted), table.provenance["null_ms"])
    floor = noise_floor(row.timing for row in others)
    return calibrate(model, features_of(network, table, others), _ms(others), floor)


def rows_of(network: "Network", table: LatencyTable, role: str) -> list[ChildRow]:
    """The network's children of one role."""
    return [r for r in table.children if (r.space, r.role) == (network.identity, role)]


def features_of(network: "Network", table: LatencyTable, rows: list[ChildRow]) -> Floats:
    """`model.FEATURES` of children that were measured with any number of classes: (n, 8).

    Raises:
        MissingEntries: The table lacks blocks of these children.
    """
    networks = {row.classes: replace(network, classes=row.classes) for row in rows}
    return np.array(
        [child_features(networks[row.classes].blocks(row.genotype), table.entry_ms) for row in rows]
    ).reshape(-1, len(FEATURES))


def _ms(rows: list[ChildRow]) -> Floats:
    return np.array([row.ms for row in rows])
