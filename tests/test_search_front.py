import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_nas.budgets import Budgets
from elastic_nas.errors import RunFolderError
from elastic_nas.search.front import pareto_front, write_front

SMALL = st.integers(0, 6).map(float)


def naive_front(points):
    """Those that no other is at least as good as in both and better in one."""

    def beaten(accuracy, ms):
        return any(a >= accuracy and t <= ms and (a, t) != (accuracy, ms) for a, t in points)

    return sorted({(ms, accuracy) for accuracy, ms in points if not beaten(accuracy, ms)})


@given(st.lists(st.tuples(SMALL, SMALL)))
def test_the_front_is_the_definition(points):
    front = pareto_front([a for a, _ in points], [t for _, t in points])
    assert [(points[i][1], points[i][0]) for i in front] == naive_front(points)
    assert all(i == points.index(points[i]) for i in front)  # of equals, the first


@given(st.lists(st.tuples(SMALL, SMALL), min_size=1))
def test_the_front_rises_strictly(points):
    front = [points[i] for i in pareto_front([a for a, _ in points], [t for _, t in points])]
    assert front == sorted(set(front))
    assert len({a for a, _ in front}) == len({t for _, t in front}) == len(front)
    assert max(points)[0] == front[-1][0]


def test_the_file_holds_what_is_needed_to_trust_it(tmp_path):
    path = tmp_path / "fronts/pi.json"
    write_front(
        path,
        device="pi",
        table_sha256="abc",
        ties={"weights": "w"},
        budgets=Budgets(latency_ms=5),
        children=[{"genotype": "0,1", "accuracy": 0.5}],
    )
    assert json.loads(path.read_text()) == {
        "schema": "elastic-front/1",
        "device": "pi",
        "table_sha256": "abc",
        "ties": {"weights": "w"},
        "budgets": {
            "latency_ms": 5,
            "params": None,
            "macs": None,
            "size_bytes": None,
            "memory_bytes": None,
        },
        "children": [{"genotype": "0,1", "accuracy": 0.5}],
    }


def test_a_front_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "fronts").write_text("a file in the way")
    with pytest.raises(RunFolderError, match="cannot write"):
        write_front(
            tmp_path / "fronts/pi.json",
            device="pi",
            table_sha256="",
            ties={},
            budgets=Budgets(),
            children=[],
        )
