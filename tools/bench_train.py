"""Speed and memory of training: the sandwich step, its peak memory, the judging of children.

    python tools/bench_train.py step tiny bignas attentive_nas --batch 4 --rounds 20
    python tools/bench_train.py memory tiny bignas --batch 8
    python tools/bench_train.py judge tiny:size=16 --data digits --children 20

`step`: the sandwich step against the sum of its four plain children's steps, and against contiguous
layout, interleaved in one process, one torch thread; figures are medians and quartiles of per-round
ratios, so that a shared machine's drift cancels. The step includes narrowing, resizing per child
and distillation; optimiser and data are left out of all variants. `memory`: peak resident size of a
process (getrusage) that runs sandwich steps, against one that trains the largest child alone.
`judge`: children that are sliced, calibrated and evaluated a minute, and where the time goes,
against the bare forward passes.
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from random import Random

import torch
from torch.nn import functional as F

from elastic_nas.config import TrainConfig
from elastic_nas.data.dataset import load_dataset
from elastic_nas.genotype import Genotype, sample
from elastic_nas.machine import environment
from elastic_nas.network import Network
from elastic_nas.nn.supernet import resize
from elastic_nas.training.calibration import calibrate
from elastic_nas.training.evaluation import BATCH, Judge
from elastic_nas.training.sampling import Sampler
from elastic_nas.training.step import Teaching, normalise, sandwich_step

MEMORY_STEPS = 3
MEMORY_RUNS = 5


def plain_step(
    network: Network, genotypes: list[Genotype], x: torch.Tensor, labels: torch.Tensor
) -> Callable[[], None]:
    """The same children as separate plain networks, sliced beforehand."""
    supernet = network.supernet()
    children = [supernet.slice(genotype).train() for genotype in genotypes]

    def step() -> None:
        teacher = None
        for child in children:
            child.zero_grad(set_to_none=True)
            logits = child(resize(x, child.resolution))
            target = labels if teacher is None else teacher
            F.cross_entropy(logits, target).backward()
            if teacher is None:
                teacher = logits.detach().softmax(1)

    return step


def variants(network: Network, batch: int) -> dict[str, Callable[[], None]]:
    """What is compared: by name, a function that runs one step."""
    size = network.dims[0].choices[-1]
    torch.manual_seed(0)
    contiguous = torch.randn(batch, 3, size, size)
    x = contiguous.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, network.classes, (batch,))
    lessons = Sampler(network, TrainConfig(), 0).lessons(0)
    genotypes = [lesson.genotype for lesson in lessons]
    supernet = network.supernet()

    def sandwich() -> None:
        supernet.zero_grad(set_to_none=True)
        sandwich_step(supernet, Teaching(network.task), x, labels, lessons)

    return {
        "sandwich": sandwich,
        "plain": plain_step(network, genotypes, x, labels),
        "contiguous": plain_step(network, genotypes, contiguous, labels),
        "largest": plain_step(network, genotypes[:1], x, labels),
    }


def seconds(run: Callable[[], None]) -> float:
    """Of a step after one of its own kind: memory that another layout left costs up to 30 %."""
    run()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


def bench_step(arguments: argparse.Namespace) -> None:
    for name in arguments.spaces:
        runs = variants(Network(name, arguments.classes), arguments.batch)
        compared = ["plain", *(["contiguous"] if arguments.contiguous else [])]
        rounds: list[dict[str, float]] = []
        for _ in range(arguments.rounds):
            rounds.append({key: seconds(runs[key]) for key in ("sandwich", *compared)})
        for other in compared:
            ratios = [r["sandwich"] / r[other] for r in rounds]
            print(f"{name}: sandwich / {other}: {quartiles(ratios)}, n = {len(ratios)}")
        print(f"{name}: sandwich step {quartiles([r['sandwich'] for r in rounds])} s", flush=True)


def bench_memory(arguments: argparse.Namespace) -> None:
    for name in arguments.spaces:
        peaks: dict[str, list[int]] = {"sandwich": [], "largest": []}
        for _ in range(MEMORY_RUNS):  # the allocator's layout differs by some percent each time
            for variant, found in peaks.items():
                words = ["--batch", str(arguments.batch), "--variant", variant]
                command = [sys.executable, __file__, "memory", name, *words]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found.append(int(output))
        middle = {variant: statistics.median(found) for variant, found in peaks.items()}
        print(
            f"{name}: peak resident size in MB, {MEMORY_RUNS} processes each: {peaks}; ratio of "
            f"the medians {middle['sandwich'] / middle['largest']:.3f}",
            flush=True,
        )


def peak_of(arguments: argparse.Namespace) -> None:
    """Print the peak of this process, in MB, after some steps of one variant."""
    run = variants(Network(arguments.spaces[0], arguments.classes), arguments.batch)
    for _ in range(MEMORY_STEPS):
        run[arguments.variant]()
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)


def bench_judge(arguments: argparse.Namespace) -> None:
    data = load_dataset(arguments.data)
    for name in arguments.spaces:
        network = Network(name, len(data.labels))
        judge = Judge(
            network,
            network.supernet(),
            data,
            calibration_images=512,
            validation_images=10_000,
            device=torch.device("cpu"),
        )
        rng = Random(0)
        children = [sample(network.dims, rng) for _ in range(arguments.children)]
        for genotype in children:  # images are resized and cached before the clock runs
            judge.calibration.deployed(data.preprocess, network.resolution(genotype))
            judge.validation.deployed(data.preprocess, network.resolution(genotype))
        rows = [judged(judge, genotype) for genotype in children]
        total = sum(sum(row[:-1]) for row in rows)
        parts = [sum(column) / total for column in zip(*rows, strict=True)]
        print(
            f"{name}: {60 * len(rows) / total:.0f} children/minute with {len(judge.calibration)} "
            f"calibration and {len(judge.validation)} validation images; slice {parts[0]:.1%}, "
            f"calibrate {parts[1]:.1%}, evaluate {parts[2]:.1%}; bare forward passes of as many "
            f"images take {parts[3]:.1%} of that"
        )


def judged(judge: Judge, genotype: Genotype) -> tuple[float, float, float, float]:
    """Seconds to slice, calibrate, evaluate; and of the bare forward passes."""
    clock = [time.perf_counter()]
    supernet, data = judge._supernet, judge._data
    child = supernet.slice(genotype)
    clock.append(time.perf_counter())
    calibrate(child, (x for x, _ in judge._batches(judge.calibration, child.resolution)))
    clock.append(time.perf_counter())
    judge.accuracy(child, judge.validation)
    clock.append(time.perf_counter())
    bare = 0.0
    for split, training in ((judge.calibration, True), (judge.validation, False)):
        pixels = split.deployed(data.preprocess, child.resolution)
        child.train(training)
        for start in range(0, len(split), BATCH):
            batch = torch.from_numpy(pixels[start : start + BATCH])
            x = normalise(batch, data.preprocess.mean, data.preprocess.std)
            started = time.perf_counter()
            with torch.inference_mode():
                child(x)
            bare += time.perf_counter() - started
    return clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[2], bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("step", "memory", "judge"))
    parser.add_argument("spaces", nargs="+")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--contiguous", action="store_true")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--children", type=int, default=20)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.variant:
        peak_of(arguments)
        return
    facts = environment()
    print(
        f"{facts['cpu']}, torch {torch.__version__}, Python {platform.python_version()}, 1 thread"
    )
    print(f"load {facts['load']}; batch {arguments.batch}")
    {"step": bench_step, "memory": bench_memory, "judge": bench_judge}[arguments.what](arguments)


if __name__ == "__main__":
    main()
