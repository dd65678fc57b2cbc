"""What `test_distributed.py` runs in two processes at once; each leaves what it found in a folder.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 python distributed_worker.py IMAGES FOLDER PORTS

One start serves all tests: importing torch takes longer than they do.
"""

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import typer
from safetensors.torch import save_file
from torch import Tensor, nn

from elastic_nas.cli.app import app
from elastic_nas.config import AugmentConfig, TrainConfig
from elastic_nas.data import dataset, stream
from elastic_nas.data.dataset import Dataset, load_dataset
from elastic_nas.errors import DataError
from elastic_nas.network import Network
from elastic_nas.nn.child import randomise
from elastic_nas.nn.sync_norm import sync_norm
from elastic_nas.training import evaluation
from elastic_nas.training.agreement import share_optimizer
from elastic_nas.training.calibration import calibrate
from elastic_nas.training.distributed import ALONE, Ranks, joined
from elastic_nas.training.evaluation import Judge
from elastic_nas.training.trainer import Trainer

NETWORK = Network("tiny:size=8", 10)
STEPS = 5
COUNTS = (5, 2)  # images of each process where they differ
FAR = 300.0  # mean over deviation
COLLECTIVES = ("all_reduce", "all_gather", "broadcast")
CLI_STEPS = 6
BATCH = 16
JUDGED = 16  # images a batch, so that there are several


def config(**changes: Any) -> TrainConfig:
    """No dropout, as what it draws differs between processes; small, steady steps."""
    fields = {"steps": STEPS, "batch_size": BATCH, "augment": AugmentConfig(strong="none"),
              "threads": 1, "dropout": 0.0, "clip_norm": None, "warmup": 0.0,
              "learning_rate": 0.01, "schedule": "constant"}  # fmt: skip
    return TrainConfig(**{**fields, **changes})


@contextmanager
def in_float64() -> Iterator[None]:
    """Images and losses in float64, too."""
    before = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = before  # type: ignore[method-assign]


@contextmanager
def counted() -> Iterator[list[str]]:
    """The collectives that are called meanwhile."""
    calls: list[str] = []
    before = {name: getattr(dist, name) for name in COLLECTIVES}

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return before[name](*args, **kwargs)

    for name in COLLECTIVES:
        setattr(dist, name, partial(call, name))
    try:
        yield calls
    finally:
        for name, function in before.items():
            setattr(dist, name, function)


def unequal(rank: int) -> Tensor:
    """Images (n, 3, 4, 4) of which each process has another number, about another mean."""
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(COUNTS[rank], 3, 4, 4, generator=generator, dtype=torch.float64)
    return x * (1 + rank) + 3 * rank


def far(rank: int) -> Tensor:
    """Images (64, 3, 8, 8) in float32 of deviation 1, about 300 and 302."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(64, 3, 8, 8, generator=generator) + FAR + 2 * rank


def steps(
    ranks: Ranks, data: Dataset, **changes: Any
) -> tuple[dict[str, Tensor], list[list[str]], list[Any]]:
    """Weights and last gradients after some steps in float64, collectives and children of each."""
    with in_float64():
        trainer = Trainer(NETWORK, data, config(**changes), 0, ranks=ranks)
        randomise(trainer.supernet, 1)
        trainer.supernet.double()
        if ranks.rank == 1:
            nn.init.zeros_(next(trainer.supernet.parameters()))  # `agree` puts that right
        trainer.agree()
        collectives, children = [], []
        drawn = trainer.sampler.lessons
        for step, batch in enumerate(trainer.stream.batches(0, trainer.config.steps)):
            lessons: list[Any] = []
            trainer.sampler.lessons = lambda *a, into=lessons: into.extend(drawn(*a)) or into
            with counted() as calls:
                result = trainer.step(step, STEPS, *batch, 1.0, lambda: [ranks.rank == 1, False])
            assert [ask > 0 for ask in result.asked.tolist()] == [True, False]
            collectives.append(calls)
            children.append([lesson.genotype for lesson in lessons])
    found = {f"weight.{n}": p.detach() for n, p in trainer.supernet.named_parameters()}
    found |= {
        f"grad.{n}": p.grad.clone()
        for n, p in trainer.supernet.named_parameters()
        if p.grad is not None
    }
    return {**found, "losses": result.losses, "norm": result.norm}, collectives, children


def normalised(ranks: Ranks) -> dict[str, Tensor]:
    """Synchronised norms: outputs and gradients of unequal numbers of images, and far means."""
    x = unequal(ranks.rank).requires_grad_()
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    bias = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    y = sync_norm(ranks, 1e-5, x, weight, bias)
    (y**3).sum().backward()
    ones, zeros = torch.ones(3), torch.zeros(3)
    return {
        "y": y.detach(), "x.grad": x.grad, "weight.grad": weight.grad, "bias.grad": bias.grad,
        "far": sync_norm(ranks, 0.0, far(ranks.rank), ones, zeros),
    }  # fmt: skip


def judged(ranks: Ranks, data: Dataset) -> dict[str, Tensor]:
    """Calibrated statistics and right answers, of both processes and of this one alone."""
    supernet = NETWORK.supernet()
    randomise(supernet, 2)
    options = {"validation_images": 100, "device": torch.device("cpu")}
    found: dict[str, Tensor] = {}
    for images in (40, 10):  # of 3 batches and of 1, which leaves one process without any
        for name, group in (("both", ranks), ("alone", ALONE)):
            judge = Judge(
                NETWORK, supernet, data, calibration_images=images, ranks=group, **options
            )
            child = judge.child(NETWORK.largest)
            right = torch.from_numpy(judge.right(child, data.train))
            found[f"{name}.{images}.right"] = right
            for key, value in child.named_buffers():
                found[f"{name}.{images}.{key}"] = value.clone()
    norm = nn.Sequential(nn.BatchNorm2d(3).double())
    calibrate(norm, iter([unequal(ranks.rank)]), ranks)
    found |= {"mean": norm[0].running_mean, "variance": norm[0].running_var}
    return found


def shared(ranks: Ranks, data: Dataset) -> dict[str, Tensor]:
    """Optimiser states of one process that has done a step, as both have them afterwards."""
    found: dict[str, Tensor] = {}
    for name in ("sgd", "rmsprop", "adamw"):
        trainer = Trainer(NETWORK, data, config(optimizer=name, ema=0.9), 0)
        if ranks.first:
            trainer.step(0, STEPS, *next(trainer.stream.batches(0, 1)))
        trainer.ranks = ranks
        trainer.share()
        share_optimizer(ranks, trainer.optimizer)  # over what is there already
        for index, entry in trainer.optimizer.state_dict()["state"].items():
            found |= {f"{name}.{index}.{k}": v.clone() for k, v in entry.items()}
        found |= {f"{name}.average.{k}": v.clone() for k, v in trainer.average.tensors.items()}
    return found


def missing(ranks: Ranks) -> list[Any]:
    """A parameter without a gradient stays without; the others get means."""
    one, none, other = (nn.Parameter(torch.zeros(n)) for n in (2, 3, 1))
    one.grad, other.grad = torch.full((2,), 1.0 + ranks.rank), torch.full((1,), 10.0 * ranks.rank)
    figures = ranks.average([one, none, other], torch.tensor([4.0 * ranks.rank]))
    return [one.grad.tolist(), none.grad, other.grad.tolist(), figures.tolist()]


def fewer(ranks: Ranks, data: Dataset) -> list[int]:
    """Steps an epoch and steps in all where one process has fewer images."""
    train = data.train.subset(np.arange(100 - 40 * ranks.rank))
    changes = {"steps": None, "epochs": 3}
    trainer = Trainer(NETWORK, replace(data, train=train), config(**changes), 0, ranks=ranks)
    trainer.agree()
    return [trainer.stream.steps_per_epoch, trainer.resolved().steps or 0]


def ended(ranks: Ranks, failing: tuple[int, ...]) -> str:
    """How a block ends here in which some processes fail."""
    try:
        with ranks.together():
            if ranks.rank in failing:
                raise DataError(f"of {ranks.rank}")
    except (DataError, SystemExit) as error:
        return repr(error)
    return "fine"


def draws(ranks: Ranks, data: Dataset) -> list[float]:
    """Losses of the same batch with dropout, not averaged."""
    changes = {"dropout": 0.5}
    trainer = Trainer(NETWORK, data, config(**changes), 0, ranks=ranks)
    x, labels = next(Trainer(NETWORK, data, config(**changes), 0).stream.batches(0, 1))
    x, targets = trainer._prepared(0, x, labels)
    return trainer._gradients(0, 0.0, x, targets).tolist()


def command(data: Path, folder: Path, *words: str) -> dict[str, Any]:
    """What a command says and how it ends."""
    out, err = io.StringIO(), io.StringIO()
    settings = {"threads": 1, "batch_size": BATCH, "augment.strong": "none"}
    changes = [f"--set=train.{key}={value}" for key, value in settings.items()]
    begin = ["--data", str(data), "--space", "tiny:size=8", *changes]
    first = [] if "--resume" in words else begin
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = app(["train", *first, "--out", str(folder), *words], standalone_mode=False)
        except SystemExit as end:
            status = end.code
        except typer.Exit as end:
            status = end.exit_code
    return {"status": status or 0, "out": out.getvalue(), "err": err.getvalue()}


@contextmanager
def struck(owner: Any, name: str, call: int, strike: Any) -> Iterator[None]:
    """`strike` is called before the `call`-th call of `owner.name`."""
    original, calls = getattr(owner, name), []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            strike(*args[:1])
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)
    try:
        yield
    finally:
        setattr(owner, name, original)


def fail(_: Any) -> None:
    raise DataError("an image is broken")


def cut_short(trainer: Trainer, held: dict[Path, bytes]) -> None:
    """Damage the first image that this process will show in its third step."""
    split = trainer.data.train
    row = split.rows[trainer.stream._batches.order.of_step(2).indices[0]]
    path = split.images.root / split.images.names[row]
    held[path] = path.read_bytes()
    path.write_bytes(held[path][:50])


def terminate(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def spoil(trainer: Trainer) -> None:
    with torch.no_grad():
        next(trainer.supernet.parameters()).fill_(torch.nan)


def commands(rank: int, data: Path, folder: Path, ports: list[str]) -> dict[str, Any]:
    """Whole trainings, good and bad; each process meets the other anew."""
    found: dict[str, Any] = {}

    def run(name: str, out: str, *words: str) -> None:
        os.environ["MASTER_PORT"] = ports.pop()
        found[name] = command(data, folder / out, *words)

    n = f"--set=train.steps={CLI_STEPS}"
    run("batch", "batch", n, "--set=train.batch_size=17")
    (folder / "foreign").mkdir(exist_ok=True)
    (folder / "foreign" / "mine.txt").touch()
    run("foreign", "foreign", n)
    never = 10**9
    with struck(dataset, "load_dataset", 1 if rank == 1 else never, fail):
        run("data", "data", n)
    with struck(Trainer, "step", 3 if rank == 1 else never, fail):
        run("mid", "mid", n)
    with struck(stream._Batches, "__getitem__", 4 if rank == 1 else never, fail):
        run("shard", "shard", n, "--set=train.workers=0")
    run("mended", "shard", "--resume")
    cache, stream.CACHE_BYTES = stream.CACHE_BYTES, 0
    for rule in ("skip", "stop"):
        held: dict[Path, bytes] = {}
        hurt = partial(cut_short, held=held)
        with struck(Trainer, "agree", 1 if rank == 1 else never, hurt):
            run(rule, rule, n, "--set=train.workers=0", f"--set=data.damaged={rule}")
        for path, content in held.items():
            path.write_bytes(content)
    stream.CACHE_BYTES = cache
    with struck(Trainer, "step", 3 if rank == 1 else never, spoil):
        run("diverged", "diverged", n, "--set=train.guard.action=stop")
    with struck(Trainer, "step", 3 if rank == 1 else never, terminate):
        run("stopped", "stopped", n)
    run("resumed", "stopped", "--resume")
    run("whole", "whole", n)
    run("finished", "whole", "--resume")
    return found


def main(photos: Path, folder: Path, ports: list[str]) -> None:
    rank = int(os.environ["RANK"])
    facts: dict[str, Any] = {}
    said = io.StringIO()
    evaluation.BATCH = JUDGED
    data = load_dataset(str(photos))
    os.environ["MASTER_PORT"] = ports.pop()
    with redirect_stderr(said), joined("cpu") as ranks:
        tensors = {}
        for name, changes in (
            ("plain", {}), ("sync", {"sync_norm": True, "accumulate": 2}),
            ("best_up", {"sampling": "best_up", "sandwich": False, "steps": 2}),
        ):  # fmt: skip
            found, *facts[name] = steps(ranks, data, **changes)
            tensors |= {f"{name}.{key}": value for key, value in found.items()}
        tensors |= normalised(ranks)
        tensors |= judged(ranks, data)
        tensors |= shared(ranks, data)
        facts["missing"] = missing(ranks)
        facts["draws"] = [draws(ranks, data), draws(ranks, data)]
        facts["ended"] = [ended(ranks, failing) for failing in ((), (1,), (0, 1))]
        said.truncate(0)
        facts["fewer"] = fewer(ranks, data)
        facts["said"] = said.getvalue()
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{rank}.safetensors")
    facts["commands"] = commands(rank, photos, folder, ports)
    (folder / f"{rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(","))
