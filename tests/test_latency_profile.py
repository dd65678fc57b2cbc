"""Profiling an imaginary device: what is measured, kept, refused and claimed."""

import json
import re

import fake_latency
import numpy as np
import pytest
from fake_latency import FakeRuntime, FakeStopwatch, child_ms, imaginary_device

from elastic_nas.energy import EnergyCounter
from elastic_nas.errors import ConfigError, ElasticNasError, MeasurementRefused, TableError
from elastic_nas.genotype import format_genotype
from elastic_nas.latency import bench as bench_module
from elastic_nas.latency import profile as module
from elastic_nas.latency.bench import Anchors, Bench, Job
from elastic_nas.latency.devices import Device
from elastic_nas.latency.drift import check_drift, verdict
from elastic_nas.latency.fitting import features_of
from elastic_nas.latency.model import calibrate
from elastic_nas.latency.plan import (
    ANCHORS,
    Draw,
    calibration_children,
    fit_children,
    wanted_blocks,
)
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.profile import profile
from elastic_nas.latency.report import report
from elastic_nas.latency.speed import Speed, speed_of
from elastic_nas.latency.table import LatencyTable
from elastic_nas.latency.verify import verify_children
from elastic_nas.measure import Protocol
from elastic_nas.network import Network

DEVICE = Device("local-ort-1t", "", "onnxruntime_cpu", 1, "fp32", generic=True)
NETWORK = Network("tiny", 10)


@pytest.fixture
def stopwatch(monkeypatch):
    return imaginary_device(monkeypatch)


def made(table=None, network=NETWORK, save=lambda table: None, **draw):
    return profile(network, FakeRuntime(), DEVICE, table, save=save, draw=Draw(**draw))


def rows_of(genotypes):
    return [fake_latency.child(NETWORK, genotype, "verify", 1.0) for genotype in genotypes]


def test_a_profile_predicts_fresh_children_as_well_as_can_be(stopwatch):
    table = made()
    assert table.missing(s for unit in NETWORK.units for s in unit.specs()) == []
    model = table.models[NETWORK.identity]
    assert (model.n_fit, model.n_calibrate) == (40, 60)
    assert model.mape < 0.015
    assert 0.002 < model.noise_floor < 0.03
    fresh = verify_children(NETWORK, FakeRuntime(), table, n=300)
    assert fresh["n"] == 300
    assert fresh["mape"] < 0.015
    assert fresh["within_5"] > 0.95
    assert fresh["kendall_tau"] > 0.9
    assert fresh["met_bound"] > 0.8  # of one bound; on average below
    noiseless = [child_ms(NETWORK, g) for g in calibration_children(NETWORK, 50, "x", [])]
    genotypes = np.array(calibration_children(NETWORK, 50, "x", []))
    np.testing.assert_allclose(
        Predictor(NETWORK, table).predict_ms(genotypes), noiseless, rtol=0.05
    )


def test_the_bound_covers_95_percent_of_fresh_children_on_average(stopwatch):
    table = made(n_calibrate=0)
    fitted = table.models[NETWORK.identity]
    stopwatch.noise, covered = 0.05, []
    for seed in range(12):
        children = calibration_children(NETWORK, 60, seed, [])
        features = features_of(NETWORK, table, rows_of(children))
        measured = [stopwatch.timing(child_ms(NETWORK, g)).ms for g in children]
        model = calibrate(fitted, features, np.array(measured), 0.01)
        fresh = calibration_children(NETWORK, 200, f"fresh {seed}", children)
        features = features_of(NETWORK, table, rows_of(fresh))
        measured = np.array([stopwatch.timing(child_ms(NETWORK, g)).ms for g in fresh])
        covered.append((measured <= model.bound_factor() * model.predict_ms(features)).mean())
    assert 0.92 < np.mean(covered) < 0.98


def test_the_table_is_written_read_and_reported(stopwatch, tmp_path):
    table = made(save=lambda table: table.write(tmp_path / "t.json"))
    assert LatencyTable.read(tmp_path / "t.json") == table
    text = report(table, NETWORK)
    assert "100 children (40 to fit, 60 to calibrate)" in text
    assert "90% of samples undisturbed" in text
    assert "95% bound: prediction times 1.0" in text
    assert "from 60 children, 9 of 10 such profiles cover 90% to 99% of random children" in text
    assert "548 of 548 blocks covered" in text
    assert "no bound" in report(made(n_calibrate=5), NETWORK)
    record = json.loads((tmp_path / "t.json").read_text())
    assert record["provenance"]["date"].startswith("20")
    assert len(record["provenance"]["anchors"][NETWORK.identity]) == ANCHORS
    assert record["provenance"]["null_ms"] == pytest.approx(0.004, rel=0.05)
    assert "3% or 10 us" in record["protocol"]["filter"]


def test_energy_is_told_where_it_is_counted(stopwatch, monkeypatch):
    assert "energy:" not in report(made(), NETWORK)
    monkeypatch.setattr(module, "counter", lambda gpu: EnergyCounter(lambda: 0.0, "a test's"))
    monkeypatch.setattr(module, "millijoules_a_run", lambda run, counter: 2 * run())
    table = made()
    row = table.provenance["energy"][NETWORK.identity]
    anchors = table.provenance["anchors"][NETWORK.identity]
    expected = [2 * child_ms(NETWORK, tuple(anchor["genotype"])) for anchor in anchors]
    assert list(row["millijoules"].values()) == pytest.approx(expected)
    assert f"{min(expected):.3g} to {max(expected):.3g} mJ a run of 9 children (a test's)" in (
        report(table, NETWORK)
    )


def test_a_second_run_measures_the_anchors_only(stopwatch):
    table = made()
    before = stopwatch.timed
    again = made(table)
    assert stopwatch.timed == before + ANCHORS
    assert again.models[NETWORK.identity].n_calibrate == 60


def test_another_number_of_classes_adds_its_classifiers_only(stopwatch):
    table = made()
    blocks, before = len(table.blocks), stopwatch.timed
    made(table, Network("tiny", 37))
    assert len(table.blocks) == blocks + 2
    assert stopwatch.timed < before + 3 * ANCHORS + 2 + 40  # fit children may be chosen anew


@pytest.mark.parametrize("saves", [2, 3])
def test_an_interrupted_run_goes_on(stopwatch, saves, monkeypatch):
    monkeypatch.setattr(bench_module, "GROUP_BYTES", 60_000_000)
    kept = []

    def interrupt(table):
        kept.append(table)
        if len(kept) == saves:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(save=interrupt)
    table, before = kept[-1], stopwatch.timed
    whole = len(wanted_blocks(NETWORK)) + 100
    done = len(table.blocks) + len(table.children)
    assert 0 < done < whole
    table = made(table)
    anchors = stopwatch.timed - before - (whole - done)
    assert anchors >= ANCHORS  # in each group
    assert anchors % ANCHORS == 0
    assert table.models[NETWORK.identity].n_calibrate == 60


def test_a_profile_that_is_killed_keeps_all_but_its_last_group(stopwatch, tmp_path, monkeypatch):
    """Also the empty model's time, which is measured first."""
    monkeypatch.setattr(bench_module, "GROUP_SECONDS", 1.0)  # .012 s and more a block
    path, seen = tmp_path / "t.json", []

    def save(table):
        table.write(path)
        seen.append((len(table.blocks), len(table.children)))

    made(save=save)
    assert seen[0] == (0, 0)
    kept = [sum(figures) for figures in seen]
    assert max(np.diff(kept)) <= 100
    assert kept[-1] == len(wanted_blocks(NETWORK)) + 100


def test_a_model_goes_with_the_children_that_are_added(stopwatch, monkeypatch):
    """A profile for more children may be killed between two groups: its table still predicts."""
    monkeypatch.setattr(bench_module, "GROUP_SECONDS", 1.0)
    table, kept = made(n_fit=10, n_calibrate=20), []

    def save(table):
        kept.append(len(table.children))
        Predictor(NETWORK, table)

    made(table, save=save, n_calibrate=200)
    assert len(kept) > 2
    assert table.models[NETWORK.identity].n_calibrate == 200


def test_a_model_that_contradicts_its_children_is_not_stored(stopwatch, monkeypatch):
    kept = []
    monkeypatch.setattr(module, "fit_model", lambda network, table: fake_latency.model())
    with pytest.raises(TableError, match="contradicts itself"):
        made(save=lambda table: kept.append(dict(table.models)))
    assert not any(kept)


def test_a_refused_block_is_tried_three_times_and_the_others_are_kept(stopwatch):
    busy = fake_latency.alone_ms(NETWORK.blocks(NETWORK.largest)[2])
    stopwatch.refuse = lambda ms: ms == busy
    kept = []
    with pytest.raises(
        MeasurementRefused, match="1 could not be timed honestly in 3 attempts"
    ) as e:
        made(save=kept.append)
    assert "try later" in str(e.value)
    assert len(kept[-1].blocks) == len(wanted_blocks(NETWORK)) - 1
    assert not kept[-1].models
    tries = iter([True, True, False])
    stopwatch.refuse = lambda ms: ms == busy and next(tries, False)
    assert len(made(kept[-1]).blocks) == len(wanted_blocks(NETWORK))


def test_a_refused_child_publishes_no_model(stopwatch):
    busy = child_ms(NETWORK, NETWORK.largest)
    stopwatch.refuse = lambda ms: ms == busy
    kept = []
    with pytest.raises(MeasurementRefused):
        made(save=kept.append)
    assert len(kept[-1].children) == 99
    assert not kept[-1].models


def test_drift_between_groups_is_taken_out(stopwatch, monkeypatch):
    """A machine that slows by 8 % on the way gives the table of one that does not."""
    monkeypatch.setattr(bench_module, "GROUP_BYTES", 25_000_000)
    stopwatch.noise = 1e-4

    def slow_down(table):
        if table.children:
            stopwatch.factor = min(1.08, stopwatch.factor + 0.01)

    drifting = made(save=slow_down)
    assert stopwatch.factor == 1.08
    assert drifting.provenance["visits"][0]["speed"] == pytest.approx([1, 1.08], abs=2e-3)
    fresh = verify_children(NETWORK, FakeRuntime(), drifting, n=50)
    assert fresh["mape"] < 0.002
    assert fresh["speed"] == pytest.approx((1.08, 1.08), abs=2e-3)
    assert fresh["raw"]["mape"] == pytest.approx(0.08 / 1.08, abs=2e-3)
    assert drifting.models[NETWORK.identity].bound_factor() < 1.002


def test_a_group_that_was_taken_at_another_speed_is_taken_again(monkeypatch, capsys):
    monkeypatch.setattr(bench_module, "GROUP_BYTES", 10_000_000)
    factors = iter([1.0, 1.4, 1.05, *[1.4] * 5])

    def stopwatch(runs, *rest):
        watch = FakeStopwatch(noise=0, factor=next(factors))
        return watch(runs, *rest)

    def jobs(prefix, n):
        return [Job(f"{prefix}{i}", (1,), 700_000, lambda: b"2.0") for i in range(n)]

    bench = Bench(FakeRuntime(), Protocol(), stopwatch=stopwatch)
    anchors = Anchors(jobs("anchor", 3), {})
    found = [t.ms for group in bench.time("x", jobs("", 2), anchors) for t in group.values()]
    assert found == pytest.approx([2.0, 2.0])
    assert [speed.factor for speed in anchors.speeds] == pytest.approx([1.0, 1.05])
    assert "now takes 1.40 times as long" in capsys.readouterr().err
    with pytest.raises(MeasurementRefused, match=r"1\.40 times as long"):
        list(bench.time("x", jobs("", 1), anchors))


def test_a_check_tells_whether_the_table_holds(stopwatch):
    table = made()
    for factor, expected in ((1.0, ""), (1.03, ""), (1.2, "1.2. times as long"), (0.9, "0.9")):
        stopwatch.factor = factor
        before = stopwatch.timed
        speed = check_drift(NETWORK, FakeRuntime(), table)
        assert stopwatch.timed == before + ANCHORS
        assert speed.factor == pytest.approx(factor, abs=0.02)
        assert re.search(expected, verdict(speed))
        assert bool(verdict(speed)) == bool(expected)
    assert "their order has changed" in verdict(Speed(1.01, 0.95, 1.3, 5))
    with pytest.raises(TableError, match="has no anchor children of tiny:size=8"):
        check_drift(Network("tiny:size=8", 10), FakeRuntime(), table)


def test_a_speed_takes_three_anchors():
    then = dict(zip("abcde", (1, 2, 3, 4, 5), strict=True))
    speed = speed_of({"a": 1.1, "b": 2.2, "c": 3.9, "x": 9.0}, then, 5)
    assert (speed.n, speed.low, speed.high) == pytest.approx((3, 1.1, 1.3))
    assert speed.factor == pytest.approx((1.1 * 1.1 * 1.3) ** (1 / 3))
    with pytest.raises(MeasurementRefused, match="only 2 of the 5 anchor children"):
        speed_of({"a": 1.1, "b": 2.2}, then, 5)
    assert speed_of({"a": 1.1, "b": 2.2}, then, 2).n == 2  # a space of two children has two


def test_a_table_starts_on_three_anchors_or_not_at_all(stopwatch):
    stopwatch.refused_names = {f"anchor {i}" for i in range(2, ANCHORS)}
    with pytest.raises(MeasurementRefused, match=f"only 2 of the {ANCHORS} anchor children"):
        made()


def test_an_anchor_that_is_refused_leaves_its_row_and_no_other(stopwatch):
    stopwatch.refused_names = {"anchor 2"}
    stopwatch.noise = 0.0
    for table in (made(), made(made())):
        rows = table.provenance["anchors"][NETWORK.identity]
        assert len(rows) == ANCHORS - 1
        for row in rows:
            assert row["ms"] == pytest.approx(child_ms(NETWORK, tuple(row["genotype"])), rel=1e-3)


def test_a_machine_that_has_changed_speed_is_not_added_to(stopwatch):
    table = made()
    stopwatch.factor = 1.2
    with pytest.raises(MeasurementRefused, match=r"1\.\d+ times as long"):
        made(table)
    del table.blocks[next(iter(table.blocks))]
    with pytest.raises(MeasurementRefused, match=r"1\.\d+ times as long"):
        made(table)


def test_figures_of_another_version_are_left_aside(stopwatch):
    table = made()
    before = stopwatch.timed
    other = profile(NETWORK, FakeRuntime("2.0"), DEVICE, table, save=lambda table: None)
    assert stopwatch.timed == 2 * before
    assert other.runtime["version"] == "2.0"


def test_a_machine_that_is_not_the_device_is_refused(stopwatch):
    pi = Device("pi", "", "onnxruntime_cpu", 1, "fp32", generic=False, cpu={"arch": "aarch64"})
    with pytest.raises(ConfigError, match="this machine is not pi: it has an aarch64 CPU"):
        profile(NETWORK, FakeRuntime(), pi, None, save=lambda table: None)


def test_wanted_blocks_have_classifiers_of_several_sizes():
    outputs = {s.out_features for s in wanted_blocks(Network("tiny", 37)) if s.kind == "classifier"}
    assert outputs == {2, 10, 37, 100, 1000}


def test_jobs_are_grouped_by_memory(monkeypatch):
    monkeypatch.setattr(bench_module, "GROUP_BYTES", 10_000_000)
    jobs = [Job(str(i), (1,), 1_000_000, lambda: b"1.0") for i in range(5)]
    jobs.append(Job("huge", (1,), 50_000_000, lambda: b"1.0"))
    bench = Bench(FakeRuntime(), Protocol(), stopwatch=FakeStopwatch())
    assert [len(group) for group in bench.time("x", jobs)] == [2, 2, 1, 1]
    assert list(bench.time("x", [])) == []
    many = [Job(str(i), (1,), 1, lambda: b"1.0", guess_ms=2.5) for i in range(300)]
    monkeypatch.undo()  # .15 s each, 30 s a group
    assert [len(group) for group in bench.time("x", many)] == [201, 99]
    threaded = Bench(FakeRuntime(owns_threads=True), Protocol(), stopwatch=FakeStopwatch())
    tiny = [Job(str(i), (1,), 1, lambda: b"1.0") for i in range(40)]
    assert [len(group) for group in threaded.time("x", tiny)] == [16, 16, 8]


def test_short_children_are_visited_more_often():
    rounds = [module.for_children(Protocol(), ms).rounds for ms in (0.1, 5, 50)]
    assert rounds == [30, 13, 6]


def test_fit_children_are_spread_and_calibration_children_are_others():
    chosen = fit_children(NETWORK, 20, 0)
    assert chosen[:2] == [NETWORK.smallest, NETWORK.largest]
    assert len(set(chosen)) == 20
    assert len({NETWORK.resolution(g) for g in chosen}) == len(NETWORK.dims[0].choices)
    times = np.sort([child_ms(NETWORK, g) for g in chosen[2:]])
    assert (np.diff(times) / np.ptp(times)).max() < 0.5
    assert fit_children(NETWORK, 20, 0) == chosen
    assert fit_children(NETWORK, 20, 1) != chosen
    assert fit_children(NETWORK, 2, 0) == chosen[:2]
    drawn = calibration_children(NETWORK, 60, 0, [])
    assert not set(drawn[:30]) & set(calibration_children(NETWORK, 60, 0, drawn[:30]))
    others = calibration_children(NETWORK, 60, 0, chosen)
    assert len(set(others)) == 60
    assert not set(others) & set(chosen)
    assert all(NETWORK.canonical(g) == g for g in chosen + others)


def test_a_child_that_the_runtime_cannot_run_is_named(stopwatch):
    class Refusing(FakeRuntime):
        def prepare(self, model, input_shape):
            if float(model) == child_ms(NETWORK, NETWORK.largest):
                raise ElasticNasError("test refuses the model: no operator Swish.")
            return super().prepare(model, input_shape)

    named = re.escape(f"the child {format_genotype(NETWORK.largest)} of tiny cannot be run here: ")
    with pytest.raises(ElasticNasError, match=f"{named}test refuses the model: no operator Swish"):
        profile(NETWORK, Refusing(), DEVICE, None, save=lambda table: None)
