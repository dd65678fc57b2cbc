"""The fitted model: exact cases, golden quantiles, and coverage on fresh children."""

import json
from dataclasses import asdict
from math import ceil

import fake_latency
import numpy as np
import pytest

from elastic_nas.errors import TableError
from elastic_nas.latency.bound import conformal_bound, coverage_range, least_children
from elastic_nas.latency.model import (
    FEATURES,
    FittedModel,
    block_features,
    calibrate,
    fit,
    quality,
)
from elastic_nas.specs.classifier import ClassifierSpec


def features(n, seed=0):
    """Summed features of n children, of the sizes that real ones have."""
    rng = np.random.default_rng(seed)
    sizes = np.array([5, 2e8, 2e7, 5e6, 4e7, 2e7, 1e7, 20])
    return sizes * rng.uniform(0.3, 1.0, (n, 8))


TRUE = np.array([0.8, 3e-9, 1e-8, 0, 2e-8, 0, 0, 0.01])


def test_features_of_a_block_by_hand():
    spec = ClassifierSpec(3, 2)
    assert block_features(spec, 0.5) == (0.5, 0, 0, 6, 8, 32, 20, 1)


def test_exact_children_are_fitted_exactly():
    x = features(20)
    model = fit(x, x @ TRUE + 0.3)
    assert model.kind == "nnls"
    assert model.features == (*FEATURES, "constant")
    np.testing.assert_allclose(model.weights, [*TRUE, 0.3], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(model.predict_ms(x), x @ TRUE + 0.3)
    one = model.block_ms(tuple(x[0])) + model.constant_ms
    assert one == pytest.approx(float(model.predict_ms(x[:1])[0]))


def test_the_cost_of_a_call_is_taken_off_every_block():
    x = features(20)
    alone = x.copy()
    alone[:, 0] += 0.1 * x[:, 7]  # every entry contains a call
    model = fit(alone, 0.9 * x[:, 0] + 0.2, null_ms=0.1)
    assert model.weights[0] == pytest.approx(0.9)
    assert model.weights[7] == pytest.approx(-0.09)
    np.testing.assert_allclose(model.predict_ms(alone), 0.9 * x[:, 0] + 0.2)


def test_below_ten_children_only_a_scale_is_fitted():
    x = features(9)
    assert fit(x, x @ TRUE).kind == "scale"
    assert fit(features(10), features(10) @ TRUE).kind == "nnls"
    model = fit(x[:1], 2 * x[:1, 0])
    assert model.weights == (pytest.approx(2), *[0.0] * 8)


def test_the_scale_minimises_relative_error():
    x = np.zeros((2, 8))
    x[:, 0] = [1.0, 1.0]
    # minimise (w - 1)^2 + (w / 2 - 1)^2: w = (1 + 1/2) / (1 + 1/4)
    assert fit(x, np.array([1.0, 2.0])).weights[0] == pytest.approx(1.2)


@pytest.mark.parametrize("kind", ["scale", "affine"])
def test_the_simplest_sufficient_model_is_chosen(kind):
    x, rng = features(20), np.random.default_rng(3)
    y = (1.3 * x[:, 0] + (kind == "affine") * 2) * rng.lognormal(0, 0.03, 20)
    assert fit(x, y).kind == kind


def test_weights_are_never_negative():
    x = features(20)
    assert min(fit(x, 10 - x[:, 0]).weights) >= 0


@pytest.mark.parametrize(
    ("n", "rank"), [(19, 19), (20, 20), (38, 38), (39, 38), (60, 58), (99, 95)]
)
def test_golden_ranks_of_the_bound(n, rank):
    ratios = 1 + np.arange(1, n + 1) / 1000
    shuffled = np.random.default_rng(0).permutation(ratios)
    assert conformal_bound(shuffled) == pytest.approx(1 + rank / 1000)
    assert rank == ceil((n + 1) * 95 / 100)


def test_too_few_children_give_no_bound():
    assert conformal_bound(np.ones(18)) is None
    x = features(30)
    model = fit(x[:12], x[:12] @ TRUE)
    assert calibrate(model, x[12:], x[12:] @ TRUE, 0.01).bound_factor() is None
    assert calibrate(model, x[:0], np.zeros(0), 0.01) == model


def test_the_bound_covers_95_percent_on_average():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        ratios = rng.lognormal(0.01, 0.03, 60)
        bound = conformal_bound(ratios)
        covered.append(np.mean(rng.lognormal(0.01, 0.03, 500) <= bound))
    assert 0.945 < np.mean(covered) < 0.965  # exact: 58 / 61 = 0.951


def test_what_n_children_give_by_simulation():
    rng = np.random.default_rng(1)
    for n, level in ((60, 0.95), (20, 0.95), (30, 0.8)):
        sorted_ = np.sort(rng.random((20_000, n)), axis=1)  # the share below a bound is uniform
        covered = sorted_[:, ceil(round((n + 1) * level, 9)) - 1]
        expected = np.quantile(covered, [0.05, 0.95])
        np.testing.assert_allclose(coverage_range(n, level), expected, atol=0.005)


@pytest.mark.parametrize(("level", "least"), [(0.95, 19), (0.9, 9), (0.5, 1), (0.99, 99)])
def test_the_least_children_for_a_level(level, least):
    assert least_children(level) == least
    assert conformal_bound(np.ones(least), level) == pytest.approx(1)
    assert conformal_bound(np.ones(least - 1), level) is None


def test_children_that_broke_their_bound_join_the_calibration():
    model = fake_latency.model(ratios=tuple(1 + np.arange(60) / 1000))
    assert model.bound_factor() == pytest.approx(1.057)
    assert model.bound_factor(also=(1.2, 1.3)) == pytest.approx(1.059)
    assert model.bound_factor(level=0.5) == pytest.approx(1.030)


def test_quality_is_that_of_the_calibration_children():
    x, rng = features(80), np.random.default_rng(2)
    y = (x @ TRUE + 0.1) * rng.lognormal(0, 0.03, 80)
    model = calibrate(fit(x[:20], y[:20]), x[20:], y[20:], 0.02)
    assert (model.n_fit, model.n_calibrate, model.noise_floor) == (20, 60, 0.02)
    assert 0.015 < model.mape < 0.05
    assert model.within_10 >= model.within_5 > 0.6
    assert 1.02 < model.bound_factor() < 1.15
    assert calibrate(model, x[20:], y[20:], float("nan")).noise_floor is None


def test_the_bound_is_measured_over_predicted():
    x = features(60)
    model = calibrate(fit(x, x[:, 0]), x, 1.1 * x[:, 0], 0.01)
    assert model.bound_factor() == pytest.approx(1.1)


def test_quality_by_hand():
    found = quality(np.array([1.04, 0.92, 1.2]), np.array([1.0, 1.0, 1.0]))
    assert found["mape"] == pytest.approx(0.32 / 3)
    assert found["within_5"] == pytest.approx(1 / 3)
    assert found["within_10"] == pytest.approx(2 / 3)


def test_a_rank_correlation_of_what_does_not_vary_is_none():
    assert quality(np.array([1.0, 2.0]), np.array([1.0, 2.0]))["kendall_tau"] == 1
    assert quality(np.ones(3), np.array([1.0, 2.0, 3.0]))["kendall_tau"] == 0
    assert quality(np.ones(1), np.ones(1))["kendall_tau"] == 0


def test_json_both_ways():
    model = fake_latency.model()
    assert FittedModel.from_json(json.loads(json.dumps(model.to_json()))) == model
    figures = ("mape", "within_5", "within_10", "kendall_tau", "noise_floor")
    none = fake_latency.model(ratios=(), **dict.fromkeys(figures))
    assert FittedModel.from_json(none.to_json()) == none


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pickle"},
        {"within_5": None},
        {"mape": None, "within_5": None, "within_10": None, "kendall_tau": None},
        {"ratios": []},
        {"kind": []},
        {"features": ["table_ms"]},
        {"weights": [1.0]},
        {"weights": [-1.0, *[0.0] * 8]},
        {"weights": [0.0] * 9},
        {"weights": [float("nan"), *[0.0] * 8]},
        {"weights": [True, *[0.0] * 8]},
        {"weights": "1"},
        {"ratios": [0.0]},
        {"ratios": [float("inf")]},
        {"ratios": ["1.05"]},
        {"ratios": 1.05},
        {"mape": -1},
        {"within_5": 1.1},
        {"kendall_tau": 2},
        {"n_fit": -1},
        {"n_fit": 1.5},
        {"extra": 1},
    ],
)
def test_bad_models_are_refused(change):
    with pytest.raises(TableError):
        FittedModel.from_json({**fake_latency.model().to_json(), **change})
    with pytest.raises(TableError):
        FittedModel.from_json([asdict(fake_latency.model())])
