"""Speed of the sandwich step: against its four plain children, and against contiguous layout.

    python tools/bench_train.py tiny compact:size=96 --batch 32 --rounds 20

All variants run interleaved in one process, one torch thread; figures are medians and quartiles
of per-round ratios, so that a shared machine's drift cancels. The step includes slicing views,
resizing per child and distillation; optimiser and data are left out of all variants.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from elastic_nas.config import TrainConfig
from elastic_nas.genotype import Genotype
from elastic_nas.machine import environment
from elastic_nas.network import Network
from elastic_nas.nn.supernet import resize
from elastic_nas.training.sampling import Sampler
from elastic_nas.training.step import Teaching, sandwich_step


def plain_step(
    network: Network, genotypes: list[Genotype], x: torch.Tensor, labels: torch.Tensor
) -> Callable[[], None]:
    """The same four children as separate plain networks, sliced beforehand."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spaces", nargs="+")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--classes", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    facts = environment()
    print(
        f"{facts['cpu']}, torch {torch.__version__}, Python {platform.python_version()}, 1 thread"
    )
    print(f"load {facts['load']}; batch {arguments.batch}; {arguments.rounds} interleaved rounds")
    for name in arguments.spaces:
        runs = variants(Network(name, arguments.classes), arguments.batch)
        rounds: list[dict[str, float]] = []
        for _ in range(arguments.rounds):
            rounds.append({key: seconds(run) for key, run in runs.items()})
        for other in ("plain", "contiguous"):
            ratios = [r["sandwich"] / r[other] for r in rounds]
            print(f"{name}: sandwich / {other}: {quartiles(ratios)}")
        print(f"{name}: sandwich step {quartiles([r['sandwich'] for r in rounds])} s")


if __name__ == "__main__":
    main()
