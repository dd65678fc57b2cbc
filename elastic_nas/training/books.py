"""What a training leaves in its folder: checkpoints, log and picture."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from elastic_nas.training.checkpoint import Progress
from elastic_nas.training.checkpoints import Checkpoints
from elastic_nas.training.curves import Curves
from elastic_nas.training.journal import DAMAGED, FILE_NAME, Journal, read_damaged
from elastic_nas.training.trainer import Trainer


class Books:
    """Keeps a training's folder: the first process alone reads and writes it, for all of them.

    Args:
        folder: The run folder, locked by the first process.
        trainer: Whose supernet, optimiser and average are stored and filled.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
        RunFolderError: The log cannot be written.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self._folder = folder
        self._trainer, self._first, config = trainer, trainer.ranks.first, trainer.config
        self._checkpoints = Checkpoints(folder, trainer)
        self._curves = Curves(folder, config.steps or 0, trainer.network.classes)
        with trainer.ranks.together():
            self._journal = Journal(folder, tensorboard=config.tensorboard) if self._first else None

    def load(self) -> Progress:
        """Fill the trainers of all processes from the newest sound checkpoint.

        Raises:
            CheckpointError: See `Checkpoints.restore`.
            ConfigError: See `Checkpoints.restore`.
        """
        at = self._trainer.ranks.told(lambda: asdict(self._checkpoints.load()))
        self._trainer.share()
        return Progress(**at)

    def save(self, at: Progress, score: float | None = None) -> None:
        """Write a checkpoint: see `Checkpoints.save`."""
        if self._first:
            self._checkpoints.save(at, score)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row to the log: see `Journal.write`."""
        if self._journal is not None:
            self._journal.write(row)

    def go_back(self, step: int, event: str, **facts: Any) -> None:
        """Append to the log that the training goes on from `step`: see `Journal.go_back`."""
        if self._journal is not None:
            self._journal.go_back(step, event, **facts)

    def note_damaged(self, step: int, key: str, why: str) -> None:
        """Append to the log that a training image cannot be read.

        Args:
            step: That would have shown it.
            key: Its identity, in hexadecimal digits.
            why: What it is called, and why.
        """
        self.write({"step": step, "event": DAMAGED, "image": why, "identity": key})

    def damaged(self) -> list[str]:
        """Identities of the images that the log says cannot be read."""
        return read_damaged(self._folder / FILE_NAME)

    def draw(self, *, at_once: bool) -> None:
        """Draw the picture: see `Curves.draw`."""
        if self._first:
            self._curves.draw(at_once=at_once)

    def close(self) -> None:
        """Flush what is written."""
        if self._journal is not None:
            self._journal.close()
