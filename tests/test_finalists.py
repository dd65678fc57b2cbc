"""What a search would deliver is measured, and what is measured is heeded."""

import json
import os
from dataclasses import replace

import fake_latency
import numpy as np
import pytest
from small_run import DEVICE, SPACE, done, facts, refused

from elastic_nas import finalists, pipeline
from elastic_nas.budgets import Budgets
from elastic_nas.errors import ElasticNasError, MeasurementRefused, RunFolderError
from elastic_nas.latency.measured import Measured, read_measured
from elastic_nas.latency.speed import Speed
from elastic_nas.latency.speed_file import speed_file, write_speed
from elastic_nas.latency.table import LatencyTable
from elastic_nas.runs import open_run
from elastic_nas.targets import open_target

GENES = 25


@pytest.fixture
def anchored(run):
    """The run, with a table that knows anchors."""
    opened = open_run(run)
    table = LatencyTable.read(opened.table(DEVICE))
    network = opened.network
    ms = next(row.ms for row in table.children if row.genotype == network.smallest)
    anchors = [{"classes": 10, "genotype": list(network.smallest), "ms": ms}]
    table.provenance["anchors"][network.identity] = anchors
    table.write(opened.table(DEVICE))
    return opened


def clock(monkeypatch, factor_of=lambda genotype: 1.0):
    """Children take `factor_of` times their prediction; returns what was timed."""
    timed = []

    def time_children(run, target, genotypes):
        timed.extend(genotypes)
        predicted = target.predictor.predict_ms(np.array(genotypes)) / target.predictor.speed
        pairs = zip(genotypes, predicted, strict=True)
        yield {genotype: float(ms) * factor_of(genotype) for genotype, ms in pairs}, 1.0

    monkeypatch.setattr(finalists, "time_children", time_children)
    return timed


def test_the_front_is_measured_once_and_told(anchored, monkeypatch, capsys):
    timed = clock(monkeypatch)
    front = pipeline.search(anchored, DEVICE, Budgets())
    assert sorted(timed) == sorted(answer.genotype for answer in front)
    for answer in front:
        assert answer.measured_ms == pytest.approx(answer.predicted_ms, rel=1e-4)
    assert f"{len(front)} finalists measured: all keep their bound." in capsys.readouterr().err
    again = pipeline.search(anchored, DEVICE, Budgets())
    assert len(timed) == len(front)
    assert again == front
    words = ("query", anchored.path, "--device", DEVICE, "--latency", "9s")
    found = facts(*words)
    assert found["measured_ms"] == pytest.approx(found["predicted_ms"], rel=1e-4)
    assert "measured after the search" in done(*words)


def test_a_child_that_breaks_its_bound_joins_the_calibration(anchored, monkeypatch, capsys):
    before = open_target(anchored.network, DEVICE, run=anchored)
    best = pipeline.query(anchored, DEVICE, Budgets())[0][0]
    clock(monkeypatch, lambda genotype: 1.5 if genotype == best.genotype else 1.0)
    pipeline.search(anchored, DEVICE, Budgets())
    assert "1 broke it and joined its calibration" in capsys.readouterr().err
    after = open_target(anchored.network, DEVICE, run=anchored)
    expected = before.predictor.model.bound_factor(also=(1.5,))
    others = np.array([g for g in after.measured.ms if g != best.genotype])
    np.testing.assert_allclose(
        after.costs.bound_ms(others), after.predictor.predict_ms(others) * expected
    )
    own = after.costs.bound_ms(np.array([best.genotype]))
    assert own == pytest.approx(1.5 * best.predicted_ms, rel=1e-4)
    limit = Budgets(latency_ms=1.2 * best.predicted_ms)
    answers, _ = pipeline.query(anchored, DEVICE, limit)
    assert best.genotype not in [answer.genotype for answer in answers]


def test_the_search_goes_on_while_finalists_break_the_bound(anchored, monkeypatch):
    known = len(pipeline.searched_rows(anchored))
    timed = clock(monkeypatch, lambda genotype: 1.3)
    middle = Budgets(latency_ms=pipeline.query(anchored, DEVICE, Budgets())[0][0].bound_ms * 1.2)
    front = pipeline.search(anchored, DEVICE, middle, evaluations=known)
    most = 2 * known + pipeline.MORE_TIMES * pipeline.MORE
    assert known < len(pipeline.searched_rows(anchored)) <= most
    assert timed
    for answer in front:
        assert answer.measured_ms <= answer.bound_ms * 1.0001
        assert answer.bound_ms <= middle.latency_ms


@pytest.mark.parametrize(
    "error", [MeasurementRefused("the machine is busy."), ElasticNasError("no such operator.")]
)
def test_what_cannot_be_measured_costs_nothing_but_its_figure(anchored, monkeypatch, capsys, error):
    def busy(run, target, genotypes):
        predicted = target.predictor.predict_ms(np.array(genotypes[:1]))
        yield {genotypes[0]: float(predicted[0])}, 1.0
        raise error

    monkeypatch.setattr(finalists, "time_children", busy)
    front = pipeline.search(anchored, DEVICE, Budgets())
    first, *others = reversed(front)
    assert first.measured_ms == pytest.approx(first.predicted_ms, rel=1e-4)
    assert all(answer.measured_ms is None for answer in others)
    left = f"{len(others)} of {len(front)} finalists were not measured. {error}"
    assert f"note: {left}" in capsys.readouterr().err


def test_what_was_measured_belongs_to_the_tables_model_and_anchors(anchored, monkeypatch):
    clock(monkeypatch)
    front = pipeline.search(anchored, DEVICE, Budgets())
    table = LatencyTable.read(anchored.table(DEVICE))
    table.provenance["date"] = "2030-01-01"
    table.models["another space"] = next(iter(table.models.values()))
    table.write(anchored.table(DEVICE))
    assert len(open_target(anchored.network, DEVICE, run=anchored).measured.ms) == len(front)
    table.provenance["anchors"][anchored.network.identity][0]["ms"] *= 1.1
    table.write(anchored.table(DEVICE))
    assert open_target(anchored.network, DEVICE, run=anchored).measured.ms == {}


def test_without_a_bound_nothing_is_said_to_break_it(anchored, monkeypatch, capsys):
    table = LatencyTable.read(anchored.table(DEVICE))
    fake_latency.without_bound(table, anchored.network)
    table.write(anchored.table(DEVICE))
    clock(monkeypatch, lambda genotype: 1.5)
    front = pipeline.search(anchored, DEVICE, Budgets())
    assert all(answer.measured_ms is not None for answer in front)
    err = capsys.readouterr().err
    assert f"{len(front)} finalists measured.\n" in err
    assert "broke" not in err


def test_a_check_that_failed_takes_the_promise_back(anchored):
    words = ("query", anchored.path, "--device", DEVICE, "--latency", "9s")
    target = open_target(anchored.network, DEVICE, run=anchored)
    before = facts(*words)
    assert before["promise"]
    write_speed(DEVICE, target.predictor.digest, Speed(1.2, 1.1, 1.3, 9), "it takes 1.20 times")
    assert not facts(*words)["promise"]
    assert "stale table: it takes 1.20 times (checked 20" in done(*words)
    again = open_target(anchored.network, DEVICE, run=anchored)
    assert again.is_here
    assert not again.predictor.promise
    write_speed(DEVICE, target.predictor.digest, Speed(1.02, 1.0, 1.05, 9), "")
    after = facts(*words)
    assert after["promise"]
    assert after["bound_ms"] == pytest.approx(1.02 * before["bound_ms"])


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "other"},
        {"children": [{"genotype": [0] * 3, "ms": 1.0}]},
        {"children": [{"genotype": [-1] * GENES, "ms": 1.0}]},
        {"children": [{"genotype": [0] * GENES, "ms": 0.0}]},
        {"children": [{"genotype": [0] * GENES, "ms": "1"}]},
        {"children": [{"genotype": [0] * GENES, "ms": True}]},
        {"children": [{"genotype": [999] * GENES, "ms": 1.0}]},
        {"children": [{"genotype": [True] * GENES, "ms": 1.0}]},
        {"children": 2 * [{"genotype": [0] * GENES, "ms": 1.0}]},
        {"children": [[]]},
        {"digest": 3},
        {"more": None},
        {"children": [{"ms": 1.0}]},
        {"children": 7},
    ],
)
def test_a_damaged_file_is_named(anchored, change):
    path = anchored.measured(DEVICE)
    Measured("a" * 64, {(0,) * GENES: 1.25}).write(path)
    assert read_measured(path, "a" * 64, anchored.network.dims).ms == {(0,) * GENES: 1.25}
    assert read_measured(path, "b" * 64, anchored.network.dims).ms == {}
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunFolderError, match=r"is damaged .*; remove it"):
        read_measured(path, "a" * 64, anchored.network.dims)
    assert "is damaged" in refused("query", anchored.path, "--device", DEVICE, "--latency", "9s")


def test_a_level_is_chosen(anchored):
    words = ("query", anchored.path, "--device", DEVICE, "--latency", "9s")
    strict, loose = (facts(*words, "--level", level)["bound_ms"] for level in (0.98, 0.5))
    assert strict > loose
    assert "bounded at 50 % on" in done(*words, "--level", "0.5")
    assert "must be 0.5 to 0.999, got 2" in refused(*words, "--level", "2")
    assert "it takes 199" in refused(*words, "--level", "0.995")
    predicted = ("predict", DEVICE, SPACE, "--classes", "10", "--table", anchored.table(DEVICE))
    assert facts(*predicted, "--level", "0.9")["level"] == 0.9


def test_an_int8_device_says_what_its_latency_is_of(anchored):
    target = open_target(anchored.network, DEVICE, run=anchored)
    assert target.remarks == ()
    eight = replace(target, device=replace(target.device, precision="int8"))
    assert (
        "the exported file is fp32; latency, size and memory are those of its int8"
        in eight.remarks[0]
    )


def damaged_speed(run, **changes):
    """The file of a check of this run's table, spoilt."""
    opened = open_run(run)
    digest = open_target(opened.network, DEVICE, run=opened).predictor.digest
    write_speed(DEVICE, digest, Speed(1.02, 1.0, 1.05, 9), "")
    path = speed_file(DEVICE, digest)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"factor": 0},
        {"factor": -1.0},
        {"factor": True},
        {"factor": "1"},
        {"factor": 5.0},
        {"factor": None},
        {"why": "\x1b[2J"},
        {"why": "x" * 10_000},
        {"date": []},
        {"digest": "0" * 64},
        {"schema": "elastic-speed/2"},
        {"n": -1},
        {"low": 0},
        {"more": 1},
    ],
)
def test_a_damaged_speed_is_named(run, changes):
    path = damaged_speed(run, **changes)
    said = refused("query", run, "--device", DEVICE, "--latency", "9s")
    assert f"{path.name} is damaged (" in said
    assert f"check again: elastic-nas profile {DEVICE} --check" in said


def test_a_speed_or_figures_that_are_no_file_are_named(run):
    for path in (damaged_speed(run), open_run(run).measured(DEVICE)):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        said = refused("query", run, "--device", DEVICE, "--latency", "9s")
        assert f"{path.name}: it is a pipe, not a file" in said
        path.unlink()


def test_what_could_not_be_read_again_is_not_kept(run):
    with pytest.raises(RunFolderError, match=r"cannot write .*: factor: must be"):
        write_speed(DEVICE, "a" * 64, Speed(float("nan"), 1.0, 1.0, 9), "")
    with pytest.raises(RunFolderError, match=r"cannot write .*children\.0\.ms"):
        Measured("a" * 64, {(0,) * GENES: -1.0}).write(open_run(run).measured(DEVICE))
