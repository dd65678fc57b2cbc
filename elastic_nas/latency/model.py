"""From table and counted costs to milliseconds: what is fitted on whole children, and its bound.

A child's latency is ``w . features + constant`` with non-negative weights, so it is a sum over its
blocks and stays as quick as a look-up. The sum of isolated blocks alone is biased by what a
runtime does between them; 20 measured children correct that. What a call costs by itself
(`null_ms`) is in every block's entry but only once in a child, so it is taken off each entry: in a
space of small children that halved the error (3.7 to 2.0 %).
"""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import isfinite
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from elastic_nas.errors import TableError
from elastic_nas.latency.bound import LEVEL, conformal_bound
from elastic_nas.specs import BlockSpec
from elastic_nas.strict import Strict, checked

Floats = NDArray[np.float64]

FEATURES = (
    "table_ms",
    "pointwise_macs",
    "depthwise_macs",
    "other_macs",
    "activation_bytes",
    "weight_bytes",
    "boundary_bytes",
    "blocks",
)
"""Of each block, additive over a child's blocks."""
TABLE_MS, BLOCKS = FEATURES.index("table_ms"), FEATURES.index("blocks")

KINDS: dict[str, tuple[int, ...]] = {
    "scale": (0,),
    "affine": (0, len(FEATURES)),
    "nnls": tuple(range(len(FEATURES) + 1)),
    "counts": tuple(range(1, len(FEATURES) + 1)),
}
"""What may be fitted: positions of the features used; the last position is the constant.

``counts`` leaves the blocks' own times out: on a GPU, kernels queue behind each other and a block
alone takes as long as its launch, so that whole networks tell more than their parts.
"""
RAW = "raw"
"""The kind of an unfitted model, the bare sum of a table's entries; see `raw_model`."""

MIN_FOR_ALL = 10
MAX_NUMBER = 1e9
MAX_CHILDREN = 1_000_000
RATIOS = (0.01, 100.0)
CLOSE = 1e-5
"""How far weights may be from the best ones, in shares of what the children take."""


@dataclass(frozen=True)
class FittedModel:
    """A latency model of one network on one device.

    Attributes:
        kind: One of `KINDS`, or ``raw``.
        features: `FEATURES` and ``constant``.
        weights: One for each of `features`: ms a unit, 0 where unused; that of ``blocks`` may be
            negative (see `fit`).
        n_fit: Children that the weights were fitted on.
        ratios: Measured over predicted of other children, drawn uniformly, that the bound and the
            figures below were taken on; in ascending order.
        mape: Mean of ``|predicted - measured| / measured``; None without such children.
        within_5: Share of children predicted within 5 %.
        within_10: Share of children predicted within 10 %.
        kendall_tau: Rank correlation of predicted and measured.
        noise_floor: How well the measurement agrees with itself; see `measure.noise_floor`.
    """

    kind: str
    features: tuple[str, ...]
    weights: tuple[float, ...]
    n_fit: int = 0
    ratios: tuple[float, ...] = ()
    mape: float | None = None
    within_5: float | None = None
    within_10: float | None = None
    kendall_tau: float | None = None
    noise_floor: float | None = None

    @property
    def n_calibrate(self) -> int:
        """Number of children that the bound was taken on."""
        return len(self.ratios)

    def bound_factor(self, level: float = LEVEL, also: tuple[float, ...] = ()) -> float | None:
        """What a child drawn at random takes at most, in multiples of its prediction.

        Args:
            level: The share of children that keep it.
            also: Ratios of further children that join the calibration.

        Returns:
            The factor; None where too few children were measured to state one.
        """
        return conformal_bound(np.array([*self.ratios, *also]), level)

    @property
    def constant_ms(self) -> float:
        """What an inference costs beyond its blocks."""
        return self.weights[-1]

    def block_ms(self, features: tuple[float, ...]) -> float:
        """What a block with these `block_features` contributes, in ms."""
        pairs = zip(self.weights[:-1], features, strict=True)
        return sum(weight * value for weight, value in pairs)

    def predict_ms(self, features: Floats) -> Floats:
        """Latencies of children with these summed features: (n, 8) to (n,)."""
        weights = np.asarray(self.weights)
        return np.asarray(features @ weights[:-1] + weights[-1], np.float64)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a latency table."""
        return {
            **asdict(self),
            "features": list(self.features),
            "weights": list(self.weights),
            "ratios": list(self.ratios),
        }

    @staticmethod
    def from_json(values: Any) -> "FittedModel":
        """The model in a latency table.

        Raises:
            TableError: A field is missing, unknown, or not a sensible value.
        """
        found = checked(_ModelPart, values, lambda text: TableError(f"a fitted model: {text}."))
        lists = {key: tuple(getattr(found, key)) for key in ("features", "weights", "ratios")}
        return FittedModel(**{**dict(found), **lists})


class _ModelPart(Strict):
    """A fitted model in a latency table's file."""

    kind: Literal["scale", "affine", "nnls", "counts", "raw"]
    features: list[str]
    weights: list[Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]]
    n_fit: Annotated[int, Field(ge=0, le=MAX_CHILDREN)]
    ratios: Annotated[
        list[Annotated[float, Field(ge=RATIOS[0], le=RATIOS[1])]], Field(max_length=MAX_CHILDREN)
    ]
    mape: Annotated[float, Field(ge=0, le=MAX_NUMBER)] | None
    within_5: Annotated[float, Field(ge=0, le=1)] | None
    within_10: Annotated[float, Field(ge=0, le=1)] | None
    kendall_tau: Annotated[float, Field(ge=-1, le=1)] | None
    noise_floor: Annotated[float, Field(ge=0, le=2)] | None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.features != [*FEATURES, "constant"]:
            raise ValueError(f"features must be {', '.join(FEATURES)}, constant")
        if len(self.weights) != len(self.features) or not any(self.weights):
            raise ValueError(f"weights must be {len(FEATURES) + 1} numbers, not all 0")
        if any(weight < 0 for i, weight in enumerate(self.weights) if i != BLOCKS):
            raise ValueError("weights must be 0 or more, but for that of blocks")
        told = [self.mape, self.within_5, self.within_10, self.kendall_tau]
        if {*(figure is not None for figure in told), bool(self.ratios)} == {True, False}:
            raise ValueError("ratios and figures of merit go together")
        return self


@lru_cache(maxsize=50_000)
def block_features(spec: BlockSpec, table_ms: float) -> tuple[float, ...]:
    """`FEATURES` of one block, in their units."""
    costs = spec.costs
    return (
        table_ms,
        costs.pointwise_macs,
        costs.depthwise_macs,
        costs.other_macs,
        costs.activation_bytes,
        4 * costs.weights,
        costs.boundary_bytes,
        1,
    )


def fit(features: Floats, measured_ms: Floats, null_ms: float = 0.0) -> FittedModel:
    """The model with the least leave-one-out error of those in `KINDS`.

    Below 10 children only ``scale`` is tried. Weights minimise the squared *relative* error:
    rows are divided by the measured time. They are 0 or more, but for what `null_ms` takes off
    the weight of ``blocks``.

    Args:
        features: (n, 8) summed features of whole children.
        measured_ms: (n,) what they take.
        null_ms: What an empty model takes: taken off every block's entry.
    """
    x = _without_calls(features, null_ms)
    kinds = list(KINDS) if len(x) >= MIN_FOR_ALL else ["scale"]
    kind = min(kinds, key=lambda kind: _leave_one_out(kind, x, measured_ms))
    weights = solve(kind, x, measured_ms)
    weights[BLOCKS] -= null_ms * weights[TABLE_MS]
    return FittedModel(
        kind=kind,
        features=(*FEATURES, "constant"),
        weights=tuple(float(w) for w in weights),
        n_fit=len(x),
    )


def solve(kind: str, x: Floats, y: Floats) -> Floats:
    """Non-negative weights (9,) of least squared relative error, for features (n, 9) and ms (n,).

    The last column is the constant's; columns are scaled to length 1.
    """
    from scipy.optimize import nnls

    used = list(KINDS[kind])
    rows = x[:, used] / y[:, None]
    scale = np.linalg.norm(rows, axis=0)
    scale[scale == 0] = 1.0
    weights = np.zeros(x.shape[1])
    weights[used] = nnls(rows / scale, np.ones(len(y)))[0] / scale
    return weights


def is_best(model: FittedModel, features: Floats, measured_ms: Floats, null_ms: float) -> bool:
    """Whether the model's weights are those of least squared relative error on these children.

    By the conditions of Karush, Kuhn and Tucker: no weight can be moved to where the error is less,
    but for those that would have to become negative. To one part in 100,000, so that a change of
    single figures shows.

    Args:
        model: Of one of `KINDS`.
        features: (n, 8) summed features of the children that it was fitted on.
        measured_ms: (n,) what they take.
        null_ms: What an empty model takes; see `fit`.
    """
    weights = np.array(model.weights)
    weights[BLOCKS] += null_ms * weights[TABLE_MS]
    rows = _without_calls(features, null_ms) / measured_ms[:, None]
    error = 1 - rows @ weights
    lengths = np.linalg.norm(rows, axis=0)
    slope = (rows / np.where(lengths == 0, 1.0, lengths)).T @ error / np.sqrt(len(error))
    share = weights * lengths / np.sqrt(len(error))
    free = np.isin(np.arange(len(share)), KINDS[model.kind])
    return bool(
        (np.abs(share[~free]) < CLOSE).all()
        and (share > -CLOSE).all()
        and (slope[free] < CLOSE).all()
        and (np.abs(slope[free & (share > CLOSE)]) < CLOSE).all()
    )


def _without_calls(features: Floats, null_ms: float) -> Floats:
    """The features and the constant's 1: (n, 9); a call's time is taken off every block's entry."""
    x = np.column_stack([features, np.ones(len(features))])
    x[:, TABLE_MS] -= null_ms * x[:, BLOCKS]
    return x


def _leave_one_out(kind: str, x: Floats, y: Floats) -> float:
    """Mean relative error on each child of a model fitted on all others."""
    if len(y) < 2:
        return 0.0
    keep = ~np.eye(len(y), dtype=bool)
    predicted = [row @ solve(kind, x[k], y[k]) for row, k in zip(x, keep, strict=True)]
    return float(np.mean(np.abs(np.asarray(predicted) / y - 1)))


def calibrate(
    model: FittedModel, features: Floats, measured_ms: Floats, noise_floor: float
) -> FittedModel:
    """The model with its bound and its quality, taken on children that it was not fitted on.

    Args:
        model: A fitted model.
        features: (n, 8) of children drawn uniformly.
        measured_ms: (n,) what they take.
        noise_floor: Of their measurement; NaN if unknown.
    """
    if len(measured_ms) == 0:
        return model
    predicted = model.predict_ms(features)
    judged: dict[str, Any] = quality(predicted, measured_ms)
    return replace(
        model,
        ratios=tuple(float(f"{r:.6g}") for r in np.sort(measured_ms / predicted)),
        noise_floor=noise_floor if isfinite(noise_floor) else None,
        **judged,
    )


def quality(predicted: Floats, measured: Floats) -> dict[str, float]:
    """``mape``, ``within_5``, ``within_10`` and ``kendall_tau`` of a prediction.

    The last is Kendall's rank correlation, tau-b; 0 where either is constant. Imports scipy.
    """
    from scipy.stats import kendalltau

    tau = float(kendalltau(predicted, measured).statistic) if len(measured) > 1 else 0.0
    return {**worth(predicted, measured), "kendall_tau": tau if isfinite(tau) else 0.0}


def worth(predicted: Floats, measured: Floats) -> dict[str, float]:
    """``mape``, ``within_5`` and ``within_10`` of a prediction."""
    error = np.abs(predicted / measured - 1)
    return {
        "mape": float(error.mean()),
        "within_5": float((error <= 0.05).mean()),
        "within_10": float((error <= 0.10).mean()),
    }


def raw_model() -> FittedModel:
    """The bare sum of a table's entries, for tables without whole children: no bound, no fit."""
    weights = [0.0] * (len(FEATURES) + 1)
    weights[TABLE_MS] = 1.0
    return FittedModel(RAW, (*FEATURES, "constant"), tuple(weights))
