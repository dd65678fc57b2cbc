"""The demonstration: a folder of its own, three budgets that are met or raised."""

from dataclasses import dataclass

import pytest
from small_run import cli, refused, snapshot

from elastic_nas import delivery
from elastic_nas.cli import demo
from elastic_nas.cli.demo import RAISES, _budgets, _ends, _exported
from elastic_nas.errors import InfeasibleBudget
from elastic_nas.runs import RunFolder


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


# --- its folder ---------------------------------------------------------------------------------


@pytest.fixture
def no_stages(monkeypatch):
    """Demonstrations that are interrupted in their training; returns how often one began."""
    begun = []

    def train(config, folder, *, resume=False):
        begun.append(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.pipeline, "train", train)
    return begun


def test_another_runs_folder_is_refused_and_stays_as_it_is(run, no_stages):
    before = snapshot(run)
    message = refused("demo", "--out", run)
    assert "which no demonstration wrote; choose another folder with --out" in message
    assert not no_stages
    assert snapshot(run) == before


def test_a_folder_of_other_files_is_refused(tmp_path, no_stages):
    (tmp_path / "photo.png").write_text("")
    assert "'photo.png'" in refused("demo", "--out", tmp_path)
    assert "cannot write" in refused("demo", "--out", tmp_path / "photo.png")


def test_an_interrupted_demonstration_goes_on(tmp_path, no_stages):
    for _ in range(2):
        assert "the same command goes on" in cli("demo", "--out", tmp_path / "demo").stderr
        (tmp_path / "demo" / "run.yaml").write_text("")
    assert len(no_stages) == 2


def test_a_finished_demonstration_of_an_earlier_release_is_known(tmp_path, no_stages):
    for name in ("demo.json", "run.yaml"):
        (tmp_path / name).write_text("{}")
    assert cli("demo", "--out", tmp_path).exit_code == 130
    assert no_stages


def test_the_ends_are_scored_on_the_images_of_the_run(run, monkeypatch):
    asked = []
    found = demo.images_of
    monkeypatch.setattr(demo, "images_of", lambda *of: asked.append(of[0].path) or found(*of))
    ends = _ends(RunFolder(run))
    assert asked == [run]
    assert ends["largest"]["n"] == 359
