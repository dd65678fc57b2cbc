"""What one run trains with: supernet, optimiser, data, device; and one step of it."""

import copy
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elastic_nas.config import TrainConfig
from elastic_nas.data.augment import Augment
from elastic_nas.data.dataset import Dataset
from elastic_nas.data.mix import Mix
from elastic_nas.data.stream import TrainStream
from elastic_nas.genotype import Genotype
from elastic_nas.network import Network
from elastic_nas.nn.layers import NORM_EPS, ElasticBatchNorm2d
from elastic_nas.nn.supernet import Supernet
from elastic_nas.nn.sync_norm import sync_norm
from elastic_nas.progress import say
from elastic_nas.training.agreement import check_batch, check_labels, least_steps, share_optimizer
from elastic_nas.training.device import device_of, set_threads
from elastic_nas.training.distributed import ALONE, Ranks
from elastic_nas.training.optimiser import Average, make_optimizer
from elastic_nas.training.sampling import Sampler
from elastic_nas.training.schedule import learning_rate
from elastic_nas.training.step import Regularisation, Teaching, normalise, sandwich_step

DEFAULT_EPOCHS = 30
PROBE_STEPS = (2, 6)  # warm-up and timed steps that turn minutes into a number of steps


class Result(NamedTuple):
    """What a step tells; tensors on the device, so that nothing waits for it.

    Attributes:
        losses: Of each child, in the order of the lessons; over all processes, as the rest.
        norm: Of the summed gradient, before clipping.
        rate: The learning rate.
        asked: Whether any process asks for each of the things that were to be asked for (above 0).
    """

    losses: Tensor
    norm: Tensor
    rate: float
    asked: Tensor


def _nothing() -> list[bool]:
    return []


class Trainer:
    """What one run trains with: supernet, optimiser, data, device.

    Args:
        network: The description.
        data: Its training split is learned from.
        config: The run file's train section, with `steps` or `epochs` set.
        seed: Of weights, order, augmentation and children.
        begin: Fills a fresh supernet with the weights to begin with; None: random ones.
        ranks: The processes that train together; before the first step all call `agree`.

    Raises:
        ConfigError: There is no such device, or a batch cannot be cut into the parts asked for.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        config: TrainConfig,
        seed: int,
        begin: Callable[[Supernet], None] | None = None,
        *,
        ranks: Ranks = ALONE,
    ) -> None:
        set_threads(config.threads)
        check_batch(config, ranks)
        self.network, self.data, self.config, self.seed = network, data, config, seed
        self.device, self.ranks = device_of(config.device), ranks
        self._begin = begin
        self.supernet: Supernet = self._fresh().to(self.device)
        if config.sync_norm and not ranks.alone:
            for norm in _norms(self.supernet):
                norm.normalise = partial(sync_norm, ranks, NORM_EPS)
        self._start()
        augment = Augment(
            crop_scale=(config.augment.crop_scale, 1.0),
            flip=data.flip,
            strong=config.augment.strong,
            magnitude=config.augment.magnitude,
            operations=config.augment.operations,
        )
        resolution = network.dims[0].choices[-1]
        self.stream = TrainStream(
            data.train,
            augment,
            resolution,
            config.batch_size,
            seed,
            config.workers,
            rank=ranks.rank,
            ranks=ranks.size,
        )
        self.stream.rule = data.damaged
        mix = Mix(config.augment.mixup, config.augment.cutmix)
        self._mix = mix if mix.mixup or mix.cutmix else None
        self.sampler = Sampler(network, config, seed)
        regularisation = Regularisation(
            config.label_smoothing,
            config.dropout,
            config.drop_connect,
            config.drop_connect_stages,
        )
        self._teaching = Teaching(
            network.task, regularisation, config.distillation, config.accumulate
        )

    def agree(self) -> None:
        """Let all processes begin with the first one's weights, and do as many steps an epoch.

        Raises:
            DataError: They see other classes.
        """
        check_labels(self.ranks, self.data.labels)
        self.stream.steps_per_epoch = least_steps(self.ranks, self.stream.steps_per_epoch)
        self.share()

    def share(self) -> None:
        """Give all processes the first one's weights, average and optimiser state."""
        averages = {} if self.average is None else self.average.tensors
        self.ranks.share_([*self.supernet.state_dict().values(), *averages.values()])
        share_optimizer(self.ranks, self.optimizer)

    def restart(self) -> None:
        """Weights, optimiser and average as before the first step."""
        self.supernet.load_state_dict(self._fresh().state_dict())
        self._start()
        self.share()

    def _fresh(self) -> Supernet:
        supernet = self.network.supernet(self.seed)
        if not self.config.zero_init:
            _start_all_norms_at_one(supernet)
        if self._begin is not None:
            self._begin(supernet)
        return supernet

    def _start(self) -> None:
        """Optimiser and average as before the first step."""
        self.optimizer = make_optimizer(self.supernet, self.config)
        decay = self.config.ema
        self.average = None if decay is None else Average(self.supernet.named_parameters(), decay)

    def step(
        self,
        step: int,
        steps: int,
        x_NCHW: Tensor,
        labels_N: Tensor,
        factor: float = 1.0,
        asks: Callable[[], list[bool]] = _nothing,
    ) -> Result:
        """Run optimiser step number `step` of `steps` on one batch.

        Args:
            step: From 0.
            steps: Of the whole training.
            x_NCHW: Pixels, uint8, at the largest resolution; this process's share of the batch.
            labels_N: Class indices.
            factor: Of the learning rate.
            asks: Which things this process asks all for; called late in the step.
        """
        rate = factor * learning_rate(self.config, step, steps, self.stream.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        x, targets = self._prepared(step, x_NCHW, labels_N)
        losses = self._gradients(step, step / steps, x, targets)
        losses, asked = self._of_all(losses, asks())
        norm = self._clip()
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step)
        return Result(losses, norm, rate, asked)

    def _of_all(self, losses: Tensor, asks: list[bool]) -> tuple[Tensor, Tensor]:
        """Average gradients and losses over all processes; with them goes what each asks for."""
        if self.ranks.alone:
            return losses, torch.tensor(asks)
        # Filled, not copied to the device, which would wait for it.
        flags = [torch.full((1,), float(ask), device=self.device) for ask in asks]
        figures = torch.cat([losses, *flags])
        averages = self.ranks.average(list(self.supernet.parameters()), figures)
        return averages[: len(losses)], averages[len(losses) :]

    def _prepared(self, step: int, x_NCHW: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images on the device, and targets."""
        preprocess = self.data.preprocess
        x = normalise(x_NCHW.to(self.device, non_blocking=True), preprocess.mean, preprocess.std)
        targets = labels_N.to(self.device, non_blocking=True)
        if self._mix is not None:
            rng = np.random.default_rng((2, self.seed, step, self.ranks.rank))
            return self._mix(x, targets, self.network.classes, rng)
        return x, targets

    def _gradients(self, step: int, share: float, x_NCHW: Tensor, targets: Tensor) -> Tensor:
        devices = [self.device] if self.device.type == "cuda" else []
        lessons = self.sampler.lessons(step, lambda g: self._judge(g, x_NCHW, targets), share)
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._draws(step))  # dropout draws globally
            return sandwich_step(
                self.supernet, self._teaching, x_NCHW, targets, lessons, self._autocast()
            )

    def _draws(self, step: int) -> int:
        """Seed of a step's dropout, which differs between processes."""
        rank = self.ranks.rank
        return hash((self.seed, step, rank) if rank else (self.seed, step)) % 2**63

    def _clip(self) -> Tensor:
        """Clip the gradients as the config says; returns their norm before."""
        config = self.config
        parameters = [p for p in self.supernet.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, config.clip_norm, norm)
        if config.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, config.clip_value)
        return norm

    @torch.no_grad()
    def _judge(self, genotypes: list[Genotype], x_NCHW: Tensor, targets: Tensor) -> list[float]:
        """Loss of each child on the first part of a batch, for best-up; summed over processes."""
        parts = self.config.accumulate
        x, y = x_NCHW.chunk(parts)[0], targets.chunk(parts)[0]
        losses = []
        for genotype in genotypes:
            with self._autocast():
                logits = self.supernet(x, genotype)
            losses.append(self.network.task.loss(logits, y, 0.0))
        judged = torch.stack(losses)
        self.ranks.sum_(judged)  # all processes choose the same child
        return judged.tolist()

    def _autocast(self) -> Any:
        if self.device.type == "cuda" and self.config.mixed_precision:
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def steps_in(self, minutes: float) -> int:
        """How many steps fit into `minutes`, measured on a throw-away copy of the supernet.

        Raises:
            ConfigError: A step does not fit into memory.
        """
        from elastic_nas.training.memory import explained  # which knows trainers

        warmup, timed = PROBE_STEPS
        weights = copy.deepcopy(self.supernet.state_dict())
        seconds: list[float] = []
        started = time.perf_counter()
        for step, (x, labels) in enumerate(self.stream.batches(0, warmup + timed)):
            # `tolist` waits for the device, so that the clock sees the whole step
            with explained(self, x):
                self.step(step, 10 * (warmup + timed), x, labels).losses.tolist()
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
        self.supernet.load_state_dict(weights)
        self._start()
        steps = max(1, round(60 * minutes / statistics.median(seconds[warmup:])))
        return self.ranks.told(lambda: steps)

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


def _norms(supernet: Supernet) -> list[ElasticBatchNorm2d]:
    return [module for module in supernet.modules() if isinstance(module, ElasticBatchNorm2d)]


def _start_all_norms_at_one(supernet: Supernet) -> None:
    for norm in _norms(supernet):
        torch.nn.init.ones_(norm.weight_C)
