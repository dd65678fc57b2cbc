"""The stop-watch: times functions on a shared machine, and refuses where it cannot do so honestly.

Standard library only, in the syntax of Python 3.8: the portable kit carries this file and
`machine.py` verbatim.

Samples are rejected by cause, never by value: one counts if the thread was not descheduled while
it ran and did not wait for the processor. On a busy machine that turned a predictor's error of
10 % into 2.5 %. Items are interleaved in shuffled rounds, because a shared machine drifts.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import random
import resource
import statistics
import time
from dataclasses import dataclass, field
from typing import Callable, Iterable  # noqa: UP035

from elastic_nas.machine import environment, signature

__all__ = ["Protocol", "Timing", "environment", "measure", "noise_floor", "signature"]

MAX_CALLS = 2000


@dataclass(frozen=True)
class Protocol:
    """How figures are taken.

    Attributes:
        warmup: Runs before an item's first sample; later visits begin with one.
        rounds: Times that every item is visited, in a new order each round.
        accepted_per_round: Samples to accept in one visit.
        attempts_per_round: Samples to try in one visit.
        max_wait_share: Largest share of a sample that the thread may have waited.
        max_wait_s: The same in seconds; the larger of both counts.
        min_accept: Share of samples that must be accepted for a figure.
        min_samples: Number of samples that must be accepted for a figure.
        seed: Of the order within rounds.
        sample_s: A sample repeats short items until it lasts about this long, so that a wait of
            `max_wait_s` cannot distort it: at 200 us by 5 % at most.
    """

    warmup: int = 3
    rounds: int = 6
    accepted_per_round: int = 10
    attempts_per_round: int = 40
    max_wait_share: float = 0.03
    max_wait_s: float = 10e-6
    min_accept: float = 0.10
    min_samples: int = 5
    seed: int = 7
    sample_s: float = 200e-6


@dataclass
class Timing:
    """What one item takes, in milliseconds a run.

    Attributes:
        ms: Median over rounds of the medians of accepted samples; NaN where none was accepted.
        p10: Of all accepted samples, as p50 and p90; spread is smaller where a sample is
            several runs (`calls`).
        contended_p90: 90th percentile of all samples, the rejected ones too.
        n: Number of accepted samples.
        accept: Share of samples that were accepted.
        round_ms: Median of each round that accepted something, in order.
        refused: Why the figure must not be published, or nothing.
        calls: Runs a sample.
    """

    ms: float
    p10: float
    p50: float
    p90: float
    contended_p90: float
    n: int
    accept: float
    round_ms: list[float] = field(default_factory=list)
    refused: str = ""
    calls: int = 1


@dataclass(frozen=True)
class Clock:
    """The counters that samples are judged by.

    Attributes:
        wall: Seconds on a monotonic clock.
        waited: Seconds that the work was kept from a processor, as a growing total.
        switches: Times that the work was descheduled against its will, as a growing total.
        rule: What is counted, for the protocol's record.
        problem: Why this system cannot time such work honestly, or nothing.
    """

    wall: Callable[[], float]
    waited: Callable[[], float]
    switches: Callable[[], int]
    rule: str
    problem: str = ""


def thread_clock() -> Clock:
    """Counters of the calling thread; of the whole process where a thread has none (macOS)."""
    whole = not hasattr(resource, "RUSAGE_THREAD")
    who = resource.RUSAGE_SELF if whole else resource.RUSAGE_THREAD
    cpu = time.process_time if whole else time.thread_time
    scope = "process" if whole else "thread"
    return Clock(
        wall=time.perf_counter,
        waited=lambda: time.perf_counter() - cpu(),
        switches=lambda: resource.getrusage(who).ru_nivcsw,
        rule=scope + " not descheduled, wall minus " + scope + " CPU time small",
    )


def process_clock() -> Clock:
    """Counters of all threads together, for runtimes with their own pool.

    CPU time says nothing there: it exceeds wall time. Linux tells how long runnable threads
    queued for a processor (``/proc/self/task/*/schedstat``); elsewhere no figure is honest.
    """
    queueing = _Queueing()
    with contextlib.suppress(OSError, ValueError, IndexError):
        queueing.seconds()
    problem = (
        "this system does not tell how long threads queued for a processor, so several threads "
        "cannot be timed honestly"
    )
    return Clock(
        wall=time.perf_counter,
        waited=queueing.seconds,
        switches=lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        rule="no thread of the process descheduled, time that threads queued small",
        problem="" if queueing.of_task else problem,
    )


class _Queueing:
    """Nanoseconds that each thread of this process has been runnable without running."""

    def __init__(self) -> None:
        self.of_task: dict[str, int] = {}

    def seconds(self) -> float:
        """The total; threads that have ended still count, so that it never falls."""
        for task in os.listdir("/proc/self/task"):
            try:
                with open("/proc/self/task/" + task + "/schedstat", encoding="ascii") as file:
                    queued = int(file.read().split()[1])
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            self.of_task[task] = max(queued, self.of_task.get(task, 0))
        return sum(self.of_task.values()) * 1e-9


class _Item:
    """One function under measurement, and its samples in seconds a run."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run
        self.calls = 1
        self.accepted: list[float] = []
        self.all: list[float] = []
        self.round_medians: list[float] = []

    def warm_up(self, protocol: Protocol, clock: Clock) -> None:
        """Run the item, and choose how many runs make a sample, from its fastest run."""
        fastest = math.inf
        for _ in range(protocol.warmup):
            start = clock.wall()
            self.run()
            fastest = min(fastest, clock.wall() - start)
        if 0 < fastest < protocol.sample_s:
            self.calls = min(MAX_CALLS, math.ceil(protocol.sample_s / fastest))

    def visit(self, protocol: Protocol, clock: Clock) -> None:
        """Take one round's samples."""
        if self.all:
            self.run()
        else:
            self.warm_up(protocol, clock)
        accepted: list[float] = []
        for _ in range(protocol.attempts_per_round):
            seconds, undisturbed = self.sample(protocol, clock)
            self.all.append(seconds / self.calls)
            if undisturbed:
                accepted.append(seconds / self.calls)
            if len(accepted) >= protocol.accepted_per_round:
                break
        if accepted:
            self.accepted += accepted
            self.round_medians.append(statistics.median(accepted))

    def sample(self, protocol: Protocol, clock: Clock) -> tuple[float, bool]:
        """Seconds of one sample, and whether it counts."""
        switches, waited, start = clock.switches(), clock.waited(), clock.wall()
        for _ in range(self.calls):
            self.run()
        seconds = clock.wall() - start
        waited = clock.waited() - waited
        switches = clock.switches() - switches
        limit = max(protocol.max_wait_share * seconds, protocol.max_wait_s)
        return seconds, seconds > 0 and switches == 0 and waited <= limit

    def timing(self, protocol: Protocol, clock: Clock) -> Timing:
        """The figures, in milliseconds."""
        n, accept = len(self.accepted), len(self.accepted) / max(len(self.all), 1)
        refused = clock.problem
        if not refused and (n < protocol.min_samples or accept < protocol.min_accept):
            refused = (
                f"{n} of {len(self.all)} samples were undisturbed; {protocol.min_samples} and "
                f"{protocol.min_accept:.0%} are needed: the machine is busy"
            )
        rounds = [1e3 * seconds for seconds in self.round_medians]
        return Timing(
            ms=statistics.median(rounds) if rounds else math.nan,
            p10=1e3 * quantile(self.accepted, 0.1),
            p50=1e3 * quantile(self.accepted, 0.5),
            p90=1e3 * quantile(self.accepted, 0.9),
            contended_p90=1e3 * quantile(self.all, 0.9),
            n=n,
            accept=accept,
            round_ms=rounds,
            refused=refused,
            calls=self.calls,
        )


def _silent(_: int) -> None:
    pass


def measure(
    runs: dict[str, Callable[[], object]],
    protocol: Protocol,
    owns_threads: bool = False,
    advance: Callable[[int], None] = _silent,
    clock: Clock | None = None,
) -> dict[str, Timing]:
    """Time functions against each other, interleaved; garbage collection waits meanwhile.

    Args:
        runs: By name, functions without arguments.
        protocol: How figures are taken.
        owns_threads: The functions use threads of their own.
        advance: Told 1 after every visit; there are ``len(runs) * protocol.rounds``.
        clock: The counters to judge samples by; by default those that fit `owns_threads`.

    Returns:
        A timing for each name; look at `refused` before using one.
    """
    clock = clock or (process_clock() if owns_threads else thread_clock())
    items = {name: _Item(run) for name, run in runs.items()}
    rng = random.Random(protocol.seed)
    collects = gc.isenabled()
    gc.disable()
    try:
        for _ in range(0 if clock.problem else protocol.rounds):
            order = list(items.values())
            rng.shuffle(order)
            for item in order:
                item.visit(protocol, clock)
                advance(1)
    finally:
        if collects:
            gc.enable()
    return {name: item.timing(protocol, clock) for name, item in items.items()}


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated; NaN for no values."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def noise_floor(timings: Iterable[Timing]) -> float:
    """How well the measurement agrees with itself, to be held against a predictor's MAPE.

    The mean over items of ``|even - odd| / ((even + odd) / 2)``, where even and odd are the
    medians over the even and the odd rounds. It is the error of a perfect predictor of one half
    of the rounds that is judged by the other half. NaN where no item has two rounds.
    """
    differences = []
    for timing in timings:
        if len(timing.round_ms) > 1:
            even = statistics.median(timing.round_ms[::2])
            odd = statistics.median(timing.round_ms[1::2])
            differences.append(2 * abs(even - odd) / (even + odd))
    return statistics.fmean(differences) if differences else math.nan
