import os
from dataclasses import fields
from pathlib import Path
from random import Random

import numpy as np
import pytest
from fake_search import DIMS, NETWORK, TIES, costs, evaluator, hypervolume

from elastic_nas import plugins
from elastic_nas.budgets import Budgets, Costs, violations
from elastic_nas.errors import ConfigError, InfeasibleBudget
from elastic_nas.genotype import Dim, canonical, children, count, largest, sample, smallest
from elastic_nas.search.driver import Evaluation, search
from elastic_nas.search.history import History, read_history
from elastic_nas.search.repair import Region

EVOLUTION = "evolution:population_size=12"


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    """What is tested here is order and content; syncing hundreds of lines takes seconds."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def run(
    path: Path,
    evaluations: int,
    *,
    strategy: str = EVOLUTION,
    budgets: Budgets = Budgets(),  # noqa: B008
    device: str = "one",
    seed: int = 0,
    evaluate=None,
):
    """One search on the tiny space; returns the history's rows."""
    plugin = plugins.create("strategies", strategy, dims=DIMS, rng=Random(f"strategy-{seed}"))
    history = History(path, TIES, DIMS)
    evaluate = evaluate or evaluator(seed)
    rng = Random(f"search-{seed}")
    search(DIMS, plugin, evaluate, costs(device), budgets, history, evaluations, rng)
    return read_history(path, TIES, DIMS)


def bounds_ms(rows, device="one"):
    return costs(device).bound_ms(np.array([row.genotype for row in rows]))


def counting(evaluate):
    """The same, with a list of what it was called with."""
    calls = []

    def counted(genotype):
        calls.append(genotype)
        return evaluate(genotype)

    return counted, calls


ENDS_MS = costs().bound_ms(np.array([smallest(DIMS), largest(DIMS)]))
SOME_BUDGETS = [
    Budgets(),
    Budgets(latency_ms=0.5),
    Budgets(latency_ms=float(ENDS_MS[0]) * 1.0001),
    Budgets(latency_ms=1.0, params=80_000),
    Budgets(macs=3e6, size_bytes=400_000),
    Budgets(memory_bytes=500_000),
    Budgets(latency_ms=100),
]


@pytest.mark.parametrize("strategy", ["random_search", EVOLUTION])
@pytest.mark.parametrize("budgets", SOME_BUDGETS, ids=str)
def test_budgets_are_never_broken_and_no_child_is_evaluated_twice(tmp_path, strategy, budgets):
    evaluate, calls = counting(evaluator())
    rows = run(tmp_path / "h", 60, strategy=strategy, budgets=budgets, evaluate=evaluate)
    assert [row.genotype for row in rows] == calls
    assert len(calls) == len(set(calls)) <= 60
    assert all(genotype == canonical(DIMS, genotype) for genotype in calls)
    assert not violations(costs(), budgets, np.array(calls)).any()


def test_the_ends_come_first(tmp_path):
    rows = run(tmp_path / "h", 2)
    assert [row.genotype for row in rows] == [smallest(DIMS), largest(DIMS)]
    budgets = Budgets(latency_ms=0.5)
    rows = run(tmp_path / "b", 2, budgets=budgets)
    assert rows[0].genotype == smallest(DIMS)
    anchor = rows[1].genotype
    assert Region(DIMS, costs(), budgets).grow(anchor, Random(0)) == anchor
    assert bounds_ms(rows)[1] > 0.45


def test_rows_keep_what_the_evaluation_said(tmp_path):
    (row,) = run(tmp_path / "h", 1, evaluate=lambda g: Evaluation(0.25, 400, 1.5))
    assert (row.accuracy, row.n, row.seconds) == (0.25, 400, 1.5)


def test_without_a_budget_children_spread_over_all_latencies(tmp_path):
    """Children drawn uniformly would crowd the middle."""
    bounds = bounds_ms(run(tmp_path / "h", 150, strategy="random_search"))
    edges = np.geomspace(*ENDS_MS, 6)[:-1]
    in_each = np.histogram(bounds, [*edges, np.inf])[0]
    assert in_each[:4].min() >= 15


def test_under_a_budget_children_lie_in_its_upper_part(tmp_path):
    budgets = Budgets(latency_ms=0.5)
    bounds = bounds_ms(run(tmp_path / "h", 60, strategy="random_search", budgets=budgets))
    assert np.mean(bounds > 0.6 * 0.5) > 0.9


@pytest.mark.parametrize("budgets", [Budgets(), Budgets(latency_ms=0.7)], ids=str)
def test_evolution_beats_random_search(tmp_path, budgets):
    """Mean over seeds, by hypervolume of accuracy over log latency; under a budget by its best."""
    volumes, best = {}, {}
    for strategy in ("random_search", EVOLUTION):
        runs = [
            run(tmp_path / f"{strategy}{seed}", 200, strategy=strategy, budgets=budgets, seed=seed)
            for seed in range(4)
        ]
        points = [
            [(float(ms), row.accuracy) for ms, row in zip(bounds_ms(rows), rows, strict=True)]
            for rows in runs
        ]
        volumes[strategy] = np.mean([hypervolume(p, float(ENDS_MS[1])) for p in points])
        best[strategy] = np.mean([max(row.accuracy for row in rows) for rows in runs])
    assert volumes[EVOLUTION] > volumes["random_search"] + 0.05
    if budgets.latency_ms is not None:
        assert best[EVOLUTION] > best["random_search"] + 0.005


@pytest.mark.parametrize("strategy", plugins.available("strategies"))
@pytest.mark.parametrize("budgets", [Budgets(), Budgets(latency_ms=0.5)], ids=str)
def test_interrupted_anywhere_it_goes_on_as_if_it_had_not_been(tmp_path, strategy, budgets):
    text = f"{strategy}:population_size=6" if strategy == "evolution" else strategy
    whole = run(tmp_path / "whole", 24, strategy=text, budgets=budgets)
    for stop_at in (0, 1, 2, 3, 7, 12, 23):
        path = tmp_path / f"stopped{stop_at}"
        left = iter(range(stop_at))
        evaluate = evaluator()

        def until_stopped(genotype, left=left, evaluate=evaluate):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return evaluate(genotype)

        with pytest.raises(KeyboardInterrupt):
            run(path, 24, strategy=text, budgets=budgets, evaluate=until_stopped)
        assert (read_history(path, TIES, DIMS) if stop_at else []) == whole[:stop_at]
        assert run(path, 24, strategy=text, budgets=budgets) == whole


def test_a_rerun_goes_on_to_the_total(tmp_path):
    first = run(tmp_path / "h", 20)
    evaluate, calls = counting(evaluator())
    assert run(tmp_path / "h", 20, evaluate=evaluate) == first
    assert calls == []
    assert run(tmp_path / "h", 30, evaluate=evaluate)[:20] == first
    assert len(calls) == 10


def test_a_second_device_reuses_all(tmp_path):
    first = run(tmp_path / "h", 40)
    evaluate, calls = counting(evaluator())
    assert run(tmp_path / "h", 40, device="two", seed=9, evaluate=evaluate) == first
    assert calls == []


def test_only_children_within_the_budgets_count(tmp_path):
    first = run(tmp_path / "h", 40)
    budgets = Budgets(latency_ms=0.5)
    inside = int((bounds_ms(first) <= 0.5).sum())
    assert 0 < inside < 40
    evaluate, calls = counting(evaluator())
    rows = run(tmp_path / "h", 40, budgets=budgets, evaluate=evaluate)
    assert len(calls) == 40 - inside
    assert int((bounds_ms(rows) <= 0.5).sum()) == 40


class Recorder:
    """A strategy that always asks the largest child, and remembers what it is told."""

    def __init__(self):
        self.rng, self.told = Random(0), []

    def ask(self):
        return largest(DIMS)

    def tell(self, genotype, score):
        self.told.append((genotype, score))


def test_the_strategy_is_told_the_repaired_child_with_this_devices_bound(tmp_path):
    rows = run(tmp_path / "h", 30)
    recorder, budgets = Recorder(), Budgets(latency_ms=1.0)
    history = History(tmp_path / "h", TIES, DIMS)
    known = {row.genotype for row in rows if bounds_ms([row], "two")[0] <= 1.0}
    total = len(known) + 5
    search(DIMS, recorder, evaluator(), costs("two"), budgets, history, total, Random(0))
    assert len(recorder.told) == len({g for g, _ in recorder.told}) == total
    assert {g for g, _ in recorder.told[: len(known)]} == known
    for genotype, score in recorder.told:
        bound_ms = costs("two").bound_ms(np.array([genotype]))[0]
        assert score.objectives == (1 - history.get(genotype).accuracy, bound_ms)
        assert score.violation == 0


def flat_costs(weights) -> Costs:
    """Every cost is a weighted sum of the genes, plus one."""

    def cost(genotypes):
        return genotypes @ np.array(weights, dtype=float) + 1

    return Costs(**dict.fromkeys((field.name for field in fields(Costs)), cost))


FEW = (Dim("a", (1, 2, 3)), Dim("b", (1, 2, 3), needs=(0, 1)), Dim("c", (1, 2)))


@pytest.mark.parametrize("strategy", [*plugins.available("strategies"), "recorder"])
@pytest.mark.parametrize("limit", [None, 1.0, 2.0, 3.5, 100.0])
def test_stops_when_all_children_within_the_budgets_are_known(tmp_path, strategy, limit, capsys):
    parts = flat_costs([1, 0.5, 1])
    inside = {g for g in children(FEW) if limit is None or parts.macs(np.array([g]))[0] <= limit}
    plugin = plugins.create(
        "strategies",
        "random_search" if strategy == "recorder" else strategy,
        dims=FEW,
        rng=Random(0),
    )
    if strategy == "recorder":
        plugin.ask = lambda: largest(FEW)
    history = History(tmp_path / "h", TIES, FEW)
    evaluate = lambda g: Evaluation(0.5, 10, 0.0)  # noqa: E731
    budgets = Budgets(macs=limit)
    search(FEW, plugin, evaluate, parts, budgets, history, count(FEW) + 5, Random(0))
    assert {row.genotype for row in history} == inside
    said = capsys.readouterr().err
    assert f"all {len(inside)} children within the budgets ({budgets}) are known" in said


def test_a_stubborn_strategy_still_gets_new_children(tmp_path):
    recorder = Recorder()
    history = History(tmp_path / "h", TIES, DIMS)
    search(DIMS, recorder, evaluator(), costs(), Budgets(latency_ms=100), history, 20, Random(0))
    assert len(history) == 20


def test_an_infeasible_budget_is_refused_before_anything_is_evaluated(tmp_path):
    evaluate, calls = counting(evaluator())
    budgets = Budgets(latency_ms=float(ENDS_MS[0]) * 0.99)
    with pytest.raises(InfeasibleBudget, match=r"Raise --latency to .* or more"):
        run(tmp_path / "h", 5, budgets=budgets, evaluate=evaluate)
    with pytest.raises(ConfigError, match=r"at least 1 evaluation.*, got 0"):
        run(tmp_path / "h", 0, evaluate=evaluate)
    assert calls == []
    assert not (tmp_path / "h").exists()


def test_progress_names_the_best_child(tmp_path, capsys):
    run(tmp_path / "h", 3, evaluate=lambda g: Evaluation(0.5 + 0.1 * (g == smallest(DIMS)), 10, 0))
    assert "3/3" in (last := capsys.readouterr().err.splitlines()[-1])
    assert last.endswith(f"best 60.00% within {ENDS_MS[0]:.4g} ms")


REGION = Region(DIMS, costs(), Budgets(latency_ms=0.8, params=120_000))


def test_repair_ends_inside_at_the_edge():
    rng = Random(0)
    for _ in range(30):
        child = REGION.repair(sample(DIMS, rng), rng)
        assert REGION.violations([child])[0] == 0
        assert all(REGION.violations(REGION._steps(child, +1)) > 0)


def test_shrink_leaves_alone_what_is_inside():
    rng = Random(0)
    inside = REGION.shrink(largest(DIMS), rng)
    assert REGION.shrink(inside, rng) == inside
    assert np.array_equal(REGION.bounds_ms([inside]), costs().bound_ms(np.array([inside])))


def test_shrink_gives_up_at_the_smallest_child_even_where_costs_do_not_rise():
    odd = flat_costs([-1.0] * len(DIMS))
    assert Region(DIMS, odd, Budgets(macs=0.5)).shrink(smallest(DIMS), Random(0)) == smallest(DIMS)


def test_neighbours_differ_in_one_step():
    for neighbour in REGION.neighbours(smallest(DIMS)):
        assert sum(neighbour) == 1
        assert NETWORK.blocks(neighbour) != NETWORK.blocks(smallest(DIMS))
    below = Region(DIMS, costs(), Budgets()).neighbours(largest(DIMS))
    assert len(set(below)) == len(below) == sum(gene > 0 for gene in largest(DIMS))
