"""The latency model of a network, fitted and calibrated on the children in a table."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from elastic_nas.latency.model import FittedModel, calibrate, child_features, fit
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import noise_floor

if TYPE_CHECKING:
    from elastic_nas.network import Network


def fit_model(network: "Network", table: LatencyTable) -> FittedModel:
    """The network's model from all its children in the table, wherever they were measured.

    Raises:
        MissingEntries: The table lacks blocks of these children.
    """
    rows = {
        role: [r for r in table.children if (r.space, r.role) == (network.identity, role)]
        for role in ("fit", "calibrate")
    }
    features, measured = {}, {}
    for role, children in rows.items():
        networks = {row.classes: replace(network, classes=row.classes) for row in children}
        features[role] = np.array(
            [
                child_features(networks[row.classes].blocks(row.genotype), table.entry_ms)
                for row in children
            ]
        )
        measured[role] = np.array([row.ms for row in children])
    model = fit(features["fit"], measured["fit"], table.provenance["null_ms"])
    floor = noise_floor(row.timing for row in rows["calibrate"])
    return calibrate(model, features["calibrate"], measured["calibrate"], floor)
