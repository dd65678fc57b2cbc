"""The stop-watch, on a clock that passes only when told to."""

import ast
import gc
import io
import math
from pathlib import Path
from random import Random

import pytest
from fake_latency import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_nas import machine, measure
from elastic_nas.measure import Protocol, Timing, noise_floor, quantile

ONCE = Protocol(rounds=4, accepted_per_round=5, attempts_per_round=20)


def run(functions, protocol=ONCE, fake=None, **options):
    fake = fake or FakeClock()
    runs = {name: (lambda f=f: f(fake)) for name, f in functions.items()}
    return measure.measure(runs, protocol, clock=fake.clock(), **options)


@pytest.mark.parametrize("module", [measure, machine])
def test_the_kit_can_carry_it(module):
    tree = ast.parse(Path(module.__file__).read_text(), feature_version=(3, 8))
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert imported <= {
        *(
            "__future__",
            "contextlib",
            "dataclasses",
            "gc",
            "glob",
            "hashlib",
            "math",
            "os",
            "platform",
        ),
        *("random", "resource", "statistics", "subprocess", "time", "typing"),
        "elastic_nas.machine",
    }


def test_a_quiet_machine_gives_the_time_itself():
    timing = run({"a": lambda fake: fake.run(0.003)})["a"]
    assert timing.ms == pytest.approx(3)
    assert [timing.p10, timing.p90, timing.contended_p90] == pytest.approx([3] * 3)
    assert (timing.n, timing.accept, timing.refused, timing.calls) == (20, 1.0, "", 1)
    assert timing.round_ms == pytest.approx([3] * 4)


def test_samples_are_rejected_by_cause_and_never_by_value():
    script = iter([(0.003, 0, 0)] * 3 + [(0.009, 0, 0), (0.009, 0.006, 0), (0.009, 0, 1)] * 1000)
    timing = run({"a": lambda fake: fake.run(*next(script))})["a"]
    assert timing.ms == pytest.approx(9)
    assert 0.3 < timing.accept < 0.4


@pytest.mark.parametrize(
    ("seconds", "waits", "counts"),
    [
        (0.010, 0.00029, True),
        (0.010, 0.00031, False),
        (0.0003, 9e-6, True),
        (0.0003, 11e-6, False),
    ],
)
def test_the_thread_may_wait_3_percent_or_10_microseconds(seconds, waits, counts):
    timing = run({"a": lambda fake: fake.run(seconds, waits)})["a"]
    assert timing.accept == (1 if counts else 0)


def test_short_items_are_repeated_until_a_wait_cannot_matter():
    timing = run({"a": lambda fake: fake.run(7e-6)})["a"]
    assert timing.calls == math.ceil(200 / 7)
    assert [timing.ms, timing.p50, timing.contended_p90] == pytest.approx([0.007] * 3)


def test_a_clock_that_goes_backwards_gives_no_sample():
    steps = iter([0.003] * 3 + [-0.5, 0.003] * 1000)
    timing = run({"a": lambda fake: fake.run(next(steps))})["a"]
    assert timing.ms == pytest.approx(3)
    assert timing.accept == pytest.approx(0.5, abs=0.05)


def test_too_few_undisturbed_samples_are_refused():
    items = {"busy": lambda fake: fake.run(0.003, 0, 1), "quiet": lambda fake: fake.run(0.003)}
    timings = run(items)
    assert not timings["quiet"].refused
    assert timings["busy"].refused.startswith("0 of 80 samples were undisturbed; 5 and 10%")
    assert math.isnan(timings["busy"].ms)


def test_a_tenth_must_be_undisturbed():
    count = iter(range(10_000))
    lazy = Protocol(rounds=4, accepted_per_round=99, attempts_per_round=50)
    timing = run({"a": lambda fake: fake.run(0.003, 0, next(count) % 15 != 0)}, lazy)["a"]
    assert timing.n >= lazy.min_samples
    assert "busy" in timing.refused


def test_rounds_are_interleaved_shuffled_and_repeatable():
    def order():
        seen = []
        items = {
            name: (lambda fake, name=name: (seen.append(name), fake.run(0.001)))
            for name in "abcdef"
        }
        run(items, Protocol(warmup=1, rounds=3, accepted_per_round=1))
        return seen

    seen = order()
    visits = [seen[start : start + 12 : 2] for start in range(0, 36, 12)]
    assert all(sorted(visit) == list("abcdef") for visit in visits)
    assert len({tuple(visit) for visit in visits}) > 1
    assert order() == seen


def test_the_median_over_rounds_ignores_one_bad_round():
    count = iter(range(10_000))
    slow = Protocol(warmup=1, rounds=5, accepted_per_round=5)
    timing = run({"a": lambda fake: fake.run(0.03 if next(count) < 6 else 0.003)}, slow)["a"]
    assert timing.ms == pytest.approx(3)
    assert timing.round_ms[0] == pytest.approx(30)


def test_progress_is_told_after_every_visit():
    told = []
    run({"a": lambda fake: fake.run(0.003), "b": lambda fake: fake.run(0.003)}, advance=told.append)
    assert told == [1] * (2 * ONCE.rounds)


def test_several_threads_that_cannot_be_judged_are_refused_without_running():
    def never():
        raise AssertionError

    fake = FakeClock()
    timings = measure.measure({"a": never}, ONCE, True, clock=fake.clock(problem="no counters"))
    assert timings["a"].refused == "no counters"


def test_systems_that_do_not_tell_queueing_cannot_time_threads(monkeypatch):
    def unreadable(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(measure, "open", unreadable, raising=False)
    assert "several threads cannot be timed honestly" in measure.process_clock().problem
    monkeypatch.setattr(measure.os, "listdir", unreadable)
    assert "several threads cannot be timed honestly" in measure.process_clock().problem


def test_threads_that_end_meanwhile_still_count(monkeypatch):
    tasks = {"1": 5_000, "2": 7_000}

    def schedstat(path, **_):
        if path.split("/")[4] not in tasks:
            raise FileNotFoundError
        return io.StringIO(f"99 {tasks[path.split('/')[4]]} 3")

    monkeypatch.setattr(measure.os, "listdir", lambda _: ["1", "2"])
    monkeypatch.setattr(measure, "open", schedstat, raising=False)
    clock = measure.process_clock()
    assert clock.waited() == pytest.approx(12e-6)
    del tasks["2"]
    tasks["1"] = 6_000
    assert clock.waited() == pytest.approx(13e-6)


def test_without_thread_counters_the_process_is_watched(monkeypatch):
    monkeypatch.delattr(measure.resource, "RUSAGE_THREAD", raising=False)
    assert measure.thread_clock().rule.startswith("process")


def test_garbage_collection_comes_back_after_a_failure():
    def fails():
        assert not gc.isenabled()
        raise RuntimeError("x")

    with pytest.raises(RuntimeError):
        measure.measure({"a": fails}, ONCE)
    assert gc.isenabled()


def test_real_clocks_run():
    for owns_threads in (False, True):
        protocol = Protocol(rounds=1, min_samples=0, min_accept=0.0)
        timing = measure.measure({"a": lambda: sum(range(1000))}, protocol, owns_threads)["a"]
        assert timing.contended_p90 > 0 or timing.refused


def timing_of(rounds):
    return Timing(1, 1, 1, 1, 1, 9, 1.0, rounds)


def test_the_noise_floor_compares_even_and_odd_rounds():
    assert noise_floor([timing_of([1.0, 1.1, 1.0, 1.1])]) == pytest.approx(0.1 / 1.05)
    assert noise_floor([timing_of([2.0] * 6), timing_of([1.0])]) == 0
    assert math.isnan(noise_floor([]))


def test_the_noise_floor_of_independent_rounds():
    rng = Random(1)
    timings = [timing_of([rng.lognormvariate(0, 0.02) for _ in range(6)]) for _ in range(500)]
    # half medians of three normals: sd 0.67 of one; their difference: sqrt(2) as much
    assert noise_floor(timings) == pytest.approx(0.02 * 0.67 * 2**0.5 * 0.8, rel=0.1)


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 1e3), min_size=1), st.floats(0, 1))
def test_quantiles_lie_within_the_values(values, share):
    found = quantile(values, share)
    assert min(values) <= found <= max(values) * (1 + 1e-12)


def test_quantiles_by_hand():
    assert quantile([4, 1, 3, 2], 0.5) == 2.5
    assert quantile(range(11), 0.9) == 9
    assert math.isnan(quantile([], 0.5))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1e-4, 1e-1), st.floats(0, 1e-2), st.integers(0, 1))))
def test_whatever_happens_the_figures_are_sound_or_refused(script):
    steps = iter([*script, *[(0.001, 0, 0)] * 10_000])
    timing = run({"a": lambda fake: fake.run(*next(steps))})["a"]
    assert 0 <= timing.accept <= 1
    assert timing.refused or 0 < timing.p10 <= timing.p50 <= timing.p90


def test_the_environment_says_what_machine_this_is():
    facts = measure.environment()
    assert {"arch", "cpu", "flags", "cores", "os"} <= facts.keys()
    mine = measure.signature(facts)
    assert mine == measure.signature({**facts, "load": [9.0], "os": "another"})
    assert mine != measure.signature({**facts, "flags": [*facts["flags"], "avx1024"]})


def test_an_arm_board_is_named_by_its_part(monkeypatch):
    info = "processor : 0\nFeatures : fp asimd bf16\nCPU implementer : 0x41\nCPU part : 0xd0b\n"
    monkeypatch.setattr(machine, "_read", lambda path: info if path == "/proc/cpuinfo" else "")
    facts = machine.environment()
    assert facts["cpu"] == "implementer 0x41, part 0xd0b"
    assert facts["flags"] == ["asimd", "bf16"]
    assert "governor" not in facts
