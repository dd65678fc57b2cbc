"""Latency tables: ours, of other projects, of kits; what a kit reads on the board."""

import csv
import json
import math
import re
import shutil
import sys
from functools import cache
from io import StringIO
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any
from unittest.mock import patch

import numpy as np
import test_foreign_nn_meter as nn_meter
import test_foreign_ofa as ofa
import test_latency_imports as imports
import yaml
from made_spaces import DEVICE as NOTE10
from made_spaces import PROXYLESS, network_of
from small_kit import BOARD, unpacked
from small_kit import NETWORK as KIT_NETWORK
from small_kit import written as kit_written

from elastic_nas import kit_measuring, kit_run
from elastic_nas.genotype import sample
from elastic_nas.kit_figures import digest
from elastic_nas.latency.imports import import_table
from elastic_nas.latency.kit_result import read_result
from elastic_nas.latency.kit_table import table_from
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Timing
from elastic_nas.network import Network
from fuzzing.kinds import Kind, RefusedError, check_text, command, same, unchanged_json
from fuzzing.run_kinds import written
from fuzzing.seeds import DEVICE, Seeds

TINY = Network("tiny:size=8", 10)


@cache
def _kit(seeds: Seeds) -> Path:
    """A small kit, unpacked."""
    return unpacked(kit_written(seeds.folder / "kit.zip"), seeds.folder / "kit")


# --- our tables ----------------------------------------------------------------------------------


def table(seeds: Seeds) -> Kind:
    path = seeds.run / "latency_tables" / f"{DEVICE}.json"
    children = np.array([sample(TINY.dims, Random(i)) for i in range(40)])

    def read(content: bytes, folder: Path) -> Any:
        place = written(folder, "table.json", content)
        table = LatencyTable.read(place)
        predictor = Predictor(TINY, table)
        predicted, bounds = predictor.predict_ms(children), predictor.bound_ms(children)
        words = ("predict", DEVICE, "tiny:size=8", "--classes", 10, "--table", place, "--json")
        told = json.loads(command(*words)) if len(content) % 4 == 0 else {}
        return table, predicted, bounds, told

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        table, predicted, bounds, told = result
        said = json.loads(content.decode("utf-8-sig"))
        rows = [{"key": spec.key, **_fields(row)} for spec, row in table.blocks.items()]
        found = {"blocks": rows, "children": [_fields(row) for row in table.children]}
        parts = ("device", "runtime", "protocol", "provenance", "precision")
        found |= {part: getattr(table, part) for part in parts}
        if wrong := same(found, {key: said[key] for key in found}):
            return wrong
        if not (np.isfinite(predicted).all() and (predicted > 0).all()):
            return f"predicts {predicted.min()} to {predicted.max()} ms"
        if (bounds < predicted).any():
            return "a bound below its prediction"
        if told and not 0 < told["latency_ms"] <= told["bound_ms"] < math.inf:
            return f"told {told['latency_ms']} and {told['bound_ms']}"
        return _contradicted(table)

    return Kind("latency table", path.read_bytes(), read, judge, "json", share=0.6)


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in type(row).__slots__}


def _contradicted(table: LatencyTable) -> str:
    """Whether the table's own children are predicted half or twice as long as they took."""
    rows = [row for row in table.children if row.space == TINY.identity]
    if not rows:
        return ""
    ms = np.array([row.ms for row in rows])
    ratios = Predictor(TINY, table).predict_ms(np.array([r.genotype for r in rows])) / ms
    middle = float(np.median(ratios))
    return "" if 0.5 < middle < 2 else f"its own children take {1 / middle:.3g} of the prediction"


# --- tables of others ----------------------------------------------------------------------------


def _imported(table: LatencyTable, network: Network, folder: Path) -> LatencyTable:
    """The table as its next reader finds it."""
    table.write(folder / "made.json")
    again = LatencyTable.read(folder / "made.json")
    if network is KIT_NETWORK:  # one child, which is predicted by the model of its whole space
        return again
    predicted = Predictor(network, again).predict_ms(np.array([network.largest, network.smallest]))
    assert (predicted > 0).all(), "predicts what cannot be"
    return again


def _cells(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(content.decode("utf-8-sig"), newline="")))


def _close(found: float, said: float) -> bool:
    return math.isclose(found, said, rel_tol=1e-6)


def blocks_csv(seeds: Seeds) -> Kind:
    path = imports.block_csv(seeds.folder / "blocks.csv", TINY)

    def read(content: bytes, folder: Path) -> Any:
        place = written(folder, "blocks.csv", content)
        return _imported(import_table(place, TINY, NOTE10)[0], TINY, folder)

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        told: dict[Any, list[float]] = {}
        for row in _cells(content):
            key = {k: v for k, v in row.items() if k not in ("ms", "n", "file") and v}
            told.setdefault(_folded(key), []).append(float(row["ms"]))
        for spec, row in result.blocks.items():
            ms = told.get(_folded({name: str(value) for name, value in spec.key.items()}))
            if not ms or not _close(row.ms, fmean(ms)):
                return f"{spec.key} takes {row.ms}, and is told as {ms}"
        return ""

    return Kind("CSV of blocks", path.read_bytes(), read, judge, "csv")


def _folded(key: dict[str, str]) -> Any:
    """A block as it is told, apart from the ways to write a number and true."""
    digits = {name: v for name, v in key.items() if v.isascii() and v.isdigit()}
    plain = {name: str(int(v)) for name, v in digits.items()}
    return tuple(sorted(({name: v.lower() for name, v in key.items()} | plain).items()))


def children_csv(seeds: Seeds) -> Kind:
    blocks = imports.block_csv(seeds.folder / "of_blocks.csv", TINY)
    raw = Predictor(TINY, import_table(blocks, TINY, NOTE10)[0])
    rows = imports.child_rows(TINY, raw, "fit", 12, "fit")
    path = imports.child_csv(seeds.folder / "children.csv", rows)

    def read(content: bytes, folder: Path) -> Any:
        place = written(folder, "children.csv", content)
        return _imported(import_table(blocks, TINY, NOTE10, children=place)[0], TINY, folder)

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said = [(row["genotype"].replace(" ", ""), float(row["ms"])) for row in _cells(content)]
        found = [(",".join(map(str, row.genotype)), row.ms) for row in result.children]
        if len(found) != len(said):
            return f"{len(found)} children for {len(said)}"
        return next(
            (f"{a} for {b}" for a, b in zip(found, said, strict=True) if not _close(a[1], b[1])), ""
        )

    return Kind("CSV of children", path.read_bytes(), read, judge, "csv")


def kernels(seeds: Seeds) -> Kind:
    network = network_of(seeds.folder / "proxyless", PROXYLESS.replace("SE", "False"))
    kernels = nn_meter.kernel_rows(network)
    lines = [
        f"{row[0]}_{n:x}.tflite,{','.join(map(str, row[1:]))},0.5,{n}"
        for n, row in enumerate(kernels, 1)
    ]
    content = "\n".join([nn_meter.KERNEL_HEADER, *lines, ""]).encode()

    def read(changed: bytes, folder: Path) -> Any:
        place = written(folder, "kernels.csv", changed)
        return _imported(import_table(place, network, NOTE10)[0], network, folder)

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        total = sum(float(row["latency"]) for row in _cells(changed) if row["latency"])
        wrong = [row.ms for row in result.blocks.values() if not 0 < row.ms <= 4.01 * total]
        return f"a block of {wrong[0]} ms" if wrong else ""

    return Kind("nn-Meter CSV", content, read, judge, "csv")


def ofa_yaml(seeds: Seeds) -> Kind:
    network = network_of(seeds.folder / "note10", ofa.NOTE10.replace("(160, 164)", "(160,)"))
    content = yaml.safe_dump(ofa.v3_rows(160)).encode()
    keys = ofa.v3_keys(network.settings(network.largest))

    def read(changed: bytes, folder: Path) -> Any:
        place = written(folder, "160_lookup_table.yaml", changed)
        table, _ = import_table(place, network, NOTE10, expand="channels")
        table = _imported(table, network, folder)
        return float(Predictor(network, table).predict_ms(np.array([network.largest]))[0])

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        from elastic_nas.yaml_file import parse_yaml

        said = parse_yaml(changed.decode("utf-8-sig"))
        total = sum(said[key]["mean"] for key in keys)
        return "" if _close(result, total) else f"{result} ms for {total}"

    return Kind("OFA YAML", content, read, judge, "yaml", share=0.3)


# --- kits ----------------------------------------------------------------------------------------


def _with_digest(content: bytes) -> bytes:
    value = json.loads(content)
    return json.dumps({**value, "sha256": digest(value)}).encode()


@cache
def _measured_kit(seeds: Seeds) -> Path:
    """A kit that was measured, or so it says."""
    begun = seeds.folder / "begun"
    shutil.copytree(_kit(seeds), begun)
    _board(begun, _guesses(begun))
    return begun


def result_of_kit(seeds: Seeds) -> Kind:
    content = (_measured_kit(seeds) / "result.json").read_bytes()
    differs = unchanged_json(content, "sha256")

    def read(changed: bytes, folder: Path) -> Any:
        result = read_result(written(folder, "result.json", changed))
        return result, _imported(table_from(result, KIT_NETWORK, BOARD), KIT_NETWORK, folder)

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        if not sealed:
            return differs(changed)
        said, (found, _) = json.loads(changed.decode("utf-8-sig")), result
        for mine, theirs in zip(found.groups, said["groups"], strict=True):
            for row, told in zip(mine, theirs["rows"], strict=True):
                good = [r[0] for r in told["rounds"] if r[5]]
                if row.name != told["name"] or (good and row.timing.ms != median(good)):
                    return f"{row.name} takes {row.timing.ms}"
        return ""

    return Kind("kit result", content, read, judge, "json", _with_digest, share=0.3)


def perf_output(seeds: Seeds) -> Kind:
    kit = _kit(seeds)
    import test_perf_output as perf

    folder = kit.parent / "perf"
    folder.mkdir()
    path, ended = perf.printed(kit, "onnxruntime", perf.NEW_PERF_TEST, folder)
    assert ended.returncode == 0, ended.stderr
    content = _varied(path.read_text(), _guesses(kit)).encode()
    plan_before = _plan_in(content)

    def read(changed: bytes, folder: Path) -> Any:
        result = read_result(written(folder, "output.txt", changed))
        table = table_from(result, KIT_NETWORK, BOARD)
        return result, _imported(table, KIT_NETWORK, folder)

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        if same(_plan_in(changed), plan_before):
            return "another plan than its hash is of"
        said: dict[str, list[float]] = {}
        text = changed.decode(errors="replace")
        for section in re.split(r"(?m)^== ", text)[1:]:
            title, _, output = section.partition("\n")
            if title.startswith("model "):
                ms = re.search(r"P50 Latency: (\S+) s$", output, re.MULTILINE)
                said.setdefault(title[6:], []).append(1e3 * float(ms[1]) if ms else math.nan)
        for row in (row for group in result[0].groups for row in group):
            told = said.get(row.name, said.get(row.name.replace("a", "c", 1), []))
            if told and not _close(row.timing.ms, median(told)):
                return f"{row.name} takes {row.timing.ms}, and is told as {told}"
        return ""

    return Kind("perf output", content, read, judge, share=0.5)


def _varied(text: str, guesses: dict[str, float]) -> str:
    """The output where each model takes another time."""
    sections = []
    for section in re.split(r"(?m)^(?=== )", text):
        name = section.removeprefix("== model ").partition("\n")[0]
        factor = guesses.get(name, 5.21) / 5.21
        told = r"(?<=Latency: )[0-9.e-]+"
        sections.append(re.sub(told, lambda m, f=factor: f"{f * float(m[0]):.6g}", section))
    return "".join(sections)


def _plan_in(content: bytes) -> Any:
    text = content.decode(errors="replace")
    return json.loads(text.split("== plan\n")[1].split("\n==")[0])


def _guesses(kit: Path) -> dict[str, float]:
    """What each model of a kit takes, in ms, as it seems; a block alone a bit more."""
    plan = json.loads((kit / "plan.json").read_text())
    alone = {model["name"]: 0.004 + 1.2 * model["guess_ms"] for model in plan["blocks"]}
    whole = [*plan["children"], *plan["anchors"]]
    return alone | {model["name"]: 0.02 + model["guess_ms"] for model in whole}


def _board(folder: Path, guesses: dict[str, float]) -> str:
    """Run a kit in this process, its stop-watch replaced; what it prints."""
    out, err = StringIO(), StringIO()

    def measure(runs: Any, protocol: Any, *_: Any) -> dict[str, Timing]:
        times = {name: guesses.get(name, 0.1) for name in runs}
        return {n: Timing(ms, ms, ms, ms, ms, 30, 0.9, [ms]) for n, ms in times.items()}

    words = ["run.py", "--out", str(folder / "result.json"), "--max-seconds", "inf"]
    with (
        patch.object(kit_run, "HERE", str(folder)),
        patch.object(kit_measuring, "measure", measure),
        patch.object(sys, "argv", words),
        patch.object(sys, "stdout", out),
        patch.object(sys, "stderr", err),
    ):
        status = kit_run.main()
    check_text(out.getvalue() + err.getvalue(), most=None)
    if status > 2:
        told = folder / "run-error.txt"
        raise AssertionError(told.read_text()[-400:] if told.exists() else err.getvalue())
    if status:
        raise RefusedError(err.getvalue().partition("error: ")[2].strip() or err.getvalue())
    return out.getvalue()


def plan(seeds: Seeds) -> Kind:
    kit = _kit(seeds)
    content, guesses = (kit / "plan.json").read_bytes(), _guesses(kit)
    differs = unchanged_json(content, "sha256")

    def read(changed: bytes, folder: Path) -> Any:
        place = folder / "board"
        if not place.exists():
            shutil.copytree(kit, place)
        for left in (place / "result.json", place / "result.json.partial"):
            left.unlink(missing_ok=True)
        (place / "plan.json").write_bytes(changed)
        _board(place, guesses)
        result = read_result(place / "result.json")
        return _imported(table_from(result, KIT_NETWORK, BOARD), KIT_NETWORK, folder)

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        return "" if sealed else differs(changed)

    return Kind("kit plan", content, read, judge, "json", _with_digest, share=0.2)


def resumed_kit(seeds: Seeds) -> Kind:
    """A result on the board, with which measuring is to go on."""
    kit, guesses = _kit(seeds), _guesses(_kit(seeds))
    content = (_measured_kit(seeds) / "result.json").read_bytes()
    differs = unchanged_json(content, "sha256")

    def read(changed: bytes, folder: Path) -> Any:
        place = folder / "begun"
        if not place.exists():
            shutil.copytree(kit, place)
        (place / "result.json").write_bytes(changed)
        _board(place, guesses)
        return read_result(place / "result.json")

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        return "" if sealed else differs(changed)

    return Kind("result on the board", content, read, judge, "json", _with_digest, share=0.2)
