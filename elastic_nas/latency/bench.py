"""Timing many models in groups, all told at one speed, with an honest refusal.

A group fits in memory, and is small enough that little is lost where it cannot be ended.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

from elastic_nas.errors import (
    ConfigError,
    ElasticNasError,
    MeasurementRefused,
    MissingExtra,
    SpeedMoved,
)
from elastic_nas.latency.speed import Speed, at_speed, check_move, speed_of
from elastic_nas.measure import Protocol, Timing, environment, measure
from elastic_nas.progress import say, track

GROUP_BYTES = 4_000_000_000
MEMORY_SHARE = 4
"""A group takes so many bytes, or that part of the machine's memory where this is less."""
BYTES_A_WEIGHT_BYTE = 3
"""A prepared model holds its weights about three times: file, session, repacked."""
SESSION_BYTES = 1_000_000
GROUP_SECONDS = 30.0
"""A group takes about so long, by guess: what a killed profile loses at most. In shorter groups
anchors alone would bring figures to one speed, not rounds that visit all models in turn."""
MAX_POOLS = 16
"""Models at a time for a runtime with threads: each has its own, and all are watched."""
RETRIES = 2
MOVED_RETRIES = 4
"""Times that a group is measured again where the machine's speed has moved too far."""

Runs = dict[str, Callable[[], object]]


class TimedRuntime(Interface):
    """What timing needs of a runtime."""

    @property
    def owns_threads(self) -> bool: ...

    def describe(self) -> dict[str, Any]: ...

    def prepare(self, model: bytes, input_shape: tuple[int, ...]) -> Callable[[], object]: ...


@dataclass(frozen=True)
class Job:
    """A model to be timed.

    Attributes:
        name: Unique among the jobs that are timed together.
        input_shape: Without the batch.
        weight_bytes: Size of its weights.
        build: Makes the model.
        what: What it is, for errors.
        guess_ms: About what a run takes, in milliseconds on any device; 0: next to nothing.
    """

    name: str
    input_shape: tuple[int, ...]
    weight_bytes: int
    build: Callable[[], bytes]
    what: str = ""
    guess_ms: float = 0.0


@dataclass
class Anchors:
    """Models that are timed with every group, so that all groups can be told at one speed.

    Attributes:
        jobs: The models; their names differ from those of other jobs.
        then_ms: What they took when they were timed first, by name; filled by the first group
            where nothing is known.
        speeds: Of every group, against `then_ms`.
    """

    jobs: list[Job]
    then_ms: dict[str, float] = field(default_factory=dict)
    speeds: list[Speed] = field(default_factory=list)
    _runs: Runs = field(default_factory=dict, repr=False)

    def runs(self, prepare: Callable[[Job], Callable[[], object]]) -> Runs:
        """The prepared models; they stay in memory from group to group."""
        if not self._runs:
            self._runs = {job.name: prepare(job) for job in self.jobs}
        return self._runs

    def settle(self, timings: dict[str, Timing]) -> dict[str, Timing]:
        """The group's other timings at the anchors' speed of then.

        Raises:
            MeasurementRefused: Too few anchors were undisturbed, or the speed moved too far.
        """
        names = {job.name for job in self.jobs}
        now = {name: t.ms for name, t in timings.items() if name in names and not t.refused}
        then = self.then_ms or now
        speed = speed_of(now, then, len(self.jobs)) if self.jobs else Speed(1.0, 1.0, 1.0, 0)
        check_move(speed)
        self.then_ms = then
        self.speeds.append(speed)
        others = {name: t for name, t in timings.items() if name not in names}
        return {name: at_speed(t, speed.factor) for name, t in others.items()}


@dataclass
class Bench:
    """A runtime and a protocol, and the time they have spent.

    Attributes:
        runtime: What runs the models.
        protocol: How figures are taken.
        device_s: Seconds spent on timing so far, without building.
        stopwatch: `measure.measure`, or a stand-in for tests.
    """

    runtime: TimedRuntime
    protocol: Protocol
    device_s: float = 0.0
    stopwatch: Callable[..., dict[str, Timing]] = field(default=measure, repr=False)

    def time(
        self, title: str, jobs: list[Job], anchors: Anchors | None = None
    ) -> Iterator[dict[str, Timing]]:
        """The accepted timings of one group after another, by job name, all at one speed.

        Raises:
            MeasurementRefused: Some job could not be timed honestly, in three attempts; all others
                were given before, but where half of a group is refused. Or the machine's speed
                moved too far.
        """
        if not jobs:
            return
        anchors = anchors or Anchors([])
        beside = max(1, MAX_POOLS - len(anchors.jobs))
        most = beside if self.runtime.owns_threads else len(jobs)
        groups = list(_groups(jobs, anchors.jobs, most, self.protocol))
        models = len(jobs) + len(groups) * len(anchors.jobs)
        with track(title, len(jobs) + models * self.protocol.rounds) as progress:
            refused: dict[str, Timing] = {}
            for group in groups:
                timings = self._settled_group(group, anchors, progress.advance)
                yield {name: t for name, t in timings.items() if not t.refused}
                mine = {name: t for name, t in timings.items() if t.refused}
                refused |= mine
                if 2 * len(mine) > len(timings):
                    break
            _refuse(refused, title)

    def speed(self, title: str, anchors: Anchors) -> Speed:
        """The machine's speed now, against what the anchors took then.

        Raises:
            MeasurementRefused: Too few anchors were undisturbed.
        """
        with track(title, len(anchors.jobs) * self.protocol.rounds) as progress:
            timings = self._time_group([], anchors, progress.advance)
        now = {name: timing.ms for name, timing in timings.items() if not timing.refused}
        return speed_of(now, anchors.then_ms, len(anchors.jobs))

    def _settled_group(
        self, group: list[Job], anchors: Anchors, advance: Callable[[int], None]
    ) -> dict[str, Timing]:
        """The group's timings at one speed; taken again where the speed moved too far meanwhile."""
        for attempt in range(1 + MOVED_RETRIES):
            timings = self._time_group(group, anchors, _silent if attempt else advance)
            try:
                return anchors.settle(timings)
            except SpeedMoved as error:
                if attempt == MOVED_RETRIES:
                    raise
                say(f"{str(error).splitlines()[0]} Measuring these {len(group)} again.")
        raise AssertionError("the loop returns or raises")

    def _time_group(
        self, group: list[Job], anchors: Anchors, advance: Callable[[int], None]
    ) -> dict[str, Timing]:
        runs = dict(anchors.runs(self.prepared))
        for job in group:
            runs[job.name] = self.prepared(job)
            advance(1)
        timings = self._measure(runs, advance)
        for _ in range(RETRIES):
            refused = [name for name, timing in timings.items() if timing.refused]
            if refused:
                timings |= self._measure({name: runs[name] for name in refused}, _silent)
        return timings

    def prepared(self, job: Job) -> Callable[[], object]:
        """A function that runs the job's model once.

        Raises:
            ElasticNasError: The runtime cannot run it; the message names the model.
        """
        try:
            return self.runtime.prepare(job.build(), job.input_shape)
        except (ConfigError, MissingExtra):  # of the runtime, whatever the model
            raise
        except ElasticNasError as error:
            raise ElasticNasError(f"{job.what or job.name} cannot be run here: {error}") from error

    def _measure(self, runs: Runs, advance: Callable[[int], None]) -> dict[str, Timing]:
        start = time.monotonic()
        timings = self.stopwatch(runs, self.protocol, self.runtime.owns_threads, advance)
        self.device_s += time.monotonic() - start
        return timings


def _silent(_: int) -> None:
    pass


def _groups(
    jobs: list[Job], anchors: list[Job], most: int, protocol: Protocol
) -> Iterator[list[Job]]:
    """Jobs in their order, at most `most` at a time, as many as memory and time allow."""
    memory_mb = environment().get("memory_mb", 2 * GROUP_BYTES // 2**20)
    most_bytes = min(GROUP_BYTES, memory_mb * 2**20 // MEMORY_SHARE)
    taken = sum(map(_bytes, anchors))
    group: list[Job] = []
    size, seconds = taken, 0.0
    for job in jobs:
        beyond = size + _bytes(job) > most_bytes or seconds > GROUP_SECONDS
        if len(group) == most or (group and beyond):
            yield group
            group, size, seconds = [], taken, 0.0
        group.append(job)
        size += _bytes(job)
        seconds += _seconds(job, protocol)
    yield group


def _seconds(job: Job, protocol: Protocol) -> float:
    """About what timing a job takes."""
    a_sample = max(protocol.sample_s, 1e-3 * job.guess_ms)
    return a_sample * protocol.rounds * protocol.accepted_per_round


def _bytes(job: Job) -> int:
    return BYTES_A_WEIGHT_BYTE * job.weight_bytes + SESSION_BYTES


def _refuse(refused: dict[str, Timing], title: str) -> None:
    if refused:
        name, timing = next(iter(refused.items()))
        contended = ", ".join(f"{t.contended_p90:.4g} ms" for t in list(refused.values())[:3])
        raise MeasurementRefused(
            f"{title}: {len(refused)} could not be timed honestly in {1 + RETRIES} attempts; "
            f"{name}: {timing.refused}.\nContended, that is the slowest tenth of all samples, "
            f"disturbed ones too: {contended}{', ...' if len(refused) > 3 else ''}; such figures "
            "never enter a table.\n"
            "Close other programs, take a device with fewer threads, or try later. What was "
            "measured so far is kept; the same command goes on from there."
        )
