"""The demonstration's budgets: three, apart, each met by a child of the front."""

from dataclasses import dataclass

import pytest

from elastic_nas.demo import _budgets


@dataclass
class OnFront:
    bound_ms: float


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.02245, 0.1985), [0.0225, 0.0668, 0.199]),  # nothing between: the middle in ratio
        ((0.0201, 0.03, 0.05, 0.19), [0.0201, 0.05, 0.19]),
        ((1.5,), [1.5, 1.5, 1.5]),
    ],
)
def test_budgets_lie_at_the_ends_and_in_between(bounds, expected):
    budgets = _budgets([OnFront(ms) for ms in bounds])
    assert [b.latency_ms for b in budgets] == pytest.approx(expected)
    assert budgets[0].latency_ms >= bounds[0]
    assert budgets[-1].latency_ms >= bounds[-1]
