"""What the scripts of a kit print on devices without Python, as the content of a kit's result.

Sources: ``DumpToFile`` in onnxruntime/test/perftest/performance_runner.h of
github.com/microsoft/onnxruntime; ``BenchmarkModel::LogResults`` in
tensorflow/lite/tools/benchmark/benchmark_model.cc of github.com/tensorflow/tensorflow.
"""

import re
from typing import Any

from elastic_nas.errors import TableError
from elastic_nas.kit_check import MAX_SAMPLES, PARTS, RESULT_SCHEMA
from elastic_nas.kit_figures import digest
from elastic_nas.latency.kit_model import checked_plan
from elastic_nas.machine import cpu_info, cpu_name, vector_flags
from elastic_nas.outside import parse_json

FIRST = "== elastic-kit "
UNFILTERED = "none: all samples count, as the program does not tell which were disturbed"
COPIED = ("device", "network", "draw", "precision")
NUMBER = r"([0-9]{1,15}(?:\.[0-9]{0,20})?(?:e[+-]?[0-9]{1,3})?)(?![0-9.])"
MOST_CHARACTERS = 65536
"""Of what a program prints about one model: its figures stand at the end."""
RUNS = 50
WARMUP = {"onnxruntime": 1, "litert": 3}


def is_output(head: str) -> bool:
    """Whether a text begins like such an output."""
    return head.startswith(FIRST)


def content_of(text: str) -> dict[str, Any]:
    """The content of a kit's result, in the form that `kit_run` writes.

    Raises:
        TableError: The output is damaged, or holds no figures of some model.
    """
    name, _, rest = text.replace("\r\n", "\n").removeprefix(FIRST).partition(" ")
    version, _, body = rest.partition("\n")
    if name not in WARMUP:
        raise TableError(f"it comes from {name[:40]!r}, not from one of {', '.join(WARMUP)}.")
    sections = [section.partition("\n") for section in re.split(r"(?m)^== ", body)[1:]]
    pairs = [(title.strip(), output) for title, _, output in sections]
    named = dict(pairs)
    if not {"plan", "machine"} <= named.keys():
        raise TableError("it lacks the plan or the machine: run the script again.")
    plan = _plan(named["plan"])
    figures = _figures(name, pairs, plan)
    provider = plan["runtime"]["provider"] if name == "onnxruntime" else "CPU"
    rounds = max([1, *map(len, figures.values())])
    protocol = {"warmup": WARMUP[name], "rounds": rounds, "accepted_per_round": RUNS}
    rows = [
        {"name": model["name"], "is": model["is"], "rounds": figures[_title(model)]}
        for model in _models(plan)
    ]
    return {
        "schema": RESULT_SCHEMA,
        "sha256": plan["sha256"],
        "plan": plan["sha256"],
        **{key: plan[key] for key in COPIED},
        "protocol": {part: {**plan["protocol"]["blocks"], **protocol} for part in PARTS},
        "runtime": {**plan["runtime"], "name": name, "provider": provider, "version": version},
        "filter": UNFILTERED,
        **_machine(named["machine"]),
        "groups": [{"part": "blocks", "rounds": rounds, "rows": rows}],
        "complete": "end" in named,
    }


def _plan(text: str) -> dict[str, Any]:
    """The plan, as the script printed it."""
    try:
        plan = parse_json(text)
        sound = plan["sha256"] == digest(plan)
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise TableError("its plan is damaged: run the script again.")
    try:
        checked_plan(plan)
    except TableError as error:
        raise TableError(f"its plan cannot be: {error}") from error
    return dict(plan)


def _models(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [*plan["anchors"], *plan["blocks"], *plan["children"]]


def _title(model: dict[str, Any]) -> str:
    """How the script names a model: an anchor by the child that it is."""
    file: str = model["file"]
    return file.removeprefix("models/").removesuffix(".onnx")


def _figures(
    name: str, sections: list[tuple[str, str]], plan: dict[str, Any]
) -> dict[str, list[list[Any]]]:
    """The rounds of each of the plan's models, by its title."""
    figures: dict[str, list[list[Any]]] = {_title(model): [] for model in _models(plan)}
    for title, output in sections:
        kind, _, model = title.partition(" ")
        if kind != "model":
            continue
        if model not in figures:
            raise TableError(f"it has figures of {model[:100]!r}, which its plan has not.")
        figures[model].append(_round(name, title, output[-MOST_CHARACTERS:]))
    return figures


def _machine(text: str) -> dict[str, Any]:
    """``date``, ``uname -m``, ``uname -sr`` and ``/proc/cpuinfo``: environment and visit."""
    date, arch, system, cpus = (*text.split("\n", 3), "", "", "", "")[:4]
    info = cpu_info(cpus)
    environment = {
        "arch": arch.strip(),
        "os": system.strip(),
        "cpu": cpu_name(info) or "unknown",
        "flags": vector_flags(info),
        "cores": max(1, len(re.findall(r"(?m)^processor\s*:", cpus))),
    }
    untold: dict[str, Any] = {"device_s": 0.0, "seconds": 0.0, "before": {}, "after": {}}
    return {"environment": environment, "visits": [{"date": date.strip(), **untold}]}


def _round(name: str, title: str, output: str) -> list[Any]:
    """One run of the program: ms, p10, p50, p90, contended p90, accepted, tried."""
    found = _perf_test(output) if name == "onnxruntime" else _benchmark_model(output)
    if found is None:
        raise TableError(f"there are no figures of {title}, but: {output.strip()[-200:]!r}.")
    least, middle, high, n = found
    return [middle, min(least, middle), middle, max(high, middle), max(high, middle), n, n]


def _perf_test(output: str) -> tuple[float, float, float, int] | None:
    """Milliseconds: minimum, median, 90th percentile; and number of runs."""
    found = [
        re.search(rf"{what} Latency(?: is|:) *{NUMBER} *s", output)
        for what in ("Min", "P50", "P90")
    ]
    runs = re.search(r"(?:Runs|Total iterations|Total inference requests): *([0-9]{1,30})", output)
    if not all(found):
        return None
    least, middle, high = (1e3 * float(match[1]) for match in found if match)
    return least, middle, high, min(int(runs[1]), MAX_SAMPLES) if runs else RUNS


def _benchmark_model(output: str) -> tuple[float, float, float, int] | None:
    """Milliseconds: minimum, median or else mean, 95th percentile or else maximum; and runs."""
    lines = [line for line in output.splitlines() if "count=" in line and "min=" in line]
    if not lines or "Inference timings in us" not in output:
        return None
    values = {
        key: float(value) for key, value in re.findall(rf"\b(\w{{1,20}})={NUMBER}", lines[-1])
    }
    if not {"count", "min", "max", "avg"} <= values.keys():
        return None
    middle, high = values.get("median", values["avg"]), values.get("p95", values["max"])
    return values["min"] / 1e3, middle / 1e3, high / 1e3, int(min(values["count"], MAX_SAMPLES))
