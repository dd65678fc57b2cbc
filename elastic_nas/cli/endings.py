"""What surrounds every command: one message for an error, and a clean end when interrupted."""

import functools
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

import typer

from elastic_nas.cli import texts
from elastic_nas.errors import ElasticNasError
from elastic_nas.progress import speaks
from elastic_nas.trusted import trusting

FAILED, INTERRUPTED = 1, 130


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """The function, ending with status 1 on errors a user can cause and 130 when interrupted."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with terminable(), quiet(), trusting(kwargs.pop("trust", False)):
                function(*args, **kwargs)
        except ElasticNasError as error:
            raise _end(f"error: {error}", FAILED) from None
        except BrokenPipeError:
            raise  # whoever read the output has seen enough; click ends quietly
        except OSError as error:
            raise _end(f"error: {_system_error(error)}", FAILED) from None
        except KeyboardInterrupt:
            told = f"interrupted. {texts.how_to_go_on(function.__name__, kwargs)}"
            raise _end(told if speaks() else None, INTERRUPTED) from None

    return run


def _end(message: str | None, status: int) -> typer.Exit:
    if message is not None:
        typer.echo(message, err=True)
    return typer.Exit(status)


def _system_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}."


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM acts like Ctrl-C, so that it leaves nothing half done either."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of libraries are for developers, who ask for them with ``python -W``.

    Of the processes that torchrun starts, the first prints results.
    """
    with warnings.catch_warnings(), nullcontext() if speaks() else redirect_stdout(None):
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield
