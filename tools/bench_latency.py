"""How good latency predictions are on this machine, and how fast they are made.

Run after `elastic-nas profile`, in another process than the profile:

    python tools/bench_latency.py local-ort-1t --space bignas --children 40
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from elastic_nas import plugins
from elastic_nas.errors import ElasticNasError
from elastic_nas.latency.devices import find_table, load_device
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.report import report, verify_children
from elastic_nas.latency.table import LatencyTable
from elastic_nas.machine import environment
from elastic_nas.network import Network

BATCH = 1_000_000
FEW = 300


def accuracy(network: Network, table: LatencyTable, runtime: str, n: int, seed: int) -> None:
    """Measure fresh children and print the error of their predictions."""
    threads = table.runtime["threads"]
    found = verify_children(
        network, plugins.create("runtimes", runtime, threads=threads), table, n, seed
    )
    bound = "no bound" if found["met_bound"] is None else f"{found['met_bound']:.1%} keep the bound"
    print(
        f"{found['n']} fresh children, {found['measured_ms'].min():.3g} to "
        f"{found['measured_ms'].max():.3g} ms: MAPE {found['mape']:.2%}, "
        f"within 5 % {found['within_5']:.1%}, within 10 % {found['within_10']:.1%}, "
        f"tau {found['kendall_tau']:.3f}, noise floor {found['noise_floor']:.2%}, {bound}, "
        f"{found['accept']:.0%} of samples undisturbed"
    )


def speed(network: Network, table: LatencyTable, path: Path) -> None:
    """Print what a first small batch and a large batch of predictions take."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, len(dim.choices), BATCH, np.int8) for dim in network.dims]
    genotypes = np.stack(columns, axis=1)
    start = time.perf_counter()
    LatencyTable.read(path)
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


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device")
    parser.add_argument("--space", default="bignas")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--children", type=int, default=40, help="fresh ones to measure; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    try:
        device = load_device(given.device)
        path = find_table(device, table=given.table)
        network, table = Network(given.space, given.classes), LatencyTable.read(path)
        table.check_fits(device)
        print(report(table, network))
        runtime = plugins.create("runtimes", device.runtime, threads=device.threads)
        stale = table.stale(runtime.version, environment())
        print(f"load {os.getloadavg()[0]:.2f}" + (f"; stale: {stale}" if stale else ""))
        speed(network, table, path)
        if given.children:
            accuracy(network, table, device.runtime, given.children, given.seed)
    except ElasticNasError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
