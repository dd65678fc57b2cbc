"""What latency tables are worth, in figures that can fail: fresh children, another process.

    elastic-nas profile local-ort-1t --space bignas
    python tools/bench_latency.py verify local-ort-1t --space bignas --out verified.jsonl
    python tools/bench_latency.py compare verified.jsonl
    python tools/bench_latency.py selected RUN local-ort-1t
    python tools/bench_latency.py speed local-ort-1t --space bignas

`verify` measures children that no fit and no bound has seen; `compare` holds the table's model
against simpler ones and against other devices' tables on those children; `selected` asks a searched
run for children at 50 budgets and measures what it returns; `speed` times the predictor itself.
"""

import argparse
import json
import os
import time
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from elastic_nas.additive import AdditiveCost
from elastic_nas.budgets import Budgets
from elastic_nas.errors import ElasticNasError
from elastic_nas.finalists import time_children
from elastic_nas.latency.devices import find_table, load_device
from elastic_nas.latency.fitting import features_of, rows_of
from elastic_nas.latency.model import TABLE_MS, quality, solve
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.report import report
from elastic_nas.latency.table import LatencyTable
from elastic_nas.latency.verify import verify_children
from elastic_nas.machine import environment
from elastic_nas.network import Network
from elastic_nas.pipeline import query
from elastic_nas.runs import open_run
from elastic_nas.targets import open_target, runtime_of

BATCH = 1_000_000
FEW = 300
BUDGETS = 50


def verify(given: argparse.Namespace) -> None:
    """Measure fresh children and print the error of their predictions, on the clock and settled."""
    device, table, network = opened(given)
    print(report(table, network))
    stale = table.stale(runtime_of(device).version, environment())
    print(f"load {os.getloadavg()[0]:.2f}" + (f"; stale: {stale}" if stale else ""))
    found = verify_children(network, runtime_of(device), table, given.children, given.seed)
    fastest, slowest = found["measured_ms"].min(), found["measured_ms"].max()
    print(
        f"{found['n']} fresh children, {fastest:.3g} to {slowest:.3g} ms, noise floor "
        f"{found['noise_floor']:.2%}, {found['accept']:.0%} of samples undisturbed, "
        f"{found['device_s']:.0f} s of timing; machine's speed {found['speed'][0]:.3f} to "
        f"{found['speed'][1]:.3f} times the table's"
    )
    for name, row in (("at the table's speed", found), ("on the clock", found["raw"])):
        print(f"{name}: {line(row, found['n'])}")
    if given.out:
        arrays = ("genotypes", "predicted_ms", "measured_ms")
        record = {**found, **{key: found[key].tolist() for key in arrays}}
        where = {"device": device.name, "space": given.space, "classes": given.classes}
        with given.out.open("a") as file:
            file.write(json.dumps({**where, "table": str(given.path), **record}) + "\n")


def line(row: dict[str, Any], n: int) -> str:
    """The figures of merit, counts beside shares."""
    counts = (
        f"{round(row[key] * n)} of {n} {text}" for key, text in SHARES if row[key] is not None
    )
    return f"MAPE {row['mape']:.2%}, {', '.join(counts)}, tau {row['kendall_tau']:.3f}"


SHARES = (("within_10", "within 10 %"), ("within_5", "within 5 %"), ("met_bound", "keep the bound"))


def compare(given: argparse.Namespace) -> None:
    """Simpler models on the same children, and what another device's table would have broken."""
    rows = [json.loads(text) for text in given.file.read_text().splitlines()]
    for row in rows:
        measured = np.array(row["measured_ms"])
        print(f"\n{row['device']}, {row['space']}: table and features {line(row, row['n'])}")
        for name, predicted in baselines(row).items():
            found = {**quality(predicted, measured), "met_bound": None}
            print(f"  {name}: {line(found, row['n'])}")
    for one, other in permutations(rows, 2):
        if one["space"] == other["space"]:
            print(
                f"{one['space']}: chosen for {one['device']} with the table of {other['device']}: "
                f"{broken_budgets(one, other):.0%} of {BUDGETS} budgets broken (with its own "
                f"{broken_budgets(one, one):.0%})"
            )


def baselines(row: dict[str, Any]) -> dict[str, Any]:
    """Predictions of simpler models for the measured children, fitted on the same fit children."""
    table, network = LatencyTable.read(Path(row["table"])), Network(row["space"], row["classes"])
    genotypes = np.array(row["genotypes"])
    fit = rows_of(network, table, "fit")
    x, y = features_of(network, table, fit), np.array([child.ms for child in fit])

    def macs(g: Any) -> Any:
        return AdditiveCost(network, lambda spec: float(spec.costs.macs))(g)

    raw = AdditiveCost(network, lambda spec: table.entry_ms(spec)[0])(genotypes)
    slope, constant = np.polyfit(macs(np.array([c.genotype for c in fit])), y, 1)
    scale = solve("scale", np.column_stack([x, np.ones(len(x))]), y)[TABLE_MS]
    return {
        "raw sum (OFA's way)": raw,
        f"raw sum x {scale:.3f}": scale * raw,
        "MACs, affine": slope * macs(genotypes) + constant,
    }


def broken_budgets(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The share of budgets that a child breaks which another device's bounds chose.

    The other's bounds are brought to this device's scale by one factor; of the children that are
    bounded within the budget the slowest is taken, as a search would that spends it all.
    """
    measured = np.array(one["measured_ms"])
    foreign = np.array(other["predicted_ms"])
    if one["genotypes"] != other["genotypes"]:
        raise SystemExit("the devices were verified on different children; use one seed.")
    foreign = foreign * np.median(np.array(one["predicted_ms"]) / foreign) * factor_of(other)
    broken = 0
    for budget in np.quantile(measured, np.linspace(0.1, 1, BUDGETS)):
        inside = np.flatnonzero(foreign <= budget)
        broken += bool(len(inside)) and measured[inside[foreign[inside].argmax()]] > budget
    return float(broken / BUDGETS)


def factor_of(row: dict[str, Any]) -> float:
    """The bound of the table that a row was verified with, in multiples of its predictions."""
    table = LatencyTable.read(Path(row["table"]))
    factor = table.models[Network(row["space"], row["classes"]).identity].bound_factor()
    if factor is None:
        raise SystemExit(f"{row['table']} has no bound.")
    return factor


def selected(given: argparse.Namespace) -> None:
    """Measure anew what a searched run returns for 50 budgets, log-spaced over its front."""
    run = open_run(given.run)
    target = open_target(run.network, given.device, run=run)
    everything, _ = query(run, given.device, Budgets())
    bounds = [answer.bound_ms for answer in everything]
    budgets = np.geomspace(1.02 * min(bounds), max(bounds), BUDGETS)
    answers = [query(run, given.device, Budgets(latency_ms=ms))[0][0] for ms in budgets]
    children = list(dict.fromkeys(answer.genotype for answer in answers))
    ms, factors = {}, []
    for group, factor in time_children(run, target, children):
        ms |= group
        factors += [factor] * len(group)
    factor = fmean(factors)
    kept = [ms[answer.genotype] <= limit for answer, limit in zip(answers, budgets, strict=True)]
    clock = [ms[a.genotype] * factor <= limit for a, limit in zip(answers, budgets, strict=True)]
    print(
        f"{sum(kept)} of {BUDGETS} budgets kept by {len(children)} different children at the "
        f"table's speed, {sum(clock)} on the clock (speed {factor:.3f})"
    )


def speed(given: argparse.Namespace) -> None:
    """Print what a first small batch and a large batch of predictions take."""
    _, table, network = opened(given)
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, len(dim.choices), BATCH, np.int8) for dim in network.dims]
    genotypes = np.stack(columns, axis=1)
    start = time.perf_counter()
    LatencyTable.read(given.path)
    read = time.perf_counter()
    predictor = Predictor(network, table)
    predictor.predict_ms(genotypes[:FEW])
    first = time.perf_counter()
    predictor.predict_ms(genotypes)  # fills the look-up tables
    print(
        f"reading the table {1e3 * (read - start):.1f} ms; a new predictor and its first {FEW} "
        f"children {1e3 * (first - read):.1f} ms"
    )
    for kind in (np.int8, np.int64):
        batch = genotypes.astype(kind)
        rates = []
        for _ in range(5):
            start = time.perf_counter()
            predictor.predict_ms(batch)
            rates.append(BATCH / (time.perf_counter() - start))
        print(f"{np.median(rates) / 1e6:.1f} million children/s from {kind.__name__}")


def opened(given: argparse.Namespace) -> tuple[Any, LatencyTable, Network]:
    """Device, table and network of the command line."""
    device = load_device(given.device)
    given.path = find_table(device, table=given.table)
    table = LatencyTable.read(given.path)
    table.check_fits(device)
    return device, table, Network(given.space, given.classes)


def main() -> None:
    """Run one of the four."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for function in (verify, speed):
        command = commands.add_parser(function.__name__)
        command.add_argument("device")
        command.add_argument("--space", default="bignas")
        command.add_argument("--classes", type=int, default=1000)
        command.add_argument("--table", type=Path)
        command.add_argument("--children", type=int, default=100)
        command.add_argument("--seed", type=int, default=11)
        command.add_argument("--out", type=Path, help="append the figures to this JSON lines file")
        command.set_defaults(function=function)
    command = commands.add_parser("compare")
    command.add_argument("file", type=Path)
    command.set_defaults(function=compare)
    command = commands.add_parser("selected")
    command.add_argument("run", type=Path)
    command.add_argument("device")
    command.set_defaults(function=selected)
    given = parser.parse_args()
    try:
        given.function(given)
    except ElasticNasError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
