"""The measuring of a kit: what is due, round by round; the result is kept after each of them.

Standard library only, in the syntax of Python 3.8: the portable kit carries this file verbatim.
"""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import replace
from typing import Any, Callable  # noqa: UP035

from elastic_nas.kit_check import PARTS, RESULT_SCHEMA, problem_of_result
from elastic_nas.kit_device import available_memory, load, record, state
from elastic_nas.kit_figures import (
    anchors_ms,
    filter_of,
    grouped,
    import_command,
    is_anchor,
    merged,
    moved,
    round_of,
    speeds,
    visits_left,
)
from elastic_nas.kit_files import KitError, check_writable, read_json, write_json
from elastic_nas.machine import environment, signature
from elastic_nas.measure import Protocol, measure, process_clock, thread_clock

COPIED = ("device", "network", "draw", "precision", "protocol")
PASSES = 3
"""Times that a group is measured whose speed is too far from the others'."""
WARMUP_AGAIN = 2
"""Runs before the samples of a later round; two, so that one is warm."""
SECONDS_BETWEEN_LINES = 15.0
LEAST_GUESS_MS = 0.2
"""A visit takes at least as long as this would, whatever its model."""


class OutOfTimeError(Exception):
    """The time that was given is over."""


class Measuring:
    """The measuring of one kit; its result is stored after every round.

    Args:
        plan: The kit's plan.
        folder: Where the kit lies.
        out: The result's file.
        seconds: How long to measure at most.
    """

    def __init__(self, plan: dict[str, Any], folder: str, out: str, seconds: float) -> None:
        self.plan, self.folder, self.out, self.seconds = plan, folder, out, seconds
        self.started = self.said = time.monotonic()
        self.models = {m["name"]: m for part in ("anchors", *PARTS) for m in plan[part]}
        self.protocols = {part: Protocol(**plan["protocol"][part]) for part in PARTS}
        self.owns_threads = plan["runtime"]["threads"] > 1
        self.result: dict[str, Any] = {}
        self.visit: dict[str, Any] = {}
        self.done = 0.0

    def start(self, versions: dict[str, str]) -> None:
        """Begin, or go on where the result stops.

        Raises:
            KitError: The result is not this kit's, this machine's and this runtime's.
        """
        here = environment()
        clock = process_clock() if self.owns_threads else thread_clock()
        if clock.problem:
            raise KitError(clock.problem + ".")
        self.result = {
            "schema": RESULT_SCHEMA,
            "plan": self.plan["sha256"],
            **{key: self.plan[key] for key in COPIED},
            "runtime": {**self.plan["runtime"], "version": versions["onnxruntime"]},
            "libraries": {**versions, "python": sys.version.split()[0]},
            "filter": filter_of(clock.rule, self.protocols["blocks"]),
            "environment": here,
            "visits": [],
        }
        check_writable(self.out)
        if os.path.lexists(self.out):
            self.result = self._continued(self.result)
        else:
            self.result["groups"] = grouped(self.plan, available_memory() // 2)
        date = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        self.visit = {"date": date, "device_s": 0.0, "before": state()}
        self.result["visits"].append(self.visit)

    def _continued(self, fresh: dict[str, Any]) -> dict[str, Any]:
        """What was measured before, of this kit on this machine with this runtime."""
        advice = "move it away, or choose another file with --out"
        old = read_json(self.out, RESULT_SCHEMA, advice)
        problem = problem_of_result(old, self.plan)
        if problem:
            raise KitError(f"{self.out} is damaged, {problem}: {advice}.")
        facts = {"kit": "plan", "runtime": "runtime"}
        differing = [what for what, key in facts.items() if old[key] != fresh[key]]
        if signature(old["environment"]) != signature(fresh["environment"]):
            differing.append("machine")
        if differing:
            raise KitError(f"{self.out} was measured with another {differing[0]}: {advice}.")
        return old

    def measure_all(self) -> None:
        """Measure what is due, then groups again whose speed is too far from the others'."""
        groups = self.result["groups"]
        if not self.left():
            self._forget([row for group in groups for row in group["rows"] if row.get("refused")])
        for repeat in range(PASSES):
            strays = self.strays() if repeat else []
            self._forget([row for group in strays for row in group["rows"]])
            for group in groups:
                self._measure_group(group)

    def strays(self) -> list[dict[str, Any]]:
        """Groups whose speed is too far from the others'."""
        groups = self.result["groups"]
        factors = speeds([anchors_ms(g["rows"], self.protocols[g["part"]]) for g in groups])
        return [g for g, factor in zip(groups, factors) if moved(factor)]  # noqa: B905 (3.10)

    def _forget(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            say(f"measuring {len(rows)} models again: the machine was busy or changed its speed.")
        for row in rows:
            row["rounds"] = []

    def _measure_group(self, group: dict[str, Any]) -> None:
        """Measure what is due of a group, round by round."""
        protocol, rows = self.protocols[group["part"]], group["rows"]
        if group["part"] == "children" and not any(row["rounds"] for row in rows):
            group["rounds"] = self._rounds_for_children()
        runs: dict[str, Callable[[], object]] = {}
        warmup = protocol.warmup
        while any(self._visits(group, row) for row in rows):
            due = [row for row in rows if is_anchor(row) or self._visits(group, row)]
            for row in due:
                if row["name"] not in runs:
                    self._advance()
                    runs[row["name"]] = load(self.models[row["name"]], self.plan, self.folder)
            number = max(len(row["rounds"]) for row in due)
            once = replace(protocol, rounds=1, warmup=warmup, seed=protocol.seed + number)
            self._measure_round(once, due, runs)
            warmup = WARMUP_AGAIN

    def _measure_round(
        self, once: Protocol, rows: list[dict[str, Any]], runs: dict[str, Callable[[], object]]
    ) -> None:
        start = time.monotonic()
        chosen = {row["name"]: runs[row["name"]] for row in rows}
        timings = measure(chosen, once, self.owns_threads, self._advance)
        self.visit["device_s"] += time.monotonic() - start
        for row in rows:
            row["rounds"].append(round_of(timings[row["name"]], once.attempts_per_round))
            self.done += self._cost(row)
        self.save()

    def _rounds_for_children(self) -> int:
        """More rounds where children are short, told by the anchors so far."""
        times = anchors_ms(self.result["groups"][0]["rows"], self.protocols["blocks"]).values()
        least, most = self.protocols["children"].rounds, self.plan["max_rounds"]
        if not times:
            return least
        samples = self.protocols["children"].accepted_per_round + 1
        rounds = int(self.plan["child_seconds"] / (1e-3 * sum(times) / len(times) * samples))
        return int(min(max(rounds, least), most))

    def _visits(self, group: dict[str, Any], row: dict[str, Any]) -> int:
        return visits_left(row["rounds"], group["rounds"], self.protocols[group["part"]])

    def left(self) -> int:
        """Visits to models that are still to be made."""
        return sum(self._visits(g, row) for g in self.result["groups"] for row in g["rows"])

    def _cost(self, row: dict[str, Any]) -> float:
        return float(max(self.models[row["name"]]["guess_ms"], LEAST_GUESS_MS))

    def _advance(self, _: int = 0) -> None:
        """Say how far it is now and then, and stop when time is up."""
        now = time.monotonic()
        if now - self.started > self.seconds:
            raise OutOfTimeError(f"{self.seconds:g} seconds are over")
        if now - self.said >= SECONDS_BETWEEN_LINES:
            self.said = now
            pairs = [(group, row) for group in self.result["groups"] for row in group["rows"]]
            cost = sum(self._cost(row) * self._visits(group, row) for group, row in pairs)
            minutes, seconds = divmod(int((now - self.started) * cost / max(self.done, 1e-9)), 60)
            about = f", about {minutes}:{seconds:02} left" if self.done else ""
            say(f"{self.left()} visits to models to go{about}")

    def save(self) -> None:
        """Write the result atomically, with what every row comes to so far."""
        for group in self.result["groups"]:
            for row in group["rows"]:
                timing = merged(row["rounds"], self.protocols[group["part"]])
                row.update(ms=_known(timing.ms), contended_p90=_known(timing.contended_p90))
                row.update(n=timing.n, refused=timing.refused)
        record(self.visit, time.monotonic() - self.started)
        self.result["complete"] = not self.left()
        write_json(self.out, self.result)


def _known(ms: float) -> float | None:
    return ms if math.isfinite(ms) else None


def say(message: str) -> None:
    """One line for the person who waits, on standard error."""
    print(message, file=sys.stderr, flush=True)


def summary(measuring: Measuring) -> str:
    """What was measured, what was not, and what to do next."""
    rows = [row for group in measuring.result["groups"] for row in group["rows"]]
    refused = [row for row in rows if row["refused"]]
    lines = [f"measured {len({row['name'] for row in rows})} models: {measuring.out}"]
    if refused:
        lines.append(
            f"{len(refused)} could not be timed honestly; {refused[0]['name']}: "
            f"{refused[0]['refused']}. Close other programs and run the same command again: it "
            "measures only these. Their contended_p90, the slowest tenth of all samples, disturbed "
            "ones too, never enters a table."
        )
    strays = len(measuring.strays())
    if strays:
        lines.append(
            f"The machine's speed moved by more than a tenth in {strays} groups. Let it cool, fix "
            "its frequency (governor performance), and run the same command again."
        )
    if not strays and all("role" in row["is"] for row in refused):  # children can be spared
        command = import_command(measuring.plan, os.path.basename(measuring.out))
        lines.append(f"Next, on your computer: {command}")
    return "\n".join(lines)
