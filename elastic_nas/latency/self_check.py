"""A table held against itself: does a stored model follow from the table's own children?

Weights are the solution of a least-squares problem over the children of role ``fit``, and ratios
are measured over predicted of those of role ``calibrate``. Both can be recomputed in milliseconds,
so that a figure that was changed afterwards, in a block, a child or the model, does not go unseen:
the weights are the best ones, or they are not.
"""

from dataclasses import fields
from math import isclose, isfinite
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import TableError
from elastic_nas.latency.fitting import features_of, ms_of, noise_of, rows_of
from elastic_nas.latency.model import RAW, FittedModel, is_best, quality, raw_model, worth
from elastic_nas.latency.table import LatencyTable

if TYPE_CHECKING:
    from elastic_nas.network import Network

Floats = NDArray[np.float64]

CLOSE = 1e-4
"""Relative: stored figures have six digits."""


def check_model(network: "Network", table: LatencyTable, *, fully: bool = False) -> None:
    """Refuse a table whose model of a network contradicts its own children.

    Args:
        network: Of a whole space, of which the table has a model.
        table: The table.
        fully: Compare rank correlation and noise floor as well, which nothing is computed from:
            imports scipy.

    Raises:
        MissingEntries: The table lacks blocks of its own children.
        TableError: They contradict each other; the message says what and what to do.
    """
    model = table.models[network.identity]
    rows = rows_of(network, table, "fit"), rows_of(network, table, "calibrate")
    fault = _miscounted(model, len(rows[0]), len(rows[1]))
    if not fault and model.kind != RAW:
        features = features_of(network, table, [*rows[0], *rows[1]])
        parts = features[: len(rows[0])], features[len(rows[0]) :]
        fault = (
            _not_positive(model, features)
            or _not_fitted(model, parts[0], ms_of(rows[0]), table.provenance["null_ms"])
            or _not_its_figures(model, parts[1], ms_of(rows[1]), fully=fully)
        )
        if not fault and fully and rows[1]:
            floor = noise_of(rows[1])
            if not _alike(model.noise_floor, floor if isfinite(floor) else None):
                fault = "the stored noise floor is not that of its children"
    if fault:
        name = table.device["name"]
        raise TableError(
            f"the latency table of {name} contradicts itself about {network.space_name}: {fault}."
            "\nTake the table from where it came from again; or move it away and measure anew: "
            f"elastic-nas profile {name} --space {network.space_name}"
        )


def _miscounted(model: FittedModel, fitted: int, calibrated: int) -> str:
    if model.kind == RAW:
        same = all(getattr(model, f.name) == getattr(raw_model(), f.name) for f in fields(model))
        return "" if same else "its model is a bare sum of blocks, yet has other figures"
    if (model.n_fit, model.n_calibrate) == (fitted, calibrated) and fitted:
        return ""
    return (
        f"its model was fitted on {model.n_fit} children and bounded by {model.n_calibrate}, but "
        f"it holds {fitted} and {calibrated}"
    )


def _not_positive(model: FittedModel, features: Floats) -> str:
    if (model.predict_ms(features) > 0).all():
        return ""
    return "its model predicts 0 ms or less for children that it holds"


def _not_fitted(model: FittedModel, features: Floats, measured: Floats, null_ms: float) -> str:
    if is_best(model, features, measured, null_ms):
        return ""
    error = float(np.abs(model.predict_ms(features) / measured - 1).mean())
    return (
        f"its model is not the one that its blocks and its {len(measured)} children to fit on "
        f"give (it is {error:.1%} off on these)"
    )


def _not_its_figures(model: FittedModel, features: Floats, measured: Floats, *, fully: bool) -> str:
    """What of the ratios and the figures of merit does not follow, or nothing."""
    if not len(measured):
        return ""
    predicted = model.predict_ms(features)
    ratios = np.sort(measured / predicted)
    if not np.allclose(ratios, model.ratios, rtol=CLOSE, atol=0):
        far = int(np.argmax(np.abs(ratios / np.array(model.ratios) - 1)))
        return (
            "the ratios of its bound are not those of its children (measured over predicted is "
            f"{ratios[far]:.4g}, stored {model.ratios[far]:.4g})"
        )
    found = quality(predicted, measured) if fully else worth(predicted, measured)
    for key, value in found.items():
        if not _alike(getattr(model, key), value):
            return f"its children give {key} {value:.4g}, stored is {getattr(model, key):.4g}"
    return ""


def _alike(stored: float | None, found: float | None) -> bool:
    if stored is None or found is None:
        return stored is found
    return isclose(stored, found, rel_tol=CLOSE, abs_tol=CLOSE)
