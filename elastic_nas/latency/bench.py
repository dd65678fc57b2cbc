"""Timing many models in groups that fit in memory, with retries and an honest refusal."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

from elastic_nas.errors import MeasurementRefused
from elastic_nas.measure import Protocol, Timing, measure
from elastic_nas.progress import track

GROUP_BYTES = 1_500_000_000
BYTES_A_WEIGHT_BYTE = 3
"""A prepared model holds its weights about three times: file, session, repacked."""
SESSION_BYTES = 1_000_000
MAX_POOLS = 16
"""Models at a time for a runtime with threads: each has its own, and all are watched."""
RETRIES = 2


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
    """

    name: str
    input_shape: tuple[int, ...]
    weight_bytes: int
    build: Callable[[], bytes]


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

    def time(self, title: str, jobs: list[Job]) -> Iterator[dict[str, Timing]]:
        """The accepted timings of one group after another, by job name.

        Raises:
            MeasurementRefused: Some job could not be timed honestly, in three attempts; its
                group's other timings were given before.
        """
        if not jobs:
            return
        steps = self.protocol.rounds + 1
        with track(title, len(jobs) * steps) as progress:
            for group in _groups(jobs, MAX_POOLS if self.runtime.owns_threads else len(jobs)):
                timings = self._time_group(group, progress.advance)
                yield {name: t for name, t in timings.items() if not t.refused}
                _refuse({name: t for name, t in timings.items() if t.refused}, title)

    def _time_group(self, group: list[Job], advance: Callable[[int], None]) -> dict[str, Timing]:
        runs = {}
        for job in group:
            runs[job.name] = self.runtime.prepare(job.build(), job.input_shape)
            advance(1)
        timings = self._measure(runs, advance)
        for _ in range(RETRIES):
            refused = [name for name, timing in timings.items() if timing.refused]
            if refused:
                timings |= self._measure({name: runs[name] for name in refused}, _silent)
        return timings

    def _measure(
        self, runs: dict[str, Callable[[], object]], advance: Callable[[int], None]
    ) -> dict[str, Timing]:
        start = time.monotonic()
        timings = self.stopwatch(runs, self.protocol, self.runtime.owns_threads, advance)
        self.device_s += time.monotonic() - start
        return timings


def _silent(_: int) -> None:
    pass


def _groups(jobs: list[Job], most: int) -> Iterator[list[Job]]:
    """Jobs in their order, as many at a time as fit in memory, and `most` at most."""
    group: list[Job] = []
    size = 0
    for job in jobs:
        need = BYTES_A_WEIGHT_BYTE * job.weight_bytes + SESSION_BYTES
        if len(group) == most or (group and size + need > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(job)
        size += need
    yield group


def _refuse(refused: dict[str, Timing], title: str) -> None:
    if refused:
        name, timing = next(iter(refused.items()))
        raise MeasurementRefused(
            f"{title}: {len(refused)} could not be timed honestly in {1 + RETRIES} attempts; "
            f"{name}: {timing.refused}.\n"
            "Close other programs, take a device with fewer threads, or try later. What was "
            "measured so far is kept; the same command goes on from there."
        )
