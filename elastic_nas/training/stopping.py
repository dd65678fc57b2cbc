"""Stop requests: Ctrl-C, SIGTERM and SIGHUP end a training between two steps, never within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from elastic_nas.progress import say

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_requests(*, insist: bool = True) -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set, so that a step is never cut in half.

    Outside the main thread signals stay as they are, and with ``nohup`` SIGHUP does.

    Args:
        insist: A second Ctrl-C acts at once.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]

    def request(number: int, frame: FrameType | None) -> None:
        if insist:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if not event.is_set():
            say("stopping after this step ...")
        event.set()

    for number in before:
        signal.signal(number, request)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
