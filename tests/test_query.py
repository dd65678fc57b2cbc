import json
import re
import subprocess
import sys
import time
from dataclasses import astuple, replace
from random import Random

import numpy as np
import pytest
from fake_search import DIMS, NETWORK, costs, evaluator

from elastic_nas.budgets import Budgets
from elastic_nas.errors import InfeasibleBudget, RunFolderError
from elastic_nas.genotype import format_genotype, largest, sample, smallest
from elastic_nas.intervals import wilson
from elastic_nas.query import query
from elastic_nas.search.history import Row

RNG = Random(0)
GENOTYPES = sorted({sample(DIMS, RNG) for _ in range(200)} | {largest(DIMS)})
ROWS = [Row(g, evaluator()(g).accuracy, 500, 0.1) for g in GENOTYPES]
COSTS = costs()


def cost(kind, genotype):
    return float(getattr(COSTS, kind)(np.array([genotype]))[0])


@pytest.mark.parametrize(
    "budgets",
    [
        Budgets(),
        Budgets(latency_ms=0.8),
        Budgets(params=200_000, macs=6e6),
        Budgets(1.2, 2.5e5, 7e6, 9e5),
        Budgets(memory_bytes=6e5),
    ],
    ids=str,
)
def test_answers_are_what_a_plain_loop_finds(budgets):
    def keeps(row):
        limits = zip(
            ("bound_ms", "params", "macs", "size_bytes", "memory_bytes"),
            astuple(budgets),
            strict=True,
        )
        return all(limit is None or cost(kind, row.genotype) <= limit for kind, limit in limits)

    expected = sorted(
        (row for row in ROWS if keeps(row)),
        key=lambda row: (-row.accuracy, cost("bound_ms", row.genotype)),
    )
    answers = query(ROWS, NETWORK, COSTS, budgets)
    assert len(answers) > 0
    assert [answer.genotype for answer in answers] == [row.genotype for row in expected]


def test_the_budget_is_held_against_the_bound_not_the_prediction():
    bound = cost("bound_ms", GENOTYPES[0])
    row = [ROWS[0]]
    assert len(query(row, NETWORK, COSTS, Budgets(latency_ms=bound))) == 1
    with pytest.raises(InfeasibleBudget):
        query(row, NETWORK, COSTS, Budgets(latency_ms=bound * 0.99))


def test_an_answer_says_all_that_is_known():
    row = ROWS[1]
    answers = query(ROWS[:3], NETWORK, COSTS, Budgets())
    (answer,) = (answer for answer in answers if answer.genotype == row.genotype)
    genotype = row.genotype
    assert answer.settings == NETWORK.settings(genotype)
    assert (answer.accuracy, answer.n) == (row.accuracy, 500)
    assert answer.interval == wilson(row.accuracy * 500, 500)
    assert answer.params == NETWORK.params(genotype)
    assert answer.macs == NETWORK.macs(genotype)
    for kind in ("predicted_ms", "bound_ms", "size_bytes"):
        assert getattr(answer, kind) == pytest.approx(cost(kind, genotype))
    assert answer.predicted_ms < answer.bound_ms
    assert (answer.notes, answer.promise) == ((), True)


def test_of_equal_accuracies_the_lower_bound_comes_first():
    rows = [replace(row, accuracy=0.5) for row in ROWS]
    bounds = [answer.bound_ms for answer in query(rows, NETWORK, COSTS, Budgets())]
    assert bounds == sorted(bounds)


def test_notes_break_the_promise():
    def notes(genotype):
        return ("stale table",) if genotype == ROWS[0].genotype else ()

    answers = query(ROWS[:2], NETWORK, COSTS, Budgets(), notes)
    found = {answer.genotype: (answer.notes, answer.promise) for answer in answers}
    assert found == {
        ROWS[0].genotype: (("stale table",), False),
        ROWS[1].genotype: ((), True),
    }


def test_an_answer_is_json():
    answer = query(ROWS, NETWORK, COSTS, Budgets())[0]
    plain = json.loads(json.dumps(answer.plain(), allow_nan=False))
    assert plain["genotype"] == format_genotype(answer.genotype)
    assert plain["promise"] is True
    assert tuple(plain["interval"]) == answer.interval
    assert plain["settings"] == answer.settings


def test_no_rows():
    with pytest.raises(RunFolderError, match="run elastic-nas search first"):
        query([], NETWORK, COSTS, Budgets())


LEAST_MS = cost("bound_ms", smallest(DIMS))


def test_no_child_of_the_space_keeps_the_budget():
    message = f"the smallest child is bounded at {LEAST_MS:.4g} ms"
    with pytest.raises(InfeasibleBudget, match=re.escape(message)):
        query(ROWS, NETWORK, COSTS, Budgets(latency_ms=LEAST_MS / 2))


def test_no_evaluated_child_keeps_the_budgets():
    near = min(ROWS, key=lambda row: cost("bound_ms", row.genotype))
    bound_ms, params = cost("bound_ms", near.genotype), cost("params", near.genotype)
    limit_ms = float(f"{(bound_ms + LEAST_MS) / 2:.3g}")
    with pytest.raises(InfeasibleBudget) as caught:
        query(ROWS, NETWORK, COSTS, Budgets(latency_ms=limit_ms, params=1e6))
    first, nearest, *others, last = str(caught.value).splitlines()
    assert first == (
        f"no evaluated child of {len(ROWS)} keeps latency <= {limit_ms:g} ms, parameters <= 1 M. "
        "The nearest:"
    )
    assert nearest == (
        f"  latency {bound_ms:.4g} ms, parameters {params / 1e3:.4g} k, "
        f"accuracy {near.accuracy:.2%}: {format_genotype(near.genotype)}"
    )
    assert len(others) == 2
    assert last == (
        f"Smaller children exist: run elastic-nas search --latency {limit_ms:g}ms --params 1M to "
        "evaluate some, or raise the budget."
    )


def test_a_thousand_rows_are_quick():
    rng = Random(1)
    rows = [Row(sample(DIMS, rng), rng.random(), 500, 0.1) for _ in range(1000)]
    started = time.process_time()
    query(rows, NETWORK, COSTS, Budgets())
    assert time.process_time() - started < 0.3


@pytest.mark.parametrize(
    ("modules", "barred"),
    [
        (("query", "search.history"), ("matplotlib",)),
        (("search.driver", "search.front", "strategies.evolution", "strategies.random_search"), ()),
        (("report",), ("matplotlib",)),
    ],
)
def test_imports_nothing_heavy(modules, barred):
    barred = (*barred, "torch", "onnx", "onnxruntime", "scipy", "sklearn")
    imports = "; ".join(f"import elastic_nas.{module}" for module in modules)
    code = f"import sys; {imports}; print(sorted(set({barred}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
