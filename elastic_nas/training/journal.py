"""The log of a training: one JSON object a line, and the same for TensorBoard on request."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from elastic_nas.errors import ConfigError, RunFolderError
from elastic_nas.outside import read_bytes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE_NAME = "log.jsonl"
BOARD = "tensorboard"
ROLLED_BACK = "rolled back"
"""The event that takes a training back."""
DAMAGED = "damaged"
"""The event that an image cannot be read."""
SECONDS_BETWEEN_ROWS = 2.0
MOST_BYTES = 256_000_000
"""Of a log that is read."""
MOST_ROWS = 5000
"""Of a whole training, beside those of its checkpoints: a log stays a file of a few megabytes."""

T = TypeVar("T")


class Journal:
    """Appends rows to ``log.jsonl``.

    Args:
        folder: The run folder.
        tensorboard: Write the numbers for TensorBoard, too, into ``tensorboard/``.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
        RunFolderError: The file cannot be written.
    """

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        self._path, self._board_folder = folder / FILE_NAME, folder / BOARD
        self._board = self._open_board() if tensorboard else None
        if os.path.lexists(self._path) and not _ends_a_line(self._path):
            self._append("\n")  # a kill cut the last line

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, with the time.

        Args:
            row: Plain values; ``step`` is one of them.

        Raises:
            RunFolderError: The file cannot be written.
        """
        self._append(json.dumps({**row, "time": time.time()}, allow_nan=False) + "\n")
        if self._board is not None:
            for key, value in row.items():
                if key != "step" and isinstance(value, int | float):
                    self._board.add_scalar(_tag(key), value, row["step"])

    def go_back(self, step: int, event: str, **facts: Any) -> None:
        """Append that the training goes on from `step`: rows beyond it are of the past.

        Raises:
            RunFolderError: The file cannot be written.
        """
        self.write({"step": step, "event": event, **facts})
        if self._board is not None:
            self._board.close()
            self._board = self._open_board(step + 1)

    def close(self) -> None:
        """Flush what is written for TensorBoard."""
        if self._board is not None:
            self._board.close()

    def _append(self, text: str) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise RunFolderError(
                f"cannot write {self._path}: {error.strerror or error}. The last checkpoint is "
                "kept; free some space or remove what is in the way, then go on with --resume."
            ) from error

    def _open_board(self, purge_step: int | None = None) -> "SummaryWriter":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "train.tensorboard is on, but TensorBoard is not installed: "
                "pip install elastic-nas[tensorboard], or set train.tensorboard=false."
            ) from error
        return SummaryWriter(str(self._board_folder), purge_step=purge_step)


def _ends_a_line(path: Path) -> bool:
    """Whether a log's last line is whole.

    Raises:
        RunFolderError: It is no file that can be read.
    """
    return read_bytes(path, MOST_BYTES).endswith(b"\n")


def _tag(key: str) -> str:
    """``loss/largest``, ``accuracy/largest``, ``training/learning_rate``."""
    if key in ("largest", "random", "smallest"):
        return f"loss/{key}"
    name = key.removesuffix("_accuracy")
    return f"training/{key}" if name == key else f"accuracy/{name}"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log as the training went in the end, ordered by step.

    A row replaces those of later steps that stand before it, and that of the same step and keys:
    a killed or rolled-back training did these steps again. Rows of events all stay. Lines that are
    no row, such as one cut by a kill, are left out; without a file there are no rows.
    """
    rows: dict[tuple[int, frozenset[str]], dict[str, Any]] = {}
    events: list[dict[str, Any]] = []
    for row in _rows(path):
        while rows and next(reversed(rows))[0] > row["step"]:
            rows.popitem()
        if "event" in row:
            events.append(row)
        else:
            rows[row["step"], frozenset(row)] = row
    return sorted([*events, *rows.values()], key=lambda row: int(row["step"]))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = read_bytes(path, MOST_BYTES).decode(errors="replace")
    except RunFolderError:
        return
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] < 10**15:
            yield row


def read_damaged(path: Path) -> list[str]:
    """Identities of the images that a log says cannot be read, in hexadecimal digits, each once."""
    noted = (row.get("identity") for row in _rows(path) if row.get("event") == DAMAGED)
    return list(dict.fromkeys(key for key in noted if isinstance(key, str)))


class Pace:
    """How fast a training goes, between one row of the log and the next.

    Args:
        images: A step.
        steps: Of the whole training.
    """

    def __init__(self, images: int, steps: int) -> None:
        self._images, self._least_steps = images, steps / MOST_ROWS
        self.restart()

    def restart(self) -> None:
        """Begin a new span of time."""
        self._since, self._waited, self._steps = time.monotonic(), 0.0, 0

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; the time that they let the device wait is added up."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - asked
            if batch is None:
                return
            self._steps += 1
            yield batch

    @property
    def is_due(self) -> bool:
        """Whether it is time for a row."""
        late = time.monotonic() - self._since >= SECONDS_BETWEEN_ROWS
        return late and self._steps >= self._least_steps

    def figures(self) -> dict[str, float]:
        """Share of the time waited for images, and images a second, since the last span began."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        return {
            "waited": round(self._waited / seconds, 4),
            "images_per_s": round(self._steps * self._images / seconds, 1),
        }
