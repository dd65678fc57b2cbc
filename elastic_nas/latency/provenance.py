"""Provenance of a latency table: where, when and how its figures were taken."""

import os
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from elastic_nas._version import __version__
from elastic_nas.files import PACKAGE
from elastic_nas.latency.bench import Bench, Job
from elastic_nas.latency.devices import Device
from elastic_nas.latency.micromodels import null_model
from elastic_nas.latency.speed import Speed
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import environment, process_clock, thread_clock

if TYPE_CHECKING:
    from elastic_nas.network import Network


def fresh_table(device: Device, bench: Bench, facts: dict[str, Any]) -> LatencyTable:
    """An empty table with its provenance."""
    protocol = bench.protocol
    clock = process_clock() if bench.runtime.owns_threads else thread_clock()
    null = Job("null", (1,), 0, null_model)
    (timings,) = bench.time("timing the empty model", [null])
    return LatencyTable(
        device={"name": device.name, **facts},
        runtime=bench.runtime.describe(),
        precision=device.precision,
        protocol={
            "warmup": protocol.warmup,
            "rounds": protocol.rounds,
            "accepted_per_round": protocol.accepted_per_round,
            "filter": f"{clock.rule} (at most {protocol.max_wait_share:.0%} or "
            f"{protocol.max_wait_s * 1e6:g} us a sample)",
            "statistic": "median of round medians",
            "sample_us": protocol.sample_s * 1e6,
            "children": "half as many samples a round; more rounds where children are short",
            "seed": protocol.seed,
        },
        provenance={
            "date": _now(),
            "commit": _commit(),
            "version": __version__,
            "null_ms": timings["null"].ms,
            "anchors": {},
            "device_s": 0.0,
            "visits": [],
        },
    )


@dataclass
class Visit:
    """One profiling run: what the machine was like before and after, for the table's record."""

    before: dict[str, Any] = field(default_factory=environment)
    started: float = field(default_factory=time.monotonic)

    def record(self, device_s: float, speeds: list[Speed]) -> dict[str, Any]:
        """The run as it stands in a table.

        Args:
            device_s: Seconds of timing.
            speeds: What the anchors told, group by group.
        """
        after = environment()
        seconds = time.monotonic() - self.started
        factors = [speed.factor for speed in speeds]
        changing = ("load", "freq_khz", "thermal_c", "governor")
        return {
            "date": _now(),
            "device_s": round(device_s, 1),
            "speed": [round(min(factors), 4), round(max(factors), 4)] if factors else [],
            "stolen_share": _stolen_share(self.before, after, seconds),
            "before": {key: self.before[key] for key in changing if key in self.before},
            "after": {key: after[key] for key in changing if key in after},
        }


def _stolen_share(before: dict[str, Any], after: dict[str, Any], seconds: float) -> float | None:
    """The share of all processors' time that a hypervisor gave to others; None if untold."""
    if "stolen_ticks" not in before or "stolen_ticks" not in after or seconds <= 0:
        return None
    ticks = seconds * os.sysconf("SC_CLK_TCK") * after["cores"]
    return float(round((after["stolen_ticks"] - before["stolen_ticks"]) / ticks, 4))


def complete(table: LatencyTable, network: "Network", visit: dict[str, Any]) -> None:
    """Complete the provenance with a profiling run's record, and the network's name."""
    known = table.provenance
    table.provenance |= {
        "date": visit["date"],
        "commit": _commit(),
        "version": __version__,
        "device_s": round(known.get("device_s", 0.0) + visit["device_s"], 1),
        "visits": [*known.get("visits", []), visit],
        "spaces": {**known.get("spaces", {}), network.identity: network.space_name},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _commit() -> str:
    """The checkout's commit, or nothing outside one."""
    if not (PACKAGE.parent / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=PACKAGE.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
