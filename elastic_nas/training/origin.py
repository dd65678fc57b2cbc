"""What wrote a checkpoint: versions, and the commit where it was run from a checkout."""

import platform
from contextlib import suppress
from pathlib import Path

import torch

from elastic_nas._version import __version__
from elastic_nas.files import PACKAGE


def versions() -> dict[str, str]:
    """Of what the weights' bits depend on."""
    return {
        "elastic_nas": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def commit(checkout: Path = PACKAGE.parent) -> str | None:
    """The commit that is checked out where the package lies; None where it is installed.

    Read from git's files, as https://git-scm.com/docs/gitrepository-layout describes them.
    """
    with suppress(OSError, UnicodeDecodeError, StopIteration):
        git = checkout / ".git"
        if git.is_file():  # a further working tree
            git = checkout / _value(git)
        head = _text(git / "HEAD")
        if head.startswith("ref: "):
            shared = git / _text(git / "commondir") if (git / "commondir").is_file() else git
            head = _reference(shared, head.removeprefix("ref: "))
        return head or None
    return None


def _reference(git: Path, name: str) -> str:
    if (git / name).is_file():
        return _text(git / name)
    lines = _text(git / "packed-refs").splitlines()
    return next(line.split()[0] for line in lines if line.endswith(f" {name}"))


def _value(path: Path) -> str:
    return _text(path).removeprefix("gitdir: ")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()
