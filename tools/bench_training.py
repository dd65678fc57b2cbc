"""What sandwich training is worth: children against the same ones trained alone, and ablations.

    python tools/bench_training.py DATA --out DIR [--epochs 8] [--seeds 3] [--only main alpha]

DATA is a folder of class folders below train/, val/ and test/. Every training is a run of its own
below DIR, and every result a line of DIR/results.jsonl: interrupted, the same command goes on.
All trainings of a seed have equal epochs. Accuracies are of calibrated children on a fixed sample
of the test split, which nothing is chosen by. Figures of several seeds are means, with the
standard deviation over the seeds.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from elastic_nas.config import RunConfig
from elastic_nas.data.dataset import load_dataset
from elastic_nas.genotype import Genotype, format_genotype, sample
from elastic_nas.machine import environment
from elastic_nas.network import Network
from elastic_nas.pipeline import judge_of, train
from elastic_nas.run_file import parse_run
from elastic_nas.training.evaluation import some
from elastic_nas.training.sampling import DRAWS

CHILDREN = 10
TEST_IMAGES = 5000
CALIBRATION_IMAGES = 2048
BASE = {"zero_init": False, "distill_from": 0.5}
"""What a short training needs: see the rows without them."""
VARIANTS: dict[str, dict[str, Any]] = {
    "main": {},
    "papers' defaults": {"zero_init": True, "distill_from": 0.0},
    "zero-initialisation": {"zero_init": True},
    "distillation from the first step": {"distill_from": 0.0},
    "no distillation": {"distillation": "none"},
    "no sandwich, 4 random children": {"sandwich": False, "random_children": 4},
    "regularising all children": {"regularise": "all"},
    "no constant ending": {"final_rate": 0.0},
    "alpha-divergence": {"distillation": "alpha", "clip_norm": 1.0},
}
FROM_LARGEST = "start from the trained largest"


def children_of(network: Network) -> list[Genotype]:
    """The smallest, ten of rising MACs, the largest: the same in every run."""
    rng, found = Random("bench-training"), []
    least, most = network.macs(network.smallest), network.macs(network.largest)
    for stratum in range(CHILDREN):
        wanted = least + (most - least) * (stratum + 0.5) / CHILDREN
        drawn = [sample(network.dims, rng) for _ in range(100 * DRAWS)]
        found.append(min(drawn, key=lambda g: abs(network.macs(g) - wanted)))
    return [network.smallest, *found, network.largest]


class Bench:
    """Trains and judges; what is done is not done again."""

    def __init__(self, data: Path, out: Path, space: str, epochs: int) -> None:
        self.data, self.out, self.space, self.epochs = data, out, space, epochs
        self.results = out / "results.jsonl"
        self.network = Network(space, sum(p.is_dir() for p in (data / "train").iterdir()))
        self.children = children_of(self.network)
        out.mkdir(parents=True, exist_ok=True)
        lines = self.results.read_text().splitlines() if self.results.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def config(self, seed: int, space: str, changes: dict[str, Any]) -> RunConfig:
        train = {
            "epochs": self.epochs,
            "batch_size": 32,
            "threads": 1,
            "validations": 0,
            "checkpoint_seconds": 30,
            "augment": {"crop_scale": 0.5, "strong": "none"},
            **BASE,
            **changes,
        }
        return parse_run({"data": str(self.data), "space": space, "seed": seed, "train": train})

    def run(self, name: str, seed: int, space: str, changes: dict[str, Any], mode: str) -> None:
        """Train one variant with one seed, judge its children, write a line."""
        if any(row["name"] == name and row["seed"] == seed for row in self.rows):
            return
        folder = self.out / "runs" / f"{name.replace(' ', '-').replace(',', '.')}-{seed}"
        config = self.config(seed, space, changes)
        started, resume = time.time(), (folder / "run.yaml").exists()
        run = train(config, folder, resume=resume)
        seconds = time.time() - started
        data = load_dataset(config.data, config.seed)
        judge = judge_of(run, config, data)
        test = some(data.test, TEST_IMAGES)
        calibration = some(data.train, CALIBRATION_IMAGES)
        genotypes = self.children if mode == "supernet" else [run.network.largest]
        accuracies = [
            judge.accuracy(judge.child(genotype, calibration), test) for genotype in genotypes
        ]
        row = {
            "name": name,
            "seed": seed,
            "mode": mode,
            "accuracies": accuracies,
            "seconds": None if resume else round(seconds, 1),
            "n": len(test),
            "train": len(data.train),
        }
        self.rows.append(row)
        with self.results.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def alone(self, number: int, seed: int) -> None:
        """Child number `number` trained alone from scratch."""
        space = f"{self.space}@{format_genotype(self.children[number])}"
        self.run(f"alone {number}", seed, space, {}, "alone")

    def from_largest(self, seed: int) -> None:
        """The supernet that starts from its largest child, trained alone."""
        last = len(self.children) - 1
        self.alone(last, seed)
        init = str(self.out / "runs" / f"alone-{last}-{seed}")
        self.run(FROM_LARGEST, seed, self.space, {"init": init}, "supernet")

    def do(self, seed: int, only: list[str]) -> None:
        for name, changes in VARIANTS.items():
            if not only or name in only:
                self.run(name, seed, self.space, changes, "supernet")
        if not only or "alone" in only:
            for number in range(len(self.children)):
                self.alone(number, seed)
        if not only or FROM_LARGEST in only:
            self.from_largest(seed)


def mean_and_deviation(values: list[float], digits: int = 1) -> str:
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def tables(bench: Bench) -> str:
    """Markdown: the variants, then the children beside the same ones trained alone."""
    of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in bench.rows:
        of[row["name"]].append(row)
    lines = ["| training | smallest, % | mean of 10, % | largest, % | seeds | minutes each |"]
    lines.append("|---|---|---|---|---|---|")
    for name in (*VARIANTS, FROM_LARGEST):
        rows = of.get(name, [])
        if rows:
            percent = [[100 * a for a in row["accuracies"]] for row in rows]
            times = [row["seconds"] / 60 for row in rows if row["seconds"]]
            cells = (
                mean_and_deviation([p[0] for p in percent]),
                mean_and_deviation([statistics.fmean(p[1:-1]) for p in percent]),
                mean_and_deviation([p[-1] for p in percent]),
                str(len(rows)),
                mean_and_deviation(times) if times else "",
            )
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| child, MMACs | in the supernet, % | alone, % | difference |",
        "|---|---|---|---|",
    ]
    both = []
    for number, genotype in enumerate(bench.children):
        alone = {row["seed"]: 100 * row["accuracies"][0] for row in of[f"alone {number}"]}
        shared = {row["seed"]: 100 * row["accuracies"][number] for row in of["main"]}
        seeds = sorted(alone.keys() & shared.keys())
        if seeds:
            gaps = [shared[seed] - alone[seed] for seed in seeds]
            ours, theirs = [shared[s] for s in seeds], [alone[s] for s in seeds]
            both.append((statistics.fmean(ours), statistics.fmean(theirs)))
            macs = bench.network.macs(genotype) / 1e6
            cells = " | ".join(mean_and_deviation(v) for v in (ours, theirs, gaps))
            lines.append(f"| {macs:.2f} | {cells} |")
    if len(both) > 2:
        lines += ["", tau_line(both)]
    return "\n".join(lines)


def tau_line(pairs: list[tuple[float, float]]) -> str:
    """Kendall's tau over the children, with a bootstrap interval over them."""
    values = np.array(pairs)
    rng = np.random.default_rng(0)
    draws = (values[rng.integers(0, len(values), len(values))] for _ in range(2000))
    taus = [kendalltau(d[:, 0], d[:, 1]).statistic for d in draws]
    low, high = np.nanpercentile(taus, [2.5, 97.5])
    tau = kendalltau(values[:, 0], values[:, 1]).statistic
    return (
        f"Kendall tau {tau:.2f} (95 % bootstrap interval {low:.2f}-{high:.2f}), n = {len(pairs)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--space", default="tiny:size=16")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[], help="names of trainings, or alone")
    parser.add_argument("--table", action="store_true", help="print what is known; train nothing")
    arguments = parser.parse_args()
    bench = Bench(arguments.data, arguments.out, arguments.space, arguments.epochs)
    if not arguments.table:
        for seed in arguments.seeds:
            bench.do(seed, arguments.only)
    facts = environment()
    print(f"{facts['cpu']}, one thread, load {facts['load']}; {arguments.space}")
    print(tables(bench))


if __name__ == "__main__":
    main()
