"""Standard output and error: whatever is printed arrives, or its reader has left."""

import os
import sys
from io import TextIOWrapper


def prepare() -> None:
    """Characters that a stream cannot encode are escaped; by default they end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> bool:
    """Write out what is still held back; whether that could be done.

    A stream that fails leads nowhere from now on, or Python would complain about it once more.
    """
    flushed = [_flushed(stream) for stream in (sys.stdout, sys.stderr) if stream is not None]
    return all(flushed)


def _flushed(stream: object) -> bool:
    try:
        stream.flush()  # type: ignore[attr-defined]
    except (OSError, ValueError):
        if isinstance(stream, TextIOWrapper) and not stream.closed:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
