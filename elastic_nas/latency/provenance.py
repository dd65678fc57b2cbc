"""Provenance of a latency table: where, when and how its figures were taken."""

import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from elastic_nas._version import __version__
from elastic_nas.files import PACKAGE
from elastic_nas.latency.bench import Bench, Job
from elastic_nas.latency.devices import Device
from elastic_nas.latency.micromodels import null_model
from elastic_nas.latency.plan import ANCHORS
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
            "load_before": facts.get("load", []),
            "device_s": 0.0,
        },
    )


def complete(network: "Network", table: LatencyTable, device_s: float) -> None:
    """Complete the provenance: date, load, time spent, anchor children."""
    children = [r for r in table.children if (r.space, r.role) == (network.identity, "fit")]
    children.sort(key=lambda row: row.ms)
    spread = np.unique(np.linspace(0, len(children) - 1, ANCHORS).round().astype(int))
    anchors = [
        {"classes": row.classes, "genotype": list(row.genotype), "ms": row.ms}
        for row in (children[i] for i in spread)
    ]
    table.provenance |= {
        "date": _now(),
        "commit": _commit(),
        "version": __version__,
        "load_after": environment().get("load", []),
        "device_s": round(table.provenance.get("device_s", 0.0) + device_s, 1),
        "anchors": {**table.provenance["anchors"], network.identity: anchors},
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
