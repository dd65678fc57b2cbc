"""A table held against itself: does a stored model follow from the table's own children?

Weights are the solution of a least-squares problem over the children of role ``fit``, and ratios
are measured over predicted of those of role ``calibrate``. Both can be recomputed in milliseconds,
so that a figure that was changed afterwards, in a block, a child or the model, does not go unseen:
the weights are the best ones, or they are not.
"""

from dataclasses import fields
from math import exp, isclose, isnan, log, nan
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import GenotypeError, TableError
from elastic_nas.genotype import check
from elastic_nas.latency.fitting import features_of, ms_of, noise_of, rows_of
from elastic_nas.latency.model import RAW, FittedModel, is_best, quality, raw_model, worth
from elastic_nas.latency.rows import ChildRow
from elastic_nas.latency.table import LatencyTable

if TYPE_CHECKING:
    from elastic_nas.network import Network

Floats = NDArray[np.float64]

CLOSE = 1e-4
"""Relative: stored figures have six digits."""
MEAN, FAR = 1.3, 3.0
"""How far anchors may be from the table's rows of the same children, on average and each alone.

On a busy machine single figures of an honest profile were 1.5 times apart.
"""


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
    try:
        fault = _fault(network, table, fully=fully)
    except GenotypeError as error:
        fault = f"it holds a child that this space has not: {error}"
    if fault:
        name = table.device["name"]
        raise TableError(
            f"the latency table of {name} contradicts itself about {network.space_name}: "
            f"{fault.rstrip('.')}.\nTake the table from where it came from again; or move it away "
            f"and measure anew: elastic-nas profile {name} --space {network.space_name}"
        )


def check_children(network: "Network", table: LatencyTable) -> None:
    """Refuse a table that holds children of a network, or anchors, which the network has not.

    Raises:
        TableError: It does.
    """
    anchors = table.provenance["anchors"].get(network.identity, [])
    genotypes = [row.genotype for row in table.children if row.space == network.identity]
    try:
        for genotype in [*genotypes, *(tuple(anchor["genotype"]) for anchor in anchors)]:
            check(network.dims, genotype)
    except GenotypeError as error:
        raise TableError(
            f"the latency table of {table.device['name']} holds a child that {network.space_name} "
            f"has not: {error}\nMove it away and measure anew."
        ) from error


def _fault(network: "Network", table: LatencyTable, *, fully: bool) -> str:
    model = table.models[network.identity]
    fitted, bounded = (rows_of(network, table, role) for role in ("fit", "calibrate"))
    fault = _miscounted(model, len(fitted), len(bounded)) or _moved_anchors(network, table, fitted)
    if fault or model.kind == RAW:
        return fault
    features = features_of(network, table, [*fitted, *bounded])
    parts = features[: len(fitted)], features[len(fitted) :]
    fault = (
        _not_positive(model, features)
        or _not_fitted(model, parts[0], ms_of(fitted), table.provenance["null_ms"])
        or _not_its_figures(model, parts[1], ms_of(bounded), fully=fully)
    )
    floor = noise_of(bounded) if fully and bounded and not fault else nan
    if not isnan(floor) and not _alike(model.noise_floor, floor):
        fault = f"its children give a noise floor of {floor:.2%}, stored is another"
    return fault


def _moved_anchors(network: "Network", table: LatencyTable, fitted: list[ChildRow]) -> str:
    """Whether what anchors took is far from what the table says of the same children."""
    took = {(row.genotype, row.classes): row.ms for row in fitted}
    ratios = []
    for anchor in table.provenance["anchors"].get(network.identity, []):
        genotype = check(network.dims, tuple(anchor["genotype"]))
        known = took.get((genotype, anchor["classes"]))
        ratios += [] if known is None else [anchor["ms"] / known]
    far = max((max(ratio, 1 / ratio) for ratio in ratios), default=1.0)
    mean = exp(fmean(map(log, ratios))) if ratios else 1.0
    if max(mean, 1 / mean) <= MEAN and far <= FAR:
        return ""
    return (
        f"its anchor children took {mean:.2f} times what it says of the same children, one of them "
        f"{far:.2f} times more or less"
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
