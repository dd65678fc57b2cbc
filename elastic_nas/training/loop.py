"""The training loop: steps in order, guards, checkpoints in between, stoppable at any moment."""

import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elastic_nas.errors import TrainingDiverged
from elastic_nas.progress import Tracker, say, track
from elastic_nas.training.checkpoint import Checkpoints, Progress
from elastic_nas.training.guard import Guard
from elastic_nas.training.journal import Journal
from elastic_nas.training.stopping import stop_requests
from elastic_nas.training.trainer import Result, Trainer
from elastic_nas.training.validation import Validation

LOG_EVERY_SECONDS = 2.0
CHECK_EVERY = {"cpu": 1, "cuda": 10}
"""Steps between two looks at the losses: each look waits for the device."""


def train(trainer: Trainer, folder: Path, *, resume: bool) -> None:
    """Train to the last step; the weights are in ``<folder>/supernet.safetensors``.

    Args:
        trainer: Its config has `steps` set.
        folder: The run folder, locked by the caller.
        resume: Go on from the checkpoint in the folder.

    Raises:
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM, after a checkpoint was written.
        TrainingDiverged: The guard ended it; the last good checkpoint is kept.
        CheckpointError: Resuming from a file that is not this run's.
    """
    course = _Course(trainer, folder)
    first = course.go_back() if resume else 0
    steps = course.steps
    if resume:
        say(f"going on from step {first} of {steps}.")
    with track("training", steps, first) as bar, stop_requests() as stop:
        try:
            while first < steps:
                first = course.run(first, bar, stop)
        finally:
            course.journal.close()


class _Course:
    """A training on its way from one step to the last."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        assert trainer.config.steps is not None
        self.trainer, self.steps = trainer, trainer.config.steps
        self.journal = Journal(folder, tensorboard=trainer.config.tensorboard)
        self._checkpoints = Checkpoints(folder, trainer)
        self._guard = Guard(trainer.config.guard, trainer.network.classes)
        self._validation = Validation(trainer)
        self._every = CHECK_EVERY[trainer.device.type]
        self._saved = self._logged = time.monotonic()
        self._waited = 0.0

    def go_back(self) -> int:
        """Load the last good checkpoint; returns the steps done there."""
        at = self._checkpoints.load()
        self._guard.restore(at.guard)
        return at.step

    def run(self, first: int, bar: Tracker, stop: threading.Event) -> int:
        """Steps from `first` on, to the last or to trouble; returns the step to go on from."""
        for step, (x, labels) in enumerate(self._batches(first), first):
            result = self.trainer.step(step, self.steps, x, labels, self._guard.rate)
            done = step + 1
            validates = self._validation.is_due(done)
            now = time.monotonic()
            due = now - self._saved >= self.trainer.config.checkpoint_seconds
            saves = done == self.steps or stop.is_set() or due or validates
            note = ""
            if saves or done % self._every == 0:  # no weights are saved unseen
                losses, norm = result.losses.tolist(), result.norm.item()
                trouble = self._guard.trouble(losses, norm)
                if trouble is not None:
                    return self._recover(step, trouble, bar)
                if saves or now - self._logged >= LOG_EVERY_SECONDS:
                    note = self._log(step, result, losses, norm)
            bar.advance(1, note)
            if saves:
                self._save(done, validates)
            if stop.is_set() and done < self.steps:
                raise KeyboardInterrupt
        return self.steps

    def _batches(self, first: int) -> Iterator[Any]:
        """The stream's batches; the time that they keep the device waiting is added up."""
        batches = self.trainer.stream.batches(first, self.steps)
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def _save(self, done: int, validates: bool) -> None:
        accuracies = self._validation() if validates else None
        if accuracies is not None:
            self.journal.write({"step": done, **accuracies})
        score = None if accuracies is None else statistics.fmean(accuracies.values())
        self._checkpoints.save(Progress(done, self.steps, self._guard.state), score)
        self._saved = time.monotonic()

    def _recover(self, step: int, trouble: str, bar: Tracker) -> int:
        raise TrainingDiverged(
            f"{trouble} at step {step + 1}; the checkpoint before is kept. Train again with a "
            "lower rate: --set train.learning_rate="
            f"{self.trainer.config.learning_rate / 3:.2g}"
        )

    def _log(self, step: int, result: Result, losses: list[float], norm: float) -> str:
        """Append a row to the log; returns a line for the person who waits."""
        names = self.trainer.sampler.kinds
        row: dict[str, Any] = {"step": step + 1, "learning_rate": result.rate}
        for name in dict.fromkeys(names):
            row[name] = statistics.fmean(
                loss for loss, other in zip(losses, names, strict=True) if other == name
            )
        now = time.monotonic()
        row["gradient_norm"] = norm
        row["waited"] = round(self._waited / max(now - self._logged, 1e-9), 4)
        self._logged, self._waited = now, 0.0
        self.journal.write(row)
        return "loss " + ", ".join(f"{name} {row[name]:.3f}" for name in dict.fromkeys(names))
