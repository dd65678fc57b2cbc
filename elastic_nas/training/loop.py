"""The training loop: steps in order, checkpoints in between, stoppable at any moment."""

import copy
import json
import math
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from elastic_nas.config import TrainConfig
from elastic_nas.data.augment import Augment
from elastic_nas.data.dataset import Dataset
from elastic_nas.data.stream import TrainStream
from elastic_nas.errors import ConfigError, RunFolderError, TrainingDiverged
from elastic_nas.network import Network
from elastic_nas.nn.supernet import Supernet
from elastic_nas.progress import say, track
from elastic_nas.training.checkpoint import FILE_NAME, Progress, load_checkpoint, save_checkpoint
from elastic_nas.training.step import Regularisation, children_of_step, normalise, sandwich_step

LOG_EVERY_SECONDS = 2.0
DEFAULT_EPOCHS = 30
PROBE_STEPS = (2, 6)  # warm-up and timed steps that turn minutes into a number of steps


@dataclass(frozen=True)
class Losses:
    """Mean losses of one step; random is None where no random child was drawn."""

    largest: float
    smallest: float
    random: float | None

    def __str__(self) -> str:
        random = "" if self.random is None else f", random {self.random:.3f}"
        return f"loss largest {self.largest:.3f}, smallest {self.smallest:.3f}{random}"


class Trainer:
    """What one run trains with: supernet, optimiser, data, device.

    Args:
        network: The description.
        data: Its training split is learned from.
        config: The run file's train section, with `steps` or `epochs` set.
        seed: Of weights, order, augmentation and children.
    """

    def __init__(self, network: Network, data: Dataset, config: TrainConfig, seed: int) -> None:
        set_threads(config.threads)
        self.network, self.data, self.config, self.seed = network, data, config, seed
        self.device = device_of(config.device)
        supernet = network.supernet(seed)
        self.supernet: Supernet = supernet.to(self.device)
        self.optimizer = sgd(self.supernet, config)
        resolution = network.dims[0].choices[-1]
        augment = Augment(
            crop_scale=(config.augment.crop_scale, 1.0),
            flip=data.flip,
            strong=config.augment.strong,
        )
        self.stream = TrainStream(
            data.train, augment, resolution, config.batch_size, seed, config.workers
        )
        self._regularisation = Regularisation(
            config.label_smoothing, config.dropout, config.drop_connect
        )

    def step(self, step: int, steps: int, x_NCHW: Tensor, labels_N: Tensor) -> list[Tensor]:
        """Run optimiser step number `step` of `steps` on one batch; returns the losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step, steps)
        self.optimizer.zero_grad(set_to_none=True)
        preprocess = self.data.preprocess
        x = normalise(x_NCHW.to(self.device), preprocess.mean, preprocess.std)
        children = children_of_step(self.network, self.seed, step, self.config.random_children)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(hash((self.seed, step)) % 2**63)  # dropout draws globally
            losses = sandwich_step(
                self.supernet,
                self.network.task,
                x,
                labels_N.to(self.device),
                children,
                self._regularisation,
                self._autocast(),
            )
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.clip_norm)
        self.optimizer.step()
        return losses

    def _autocast(self) -> Any:
        if self.device.type == "cuda" and self.config.mixed_precision:
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def steps_in(self, minutes: float) -> int:
        """How many steps fit into `minutes`, measured on a throw-away copy of the supernet."""
        warmup, timed = PROBE_STEPS
        weights = copy.deepcopy(self.supernet.state_dict())
        seconds: list[float] = []
        started = time.perf_counter()
        for step, (x, labels) in enumerate(self.stream.batches(0, warmup + timed)):
            # `item` waits for the device, so that the clock sees the whole step
            self.step(step, 10 * (warmup + timed), x, labels)[0].item()
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
        self.supernet.load_state_dict(weights)
        self.optimizer = sgd(self.supernet, self.config)
        return max(1, round(60 * minutes / statistics.median(seconds[warmup:])))

    def resolved(self) -> TrainConfig:
        """The config with its length as a fixed number of steps, so that a rerun repeats it."""
        config = self.config
        if config.steps is not None:
            return config
        if config.minutes is not None:
            steps = self.steps_in(config.minutes)
            say(f"{config.minutes:g} minutes are {steps} steps at this machine's present speed.")
        else:
            if config.epochs is None:
                say(f"no length is given: training {DEFAULT_EPOCHS} epochs.")
            steps = (config.epochs or DEFAULT_EPOCHS) * self.stream.steps_per_epoch
        return config.model_copy(update={"steps": steps, "epochs": None, "minutes": None})


def train(trainer: Trainer, folder: Path, *, resume: bool) -> None:
    """Train to the last step; the weights are in ``<folder>/supernet.safetensors``.

    Args:
        trainer: Its config has `steps` set.
        folder: The run folder, locked by the caller.
        resume: Go on from the checkpoint in the folder.

    Raises:
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM, after a checkpoint was written.
        TrainingDiverged: The loss is no number any more; the last checkpoint is kept.
        CheckpointError: Resuming from a file that is not this run's.
    """
    steps = trainer.config.steps
    assert steps is not None
    path, first = folder / FILE_NAME, 0
    if resume:
        progress = load_checkpoint(path, trainer.network, trainer.supernet, trainer.optimizer)
        first = progress.step
        say(f"going on from step {first} of {steps}.")

    def save(step: int) -> None:
        at = Progress(step, steps)
        save_checkpoint(path, trainer.network, trainer.supernet, trainer.optimizer, at)

    saved = logged = time.monotonic()
    with track("training", steps, first) as bar, stop_requests() as stop:
        for step, (x, labels) in enumerate(trainer.stream.batches(first, steps), first):
            losses = trainer.step(step, steps, x, labels)
            now, last = time.monotonic(), step + 1 == steps
            note = ""
            saves = last or stop.is_set() or now - saved >= trainer.config.checkpoint_seconds
            if saves or now - logged >= LOG_EVERY_SECONDS:  # no weights are saved unseen
                logged, note = now, str(_log(folder, step, trainer, losses))
            bar.advance(1, note)
            if saves:
                saved = now
                save(step + 1)
            if stop.is_set() and not last:
                raise KeyboardInterrupt


def _log(folder: Path, step: int, trainer: Trainer, losses: list[Tensor]) -> Losses:
    """Append a line to ``log.jsonl`` and look whether the losses are still numbers."""
    largest, *others = [float(loss) for loss in losses]
    random = others[:-1]
    summary = Losses(largest, others[-1], statistics.fmean(random) if random else None)
    if not all(map(math.isfinite, (largest, *others))):
        raise TrainingDiverged(
            f"the loss is {largest} at step {step + 1}; the checkpoint before is kept. Train again "
            f"with a lower rate: --set train.learning_rate={trainer.config.learning_rate / 3:.2g}"
        )
    rate = trainer.optimizer.param_groups[0]["lr"]
    row = {"step": step + 1, "learning_rate": rate, **summary.__dict__, "time": time.time()}
    path = folder / "log.jsonl"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}. The last checkpoint is kept; free "
            "some space or remove what is in the way, then go on with --resume."
        ) from error
    return summary


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine that ends in a constant at `final_rate` of the peak.

    The constant ending keeps small children learning (BigNAS, sec. 3.3).
    """
    warmup = config.warmup * steps
    if step < warmup:
        return config.learning_rate * (step + 1) / (math.ceil(warmup) + 1)
    share = (step - warmup) / max(steps - warmup, 1)
    return config.learning_rate * max(config.final_rate, (1 + math.cos(math.pi * share)) / 2)


def sgd(supernet: Supernet, config: TrainConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum; weight decay on weights, not on norms and biases."""
    parameters = list(supernet.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    nesterov = config.momentum > 0
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov
    )


def device_of(name: str) -> torch.device:
    """``cpu``, ``cuda``, or with ``auto`` a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA GPU here; set train.device=auto or cpu.")
    return torch.device(name)


def set_threads(threads: int | None) -> None:
    """Torch's threads on the CPU; None leaves torch's own choice."""
    if threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step is never cut in half.

    A second Ctrl-C acts at once. Outside the main thread signals stay as they are.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("stopping after this step ...")

    for number in before:
        signal.signal(number, request)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
