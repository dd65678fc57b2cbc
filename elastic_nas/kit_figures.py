"""What a kit's result holds: rounds of figures, and what they come to.

Standard library only, in the syntax of Python 3.8: the portable kit carries this file verbatim,
and the importer reads results through it.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import statistics
from typing import Any

from elastic_nas.measure import Protocol, Timing

ATTEMPTS = 3
"""A model that is refused gets as many rounds again, up to this many times."""
MAX_MOVE = 0.10
"""How far the machine's speed may differ between groups."""
LEAST_ANCHORS = 3
MAX_MODELS, MAX_POOLS = 120, 16
"""Models in memory at a time: a killed run loses a round over them; thread pools are watched."""
BYTES_A_WEIGHT_BYTE, SESSION_BYTES = 3, 4000000
"""What a loaded model takes: weights, their repacked form, activations. 109 children of bignas, of
28 MB on average, took 9.2 GB."""


def digest(content: dict[str, Any]) -> str:
    """Hex SHA-256 of a JSON object but for its own ``sha256``."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def import_command(kit: dict[str, Any], file: str = "result.json") -> str:
    """What is to be run where elastic-nas is installed, once the device was measured.

    Args:
        kit: The kit's plan, or what else names its device and its network.
        file: What was measured.
    """
    network = kit["network"]
    words = ["elastic-nas", "profile", kit.get("profile") or kit["device"]]
    words += ["--space", network["space"], "--classes", str(network["classes"])]
    return " ".join(shlex.quote(word) for word in [*words, "--import", file])


def round_of(timing: Timing, attempts: int) -> list[Any]:
    """One round's figures as they are stored.

    Args:
        timing: Of one round.
        attempts: Samples that were tried if none was accepted.

    Returns:
        ms, p10, p50, p90 (None if none was accepted), contended p90, accepted, tried.
    """
    values = (timing.ms, timing.p10, timing.p50, timing.p90, timing.contended_p90)
    tried = round(timing.n / timing.accept) if timing.n else attempts
    short = [float(f"{v:.6g}") if math.isfinite(v) else None for v in values]
    return [*short, timing.n, tried]


def merged(rounds: list[list[Any]], protocol: Protocol) -> Timing:
    """The figures of all rounds: medians over those that accepted something."""
    good = [r for r in rounds if r[5]]
    n, tried = sum(r[5] for r in rounds), sum(r[6] for r in rounds)
    refused = ""
    if n < protocol.min_samples or n < protocol.min_accept * tried:
        refused = (
            f"{n} of {tried} samples were undisturbed; {protocol.min_samples} and "
            f"{protocol.min_accept:.0%} are needed: the machine is busy"
        )
    columns = [[r[i] for r in (good if i < 4 else rounds)] for i in range(5)]
    ms, p10, p50, p90, contended = (statistics.median(c) if c else math.nan for c in columns)
    return Timing(
        ms, p10, p50, p90, contended, n, n / max(tried, 1), round_ms=columns[0], refused=refused
    )


def filter_of(rule: str, protocol: Protocol) -> str:
    """Which samples count, in words."""
    share, limit_us = protocol.max_wait_share, protocol.max_wait_s * 1e6
    return f"{rule} (at most {share:.0%} or {limit_us:g} us a sample)"


def visits_left(rounds: list[list[Any]], planned: int, protocol: Protocol) -> int:
    """How often a model is still to be measured: at least once more where it is refused."""
    again = len(rounds) < ATTEMPTS * planned and bool(merged(rounds, protocol).refused)
    return max(planned - len(rounds), int(again))


def speeds(groups: list[dict[str, float]]) -> list[float]:
    """How long the anchors of each group take, in multiples of the middle group.

    Args:
        groups: For each group, ms by the anchor's name.

    Returns:
        The median over the anchors; NaN for a group with fewer than three.
    """
    middle = middle_ms(groups)
    least = max(1, min(LEAST_ANCHORS, len(middle)))
    ratios = [[ms / middle[name] for name, ms in group.items()] for group in groups]
    return [statistics.median(r) if len(r) >= least else math.nan for r in ratios]


def middle_ms(groups: list[dict[str, float]]) -> dict[str, float]:
    """What each anchor takes, the median over the groups."""
    names = {name for group in groups for name in group}
    return {name: statistics.median([g[name] for g in groups if name in g]) for name in names}


def anchors_ms(rows: list[dict[str, Any]], protocol: Protocol) -> dict[str, float]:
    """What the anchors among a group's rows take, but for refused ones."""
    anchors = {r["name"]: merged(r["rounds"], protocol) for r in rows if is_anchor(r)}
    return {name: timing.ms for name, timing in anchors.items() if not timing.refused}


def is_anchor(row: dict[str, Any]) -> bool:
    """Whether a row is one of those that tell the machine's speed."""
    return bool(row["is"].get("role") == "anchor")


def moved(factor: float) -> bool:
    """Whether a group's speed is unknown, or too far from the others'."""
    return not abs(factor - 1) <= MAX_MOVE


def grouped(plan: dict[str, Any], memory: int) -> list[dict[str, Any]]:
    """The models, as many at a time as fit in memory beside the anchors; blocks, then children.

    Args:
        plan: The kit's plan.
        memory: Bytes that may be used.

    Returns:
        Groups of a part of the plan, a number of rounds, and rows without figures.
    """
    anchors = plan["anchors"]
    most = (MAX_POOLS if plan["runtime"]["threads"] > 1 else MAX_MODELS) - len(anchors)
    groups = []
    for part in ("blocks", "children"):
        waiting = list(plan[part])
        while waiting:
            fitting, size = 1, sum(map(_bytes, [*anchors, waiting[0]]))
            for model in waiting[1:most]:
                size += _bytes(model)
                if size > memory:
                    break
                fitting += 1
            rows = [
                {"name": model["name"], "is": model["is"], "rounds": []}
                for model in anchors + waiting[:fitting]
            ]
            rounds = plan["protocol"][part]["rounds"]
            groups.append({"part": part, "rounds": rounds, "rows": rows})
            waiting = waiting[fitting:]
    return groups


def _bytes(model: dict[str, Any]) -> int:
    return int(BYTES_A_WEIGHT_BYTE * model["weight_bytes"] + SESSION_BYTES)
