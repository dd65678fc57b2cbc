"""Ctrl-C, SIGTERM and SIGHUP from the first import to the last line; it imports next to nothing.

While a command works they raise ``KeyboardInterrupt``, so that what is half done is cleaned up.
Before and after there is nothing to clean up: the process ends at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 0.02
MOST_DELAYS = 1000
"""An import of 20 seconds is cut short."""


def end_at_once(message: str = "") -> None:
    """From now on a signal ends the process with status 130, after `message` on standard error.

    Signals that this process was started to ignore, as by ``nohup``, stay ignored.
    """

    def end(number: int, frame: FrameType | None) -> None:
        if message and os.environ.get("RANK", "0") == "0":
            _write(f"{message}\n".encode())
        os._exit(INTERRUPTED)

    for number in _heard():
        signal.signal(number, end)


def end_by_itself() -> None:
    """Signals are ignored from now on: Python takes itself apart, which no handler survives."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


class Interruption:
    """Signals as ``KeyboardInterrupt``.

    Where Python would lose the interruption it comes a little later: native code that imports
    modules drops it or reports a failed import, and finalisers print it.

    Attributes:
        asked: Whether a signal came. An error that follows may well be what native code made of
            the interruption.
    """

    def __init__(self) -> None:
        self.asked = False
        self._delays = 0

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within the block all signals act like Ctrl-C; outside the main thread they stay."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (*_heard(), signal.SIGALRM)}
        hook = sys.unraisablehook
        try:
            sys.unraisablehook = self._heed
            for number in before:
                signal.signal(number, self._interrupt)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
            sys.unraisablehook = hook

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise ``KeyboardInterrupt``, or ask again in a moment while modules are imported."""
        self.asked = True
        if self._delays < MOST_DELAYS and _imports(frame):
            self._delays += 1
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            return
        raise KeyboardInterrupt

    def _heed(self, unraisable: Any) -> None:
        """Ask again for an interruption that came within a finaliser, where it is not raised."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            sys.__unraisablehook__(unraisable)


def _heard() -> list[signal.Signals]:
    return [number for number in NUMBERS if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _write(message: bytes) -> None:
    try:
        os.write(2, message)
    except OSError:
        return  # nobody listens any more
