"""What surrounds every command: one message for an error, and a clean end when interrupted."""

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from elastic_nas.cli import faults, texts
from elastic_nas.cli.signals import INTERRUPTED, Interruption
from elastic_nas.errors import MOST_CHARACTERS, ConfigError, ElasticNasError, printable
from elastic_nas.progress import speaks
from elastic_nas.trusted import trusting

FAILED = 1


MOST_USAGE = 1000
"""Characters of what is wrong with an argument; click adds the usage, and quotes all of it."""


class Group(TyperGroup):
    """The commands, whose messages about wrong usage are printable and of bounded length."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _readable():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _readable():
            return super().invoke(ctx)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)  # of click's errors; typer has its own copy
        if hasattr(error, "format_message") and isinstance(message, str):
            vars(error)["message"] = printable(message, MOST_USAGE)
        raise


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """The function, ended by `typer.Exit` whatever happens.

    Its status is 1 for errors that a user can cause, 130 when interrupted, and 70 for all others.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        interruption = Interruption()
        try:
            with interruption.heard(), quiet(), trusting(kwargs.pop("trust", False)):
                _check_characters(kwargs)
                function(*args, **kwargs)
        except (typer.Exit, BrokenPipeError):
            raise  # whoever read the output has seen enough; click ends quietly
        except (KeyboardInterrupt, Exception) as error:
            if interruption.asked or isinstance(error, KeyboardInterrupt):
                raise _end(_interrupted(function.__name__, kwargs), INTERRUPTED) from None
            raise _failed(error) from None

    return run


def _check_characters(arguments: dict[str, Any]) -> None:
    """Refuse what can be neither the name of a file nor of anything else.

    Raises:
        ConfigError: An argument holds a NUL, or a half of a character.
    """
    for name, value in arguments.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str | Path) and not _is_possible(str(text)):
                what = name.rstrip("_").replace("_", "-")
                raise ConfigError(f"{what} holds a character that cannot be: {str(text)!r}.")


def _is_possible(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeError:
        return False


def _failed(error: BaseException) -> typer.Exit:
    if isinstance(error, ElasticNasError):
        return _end(f"error: {error}", FAILED)
    if isinstance(error, OSError):
        return _end(f"error: {printable(_system_error(error))}", FAILED)
    return typer.Exit(faults.tell(error))


def _interrupted(command: str, arguments: dict[str, Any]) -> str | None:
    if not speaks():
        return None
    try:
        return f"interrupted. {texts.how_to_go_on(command, arguments)}"
    except ElasticNasError:  # what it was asked for cannot be
        return "interrupted."


def _end(message: str | None, status: int) -> typer.Exit:
    if message is not None:
        typer.echo(printable(message, MOST_CHARACTERS - 10), err=True)
    return typer.Exit(status)


def _system_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}."


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of libraries are for developers, who ask for them with ``python -W``.

    Of the processes that torchrun starts, the first prints results.
    """
    with warnings.catch_warnings(), nullcontext() if speaks() else redirect_stdout(None):
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield
