"""Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from elastic_nas.errors import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

SECONDS_BETWEEN_LINES = 15.0
STEPS_TO_ESTIMATE, SECONDS_TO_ESTIMATE = 2, 2.0
"""The first step often takes much longer or shorter than the others: no estimate from it."""


class Tracker:
    """What the work tells: how far it is, and a note."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done = printable(title), total, done
        self._first, self._started, self._printed = done, time.monotonic(), 0.0
        self._note = ""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that `steps` more steps are done; a note stays until the next one."""
        self.done += steps
        self._note = printable(note) or self._note
        self._show()

    def go_to(self, done: int) -> None:
        """Say that the work goes on from `done` steps: those beyond are to be done again."""
        self.done = self._first = done
        self._started = time.monotonic()
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._printed >= SECONDS_BETWEEN_LINES or self.done >= self.total:
            self._printed = now
            say(f"{self.title}: {self.line()}")

    def line(self) -> str:
        """The figures, then the latest note."""
        return f"{self.figures()}; {self._note}" if self._note else self.figures()

    def figures(self) -> str:
        """``12/40, 3.1/s, 0:09 left``; at first without the time left."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        steps = self.done - self._first
        if self.done < self.total and (steps < STEPS_TO_ESTIMATE or seconds < SECONDS_TO_ESTIMATE):
            return f"{self.done}/{self.total}"
        left = (self.total - self.done) * seconds / max(steps, 1)
        return f"{self.done}/{self.total}, {steps / seconds:.3g}/s, {clock(left)} left"


class _Bar(Tracker):
    """The same on a terminal, through rich: the figures beside a bar, the note below."""

    def __enter__(self) -> "_Bar":
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(30),
            TextColumn("{task.fields[line]}"),
        )
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task(self.title, total=self.total, line="")
        self._live = Live(console=console, get_renderable=self._view)
        self._live.start()
        return self

    def _view(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        if not self._note:
            return self._progress
        return Group(
            self._progress, Text(f"  {self._note}", "dim", no_wrap=True, overflow="ellipsis")
        )

    def _show(self) -> None:
        self._progress.update(self._task, completed=self.done, line=self.figures())

    def __exit__(self, *_: object) -> None:
        self._live.stop()


@contextmanager
def track(title: str, total: int, done: int = 0) -> Iterator[Tracker]:
    """Show the progress of `total` steps while the block runs.

    Args:
        title: What is being done.
        total: Number of steps.
        done: Steps that an earlier run did already.
    """
    if sys.stderr.isatty() and speaks():
        with _Bar(title, total, done) as bar:
            yield bar
    else:
        yield Tracker(title, total, done)


def say(message: str) -> None:
    """One message for the person who waits, on standard error; printable, whatever it quotes."""
    if speaks():
        print(printable(message), file=sys.stderr, flush=True)


def speaks() -> bool:
    """Whether this process talks: of those that torchrun starts, the first does for all."""
    return os.environ.get("RANK", "0") == "0"


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
