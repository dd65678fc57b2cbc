"""The training loop: steps in order, guards, checkpoints in between, stoppable at any moment."""

import statistics
import threading
import time
from functools import partial
from pathlib import Path

from elastic_nas.errors import DataError, TrainingDiverged
from elastic_nas.progress import Tracker, say, track
from elastic_nas.training.arrivals import Arrivals, NoBatch
from elastic_nas.training.books import Books
from elastic_nas.training.checkpoint import Progress
from elastic_nas.training.guard import Guard, all_finite
from elastic_nas.training.journal import ROLLED_BACK, Pace
from elastic_nas.training.memory import explained
from elastic_nas.training.stopping import stop_requests
from elastic_nas.training.trainer import Result, Trainer
from elastic_nas.training.validation import Validation

CHECK_EVERY = {"cpu": 1, "cuda": 10}
"""Steps between two looks at the losses: each look waits for the device."""


def train(trainer: Trainer, folder: Path, *, resume: bool) -> None:
    """Train to the last step; the weights are in ``<folder>/supernet.safetensors``.

    Args:
        trainer: Its config has `steps` set.
        folder: The run folder, locked by the caller.
        resume: Go on from the checkpoint in the folder.

    Raises:
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM, after a checkpoint was written; all
            processes after the same step.
        TrainingDiverged: The guard ended it; the last good checkpoint is kept.
        ConfigError: A step does not fit into memory; TensorBoard is missing.
        DataError: Images cannot be read any more, after a checkpoint was written; all processes
            after the same step.
        CheckpointError: Resuming from a file that is not this run's.
    """
    course = _Course(trainer, folder)
    first = course.go_back() if resume else 0
    steps = course.steps
    if resume:
        course.books.go_back(first, "resumed")
        say(f"going on from step {first} of {steps}.")
    insist = trainer.ranks.alone  # torchrun passes a Ctrl-C on, a second time perhaps
    with track("training", steps, first) as bar, stop_requests(insist=insist) as stop:
        try:
            while first < steps:
                first = course.run(first, bar, stop)
        finally:
            course.books.close()


class _Course:
    """A training on its way from one step to the last."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        assert trainer.config.steps is not None
        self.trainer, self.steps = trainer, trainer.config.steps
        self.books = Books(folder, trainer)
        self._guard = Guard(trainer.config.guard, trainer.network.classes)
        self._validation = Validation(trainer)
        self._every = CHECK_EVERY[trainer.device.type]
        self._hears_every = 1 if trainer.ranks.alone else self._every
        self._pace = Pace(trainer.config.batch_size, self.steps)
        self._saved, self._stored = time.monotonic(), False
        self._arrivals = Arrivals(trainer, self.books)
        self._done = self._kept = 0  # steps: in the weights, and in the last checkpoint
        self._unseen: Result | None = None

    def go_back(self) -> int:
        """Load the last good checkpoint; returns the steps done there."""
        at = self.books.load()
        self._guard.restore(at.guard)
        self._stored, self._kept = True, at.step
        self._arrivals.recall()
        return at.step

    def run(self, first: int, bar: Tracker, stop: threading.Event) -> int:
        """Steps from `first` on, to the last or to trouble; returns the step to go on from."""
        try:
            return self._run(first, bar, stop)
        except NoBatch as end:
            self._rescue()
            with self.trainer.ranks.together():
                if end.error is not None:
                    raise end.error from None
            raise SystemExit(1) from None

    def _run(self, first: int, bar: Tracker, stop: threading.Event) -> int:
        self._pace.restart()
        self._done = first
        batches = self._pace.timed(self._arrivals.batches(first, self.steps))
        asks = partial(self._asks, stop)
        for step, (x, labels) in enumerate(batches, first):
            with explained(self.trainer, x):
                result = self.trainer.step(step, self.steps, x, labels, self._guard.rate, asks)
            self._done = done = step + 1
            self._unseen = result
            validates = self._validation.is_due(done)
            heard = done % self._hears_every == 0
            stops, due = result.asked.tolist() if heard else (False, False)
            saves = done == self.steps or stops or due or validates
            note = ""
            if saves or done % self._every == 0:  # no weights are saved unseen
                losses, norm = self._by_kind(result.losses.tolist()), result.norm.item()
                trouble = self._guard.trouble(losses, norm)
                if saves and trouble is None and not all_finite(self.trainer.supernet.parameters()):
                    trouble = "the update made weights that are no numbers"
                if trouble is not None:
                    return self._recover(done, trouble, bar)
                self._unseen = None
                if saves or self._pace.is_due:
                    note = self._log(done, result.rate, losses, norm)
            bar.advance(1, note)
            if saves and (self._guard.calm or done == self.steps):
                self._save(done, validates)
            if stops and done < self.steps:
                raise KeyboardInterrupt
        return self.steps

    def _asks(self, stop: threading.Event) -> list[bool]:
        """Whether this process asks all to stop, and, by the first one's clock, to save."""
        due = time.monotonic() - self._saved >= self.trainer.config.checkpoint_seconds
        return [stop.is_set(), due and self.trainer.ranks.first]

    def _by_kind(self, losses: list[float]) -> dict[str, float]:
        """Mean loss of each kind of child, the largest first."""
        kinds = self.trainer.sampler.kinds
        return {
            kind: statistics.fmean(loss for loss, k in zip(losses, kinds, strict=True) if k == kind)
            for kind in dict.fromkeys(kinds)
        }

    def _rescue(self) -> None:
        """Save what is done, where its images end a training."""
        if self._done > self._kept and self._is_sound():
            self._save(self._done, validates=False)
        if self._stored:
            say(f"the training is kept as it was after step {self._kept} of {self.steps}.")

    def _is_sound(self) -> bool:
        """Whether the weights are good enough to go back to; looks at the last step."""
        trouble, last = None, self._unseen
        if last is not None:
            losses = self._by_kind(last.losses.tolist())
            trouble = self._guard.trouble(losses, last.norm.item())
        finite = all_finite(self.trainer.supernet.parameters())
        return trouble is None and self._guard.calm and finite

    def _save(self, done: int, validates: bool) -> None:
        accuracies = self._judged(done) if validates else None
        if accuracies is not None:
            self.books.write({"step": done, **accuracies, "images": self._validation.images})
        score = None if accuracies is None else statistics.fmean(accuracies.values())
        self.books.save(Progress(done, self.steps, self._guard.state), score)
        self._saved, self._stored, self._kept = time.monotonic(), True, done
        self.books.draw(at_once=done == self.steps)
        self._pace.restart()

    def _judged(self, done: int) -> dict[str, float]:
        """The validation; where its images cannot be read, the training is saved first."""
        try:
            return self._validation()
        except (DataError, SystemExit):  # the latter where another process tells why
            self._save(done, validates=False)
            say(f"the training is kept as it was after step {done} of {self.steps}.")
            raise

    def _recover(self, done: int, trouble: str, bar: Tracker) -> int:
        """Go back with a lower rate, or end; returns the step to go on from."""
        guard = self._guard
        if not guard.may_roll_back:
            rate = self.trainer.config.learning_rate
            self.books.draw(at_once=True)
            with self.trainer.ranks.together():
                raise TrainingDiverged(f"step {done}: {trouble}. {guard.way_out(rate)}")
        at = self._last_good()
        guard.roll_back(at.guard)
        # Stored at once: a kill must not bring the higher rate back.
        self.books.save(Progress(at.step, self.steps, guard.state))
        self._stored, self._kept = True, at.step
        facts = {"at": done, "trouble": trouble, "rate_factor": guard.rate}
        self.books.go_back(at.step, ROLLED_BACK, **facts)
        say(
            f"step {done}: {trouble}. Going back to step {at.step}; from there on the learning "
            f"rate is {guard.rate:.3g} of the run file's (roll-back {guard.rolled_back} of "
            f"{self.trainer.config.guard.most})."
        )
        bar.go_to(at.step)
        return at.step

    def _last_good(self) -> Progress:
        """Load the last good checkpoint; before the first one, begin anew."""
        if self._stored:
            return self.books.load()
        self.trainer.restart()
        return Progress(0, self.steps)

    def _log(self, done: int, rate: float, losses: dict[str, float], norm: float) -> str:
        """Append a row to the log; returns a line for the person who waits."""
        figures = self._pace.figures()
        self._pace.restart()
        row = {"step": done, "learning_rate": rate, **losses, "gradient_norm": norm, **figures}
        self.books.write(row)
        told = ", ".join(f"{kind} {loss:.4g}" for kind, loss in losses.items())
        return (
            f"loss {told}; rate {rate:.3g}; {figures['images_per_s']:.0f} images/s, "
            f"waiting {figures['waited']:.0%}"
        )
