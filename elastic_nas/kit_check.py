"""What a kit's plan and result may hold: types, ranges and names, checked before they are used.

Standard library only, in the syntax of Python 3.8: the portable kit carries this file verbatim.
The importer (`latency.kit_model`) reads the same files by the same limits.
"""

from __future__ import annotations

import math
import re
from typing import Any, Callable, Dict  # noqa: UP035

PLAN_SCHEMA, RESULT_SCHEMA = "elastic-kit/1", "elastic-kit-result/1"
MIN_MS, MAX_MS = 1e-9, 5e5
"""Of any figure; told at another speed it is still one that a latency table takes."""
MAX_SIZE, MAX_CHOICES, MAX_THREADS = 1000000, 1000, 1024
MAX_ROUNDS = 10000
"""That may be planned; a model that is refused gets up to three times as many."""
MAX_SAMPLES = 100000
"""Of one round of a model."""
MAX_ROWS = 100000
"""Models of a part of a plan, and groups of a result."""
MAX_INPUT = 100000000
"""Numbers of a model's input."""
MAX_COUNT = 10**15
HASH = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
FILE = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}/){0,4}[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
ROLES = ("fit", "calibrate", "anchor")
PARTS = ("blocks", "children")

Check = Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """Whether a value is a short text that a terminal shows as it stands."""
    return type(value) is str and len(value) <= 500 and value.isprintable()


def whole(low: int, high: int = MAX_COUNT) -> Check:
    """A check for whole numbers from `low` to `high`."""
    return lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Check:
    """A check for numbers from `low` to `high`."""
    return lambda value: type(value) in (int, float) and low <= value <= high


def like(pattern: re.Pattern[str]) -> Check:
    """A check for texts of a form."""
    return lambda value: type(value) is str and pattern.fullmatch(value) is not None


def list_of(check: Check, most: int = MAX_ROUNDS, least: int = 0) -> Check:
    """A check for lists."""
    return lambda v: type(v) is list and least <= len(v) <= most and all(map(check, v))


def mapping_of(keys: Check, values: Check) -> Check:
    """A check for mappings."""
    return lambda value: (
        type(value) is dict
        and len(value) <= MAX_CHOICES
        and all(map(keys, value))
        and all(map(values, value.values()))
    )


Fields = Dict[str, Check]  # noqa: UP006


def fields(needed: Fields, optional: Fields | None = None) -> Check:
    """A check for mappings of exactly these fields."""
    known = {**needed, **(optional or {})}
    return lambda value: (
        type(value) is dict
        and needed.keys() <= value.keys() <= known.keys()
        and all(known[key](item) for key, item in value.items())
    )


def is_ms(value: Any) -> bool:
    """Whether a value can be a latency in milliseconds."""
    return type(value) in (int, float) and MIN_MS <= value < MAX_MS


def is_round(figures: Any) -> bool:
    """Whether a round's figures can be; see `kit_figures.round_of`."""
    if type(figures) is not list or len(figures) != 7:
        return False
    accepted, tried = figures[5:]
    if not whole(0, MAX_SAMPLES)(accepted) or not whole(1, MAX_SAMPLES)(tried):
        return False
    if not accepted:
        return figures[:4] == [None] * 4 and is_ms(figures[4])
    if accepted > tried or not all(map(is_ms, figures[:5])):
        return False
    ms, p10, p50, p90 = figures[:4]
    return bool(p10 <= p50 <= p90 and p10 <= ms <= p90)


def is_what(value: Any) -> bool:
    """Whether a value says what a model is: the empty one, a block, or a whole child."""
    word = lambda v: type(v) is bool or is_text(v) or whole(0, MAX_SIZE)(v)  # noqa: E731
    block = fields({"block": mapping_of(is_text, word)})
    genes = list_of(whole(0, MAX_CHOICES - 1), MAX_CHOICES, 1)
    child = fields({"genotype": genes, "role": lambda v: v in ROLES})
    return value == {} or block(value) or child(value)


def has_size(shape: Any) -> bool:
    """Whether a value can be the shape of a model's input, without the batch."""
    return list_of(whole(1, MAX_SIZE), 4, 1)(shape) and math.prod(shape) <= MAX_INPUT


PROTOCOL = fields(
    {
        "warmup": whole(1, MAX_CHOICES),
        "rounds": whole(1, MAX_ROUNDS),
        "accepted_per_round": whole(1, MAX_SAMPLES),
        "attempts_per_round": whole(1, MAX_SAMPLES),
        "max_wait_share": number(0, 1),
        "max_wait_s": number(0, 60),
        "min_accept": number(0, 1),
        "min_samples": whole(0, MAX_SIZE),
        "seed": whole(0),
        "sample_s": number(0, 60),
    }
)
NETWORK = fields({"space": is_text, "classes": whole(1, MAX_SIZE), "identity": is_text})
DRAW = fields(
    {"n_fit": whole(0, MAX_ROWS), "n_calibrate": whole(0, MAX_ROWS), "seed": whole(-MAX_COUNT)}
)
MODEL = fields(
    {
        "name": like(NAME),
        "file": like(FILE),
        "sha256": like(HASH),
        "input_shape": has_size,
        "weight_bytes": whole(0),
        "guess_ms": number(0, MAX_COUNT),
        "is": is_what,
    }
)
RUNTIME: Fields = {
    "name": is_text,
    "provider": is_text,
    "threads": whole(1, MAX_THREADS),
    "graph_optimization": is_text,
}
SHARED: Fields = {
    "device": is_text,
    "network": NETWORK,
    "draw": DRAW,
    "precision": is_text,
    "sha256": like(HASH),
}
"""Fields of a plan and of a result."""
PLAN: Fields = {
    **SHARED,
    "schema": lambda v: v == PLAN_SCHEMA,
    "protocol": fields({"blocks": PROTOCOL, "children": PROTOCOL}),
    "runtime": fields(RUNTIME),
    "session": mapping_of(is_text, is_text),
    "needs": fields({"numpy": is_text, "onnxruntime": is_text}),
    "input_seed": whole(0),
    "child_seconds": number(0, 3600),
    "max_rounds": whole(1, MAX_ROUNDS),
    "anchors": list_of(MODEL, MAX_CHOICES, 1),
    "blocks": list_of(MODEL, MAX_ROWS, 1),
    "children": list_of(MODEL, MAX_ROWS, 1),
    "files": mapping_of(like(FILE), like(HASH)),
}
MORE_OF_PLAN: Fields = {"profile": is_text}
"""What kits of version 0.1.0 lack: how the profile is named on the computer."""
STATE: Fields = {
    "load": list_of(number(0, MAX_SIZE)),
    "freq_khz": list_of(whole(0)),
    "thermal_c": list_of(number(-MAX_SIZE, MAX_SIZE)),
    "governor": is_text,
    "stolen_ticks": whole(0),
}
MACHINE = fields(
    {
        "arch": is_text,
        "cpu": is_text,
        "flags": list_of(is_text),
        "cores": whole(1, MAX_ROWS),
        "os": is_text,
    },
    {"memory_mb": whole(0), "cpu_limit": is_text, **STATE},
)
ROW = fields(
    {"name": like(NAME), "is": is_what, "rounds": list_of(is_round, 3 * MAX_ROUNDS)},
    {
        "ms": lambda v: v is None or is_ms(v),
        "contended_p90": lambda v: v is None or is_ms(v),
        "n": whole(0),
        "refused": is_text,
    },
)
GROUP = fields(
    {
        "part": lambda v: v in PARTS,
        "rounds": whole(1, MAX_ROUNDS),
        "rows": list_of(ROW, MAX_ROWS, 1),
    }
)
SECONDS = number(0, 1e9)
VISIT = fields(
    {"date": is_text, "device_s": SECONDS, "before": fields({}, STATE)},
    {"after": fields({}, STATE), "seconds": SECONDS, "stolen_share": number(0, 1)},
)
RESULT: Fields = {
    **SHARED,
    "schema": lambda v: v == RESULT_SCHEMA,
    "plan": like(HASH),
    "protocol": fields({"blocks": PROTOCOL, "children": PROTOCOL}),
    "runtime": fields({**RUNTIME, "version": is_text}),
    "libraries": mapping_of(is_text, is_text),
    "filter": is_text,
    "environment": MACHINE,
    "visits": list_of(VISIT),
    "groups": list_of(GROUP, MAX_ROWS, 1),
    "complete": lambda v: type(v) is bool,
}


def problem_of(content: dict[str, Any], needed: Fields, optional: Fields | None = None) -> str:
    """Which field of a plan or a result is missing, unknown or cannot be; nothing if none."""
    known = {**needed, **(optional or {})}
    for key in (*needed, *content):
        if key not in known:
            return "it has an unknown field"
        if key not in content:
            return f"it lacks {key!r}"
        if not known[key](content[key]):
            return f"its {key!r} cannot be"
    return ""


def problem_of_plan(plan: dict[str, Any]) -> str:
    """What is wrong with a plan, or nothing."""
    found = problem_of(plan, PLAN, MORE_OF_PLAN)
    if found:
        return found
    names = [model["name"] for part in ("anchors", *PARTS) for model in plan[part]]
    return "" if len(set(names)) == len(names) else "two of its models have one name"


def problem_of_result(result: dict[str, Any], plan: dict[str, Any]) -> str:
    """What is wrong with a result, or nothing; that of this plan has the plan's models."""
    found = problem_of(result, RESULT)
    if found or result["plan"] != plan["sha256"]:
        return found
    models = {model["name"]: model["is"] for part in ("anchors", *PARTS) for model in plan[part]}
    rows = [row for group in result["groups"] for row in group["rows"]]
    if any(row["name"] not in models or row["is"] != models[row["name"]] for row in rows):
        return "it holds models that the plan has not"
    anchors = {model["name"] for model in plan["anchors"]}
    others = sorted(row["name"] for row in rows if row["name"] not in anchors)
    if others != sorted(models.keys() - anchors):
        return "a model of the plan is missing or stands there twice"
    return ""
