"""The demonstration's budgets: three, apart, each met by a child of the front or raised."""

from dataclasses import dataclass

import pytest

from elastic_nas import delivery
from elastic_nas.cli.demo import RAISES, _budgets, _exported
from elastic_nas.errors import InfeasibleBudget


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
    assert budgets == pytest.approx(expected)
    assert budgets[0] >= bounds[0]
    assert budgets[-1] >= bounds[-1]


def slower_machine(monkeypatch, needs_ms):
    """A machine on which no child keeps a budget below `needs_ms`; returns the budgets tried."""
    tried = []

    def export(run, out, *, device_name, budgets):
        tried.append(budgets.latency_ms)
        if budgets.latency_ms < needs_ms:
            raise InfeasibleBudget("none of the 1 best children kept it.")
        return {"budget_ms": budgets.latency_ms}

    monkeypatch.setattr(delivery, "export", export)
    return tried


def test_a_budget_that_a_slower_machine_breaks_is_raised(monkeypatch, tmp_path, capsys):
    tried = slower_machine(monkeypatch, 0.0261)
    manifest = _exported(None, tmp_path, "local-ort-1t", 0.0254)
    assert manifest == {"budget_ms": pytest.approx(0.028)}
    assert tried == pytest.approx([0.0254, 0.028])
    assert "Going on with a budget of 0.028 ms" in capsys.readouterr().err


def test_a_budget_is_not_raised_for_ever(monkeypatch, tmp_path):
    tried = slower_machine(monkeypatch, 1.0)
    with pytest.raises(InfeasibleBudget):
        _exported(None, tmp_path, "local-ort-1t", 0.0254)
    assert len(tried) == RAISES + 1
