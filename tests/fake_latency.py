"""Tables and clocks for tests, without timing anything."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from statistics import median
from typing import Any

import pytest

from elastic_nas import profiling
from elastic_nas.genotype import Genotype
from elastic_nas.latency import drift, profile, provenance, verify
from elastic_nas.latency.bench import Bench
from elastic_nas.latency.fitting import features_of, ms_of, noise_of, rows_of
from elastic_nas.latency.model import FEATURES, FittedModel, calibrate
from elastic_nas.latency.plan import calibration_children, fit_children, wanted_blocks
from elastic_nas.latency.rows import BlockRow, ChildRow
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Clock, Timing
from elastic_nas.network import Network
from elastic_nas.specs import BlockSpec

FACTS = {"arch": "x86_64", "cpu": "Test CPU", "flags": ["avx2"], "cores": 2, "os": "Linux 6"}
NULL_MS = 0.004
WEIGHTS = (1 / 1.2, *[0.0] * 6, -NULL_MS / 1.2, 0.02)
"""Of the model that is exact on the imaginary device."""


def true_ms(spec: BlockSpec) -> float:
    """What a block takes inside a child on the imaginary device."""
    costs = spec.costs
    return 0.002 + 2e-8 * costs.macs + 1e-7 * costs.activation_bytes + 2e-8 * costs.weights


def alone_ms(spec: BlockSpec) -> float:
    """What it takes alone: more, by a call and a share."""
    return NULL_MS + 1.2 * true_ms(spec)


def child_ms(network: Network, genotype: Genotype) -> float:
    """What a whole child takes."""
    return 0.02 + sum(map(true_ms, network.blocks(genotype)))


def block(ms: float) -> BlockRow:
    return BlockRow(ms, 0.95 * ms, 1.1 * ms, 1.3 * ms, 60, 0.9)


def model(**changes: Any) -> FittedModel:
    """A model that is exact on the imaginary device."""
    figures = {"n_fit": 20, "ratios": (*[0.99] * 35, *[1.05] * 25), "mape": 0.02, "within_5": 0.9}
    rest = {"within_10": 1.0, "kendall_tau": 0.95, "noise_floor": 0.01}
    return FittedModel("nnls", (*FEATURES, "constant"), WEIGHTS, **{**figures, **rest, **changes})


def table(network: Network | None = None, bounded: int = 60) -> LatencyTable:
    """A table of the imaginary device that covers a network, with children to take a bound on."""
    made = LatencyTable(
        device={"name": "local-ort-1t", **FACTS},
        runtime={
            "name": "onnxruntime",
            "version": "1.0",
            "provider": "CPUExecutionProvider",
            "threads": 1,
            "graph_optimization": "all",
        },
        precision="fp32",
        protocol={"warmup": 3, "rounds": 6, "filter": "f", "statistic": "median", "seed": 7},
        provenance={"date": "2026-01-01", "commit": "", "null_ms": NULL_MS, "anchors": {}},
    )
    if network is not None:
        for spec in wanted_blocks(network):
            made.add_block(spec, block(alone_ms(spec)))
        add_children(made, network, bounded)
    return made


def add_children(made: LatencyTable, network: Network, bounded: int) -> None:
    """Twenty children that the exact model fits, others that its bound is taken on; and the model.

    These take .99 or 1.05 times what the model says; a small space has fewer.
    """
    fitted = fit_children(network, 20, 0)
    others = calibration_children(network, bounded, 0, exclude=fitted)
    exact = FittedModel("nnls", (*FEATURES, "constant"), WEIGHTS, n_fit=len(fitted))
    for role, genotypes in (("fit", fitted), ("calibrate", others)):
        rows = [child(network, genotype, role, 1.0) for genotype in genotypes]
        took = exact.predict_ms(features_of(network, made, rows))
        for number, (genotype, ms) in enumerate(zip(genotypes, took, strict=True)):
            factor = 1.0 if role == "fit" else 1.05 if 12 * number >= 7 * len(others) else 0.99
            made.children.append(child(network, genotype, role, factor * float(ms)))
    rows = rows_of(network, made, "calibrate")
    made.models[network.identity] = calibrate(
        exact, features_of(network, made, rows), ms_of(rows), noise_of(rows)
    )


def child(network: Network, genotype: Genotype, role: str, ms: float) -> ChildRow:
    rounds = (0.995 * ms, 1.005 * ms)
    figures = (ms, 0.95 * ms, 1.1 * ms, 1.3 * ms, 30, 0.9)
    return ChildRow(network.identity, network.classes, genotype, role, *figures, rounds)


def without_bound(made: LatencyTable, network: Network) -> None:
    """Take the children away that a bound is taken on."""
    made.children = [row for row in made.children if row.role == "fit"]
    none = dict.fromkeys(("mape", "within_5", "within_10", "kendall_tau", "noise_floor"))
    made.models[network.identity] = replace(made.models[network.identity], **none, ratios=())


@dataclass
class FakeClock:
    """Time that passes only when told to."""

    now: float = 0.0
    waited: float = 0.0
    switches: int = 0

    def clock(self, problem: str = "") -> Clock:
        return Clock(
            lambda: self.now, lambda: self.waited, lambda: self.switches, "a test's", problem
        )

    def run(self, seconds: float, waits: float = 0.0, switched: int = 0) -> None:
        self.now += seconds
        self.waited += waits
        self.switches += switched


@dataclass
class FakeRuntime:
    """Models are their latency in ms as text."""

    version: str = "1.0"
    owns_threads: bool = False
    prepared: list[float] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        return {**table().runtime, "version": self.version}

    def prepare(self, model: bytes, input_shape: tuple[int, ...]) -> Callable[[], float]:
        ms = float(model)
        self.prepared.append(ms)
        return lambda: ms


class FakeStopwatch:
    """Reads the latency off a `FakeRuntime`'s function, with noise; refuses what it is told to."""

    def __init__(self, noise: float = 0.01, factor: float = 1.0) -> None:
        self.rng, self.noise, self.factor = Random(5), noise, factor
        self.refuse: Callable[[float], bool] = lambda ms: False
        self.refused_names: set[str] = set()
        self.timed = 0

    def __call__(self, runs: Any, protocol: Any, owns_threads: bool, advance: Any) -> Any:
        timings = {name: self.timing(run(), protocol.rounds) for name, run in runs.items()}
        for name in self.refused_names & timings.keys():
            timings[name] = replace(timings[name], refused="the machine is busy")
        return timings

    def timing(self, ms: float, n: int = 6) -> Timing:
        self.timed += 1
        rounds = [self.factor * ms * self.rng.lognormvariate(0, self.noise) for _ in range(n)]
        middle, low, high = median(rounds), min(rounds), max(rounds)
        timing = Timing(middle, low, middle, high, high, 60, 0.9, rounds)
        return replace(timing, refused="the machine is busy") if self.refuse(ms) else timing


def imaginary_device(monkeypatch: pytest.MonkeyPatch) -> FakeStopwatch:
    """Profile the imaginary device: no model is built and nothing is timed."""
    watch = FakeStopwatch()

    def bench(runtime: Any, protocol: Any) -> Bench:
        return Bench(runtime, protocol, stopwatch=watch)

    monkeypatch.setattr(profile, "block_model", lambda s, _: str(alone_ms(s)).encode())
    monkeypatch.setattr(profile, "child_model", lambda n, g, _: str(child_ms(n, g)).encode())
    monkeypatch.setattr(provenance, "null_model", lambda: str(NULL_MS).encode())
    monkeypatch.setattr(profiling, "runtime_of", lambda device: FakeRuntime())
    for module in (profile, profiling):
        monkeypatch.setattr(module, "environment", lambda: FACTS)
    for module in (profile, drift, verify):
        monkeypatch.setattr(module, "Bench", bench)
    return watch
