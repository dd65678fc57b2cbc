"""What a source is called, and where it lies: words only, nothing is read."""

import os
from pathlib import Path

from elastic_nas.errors import UnknownName

HUB = "hf:"
"""How a source on the Hugging Face hub, or saved by its library, begins."""

MOST_NAME = 4000
"""Characters of a path."""


def local_path(source: str) -> Path:
    """The path that a source names, with ``~`` written out; there may be nothing.

    Raises:
        UnknownName: It can be no path.
    """
    try:
        if len(source) > MOST_NAME or "\0" in source:
            raise ValueError("too long, or with a NUL")
        path = Path(source).expanduser()
        os.fsencode(path)
    except (ValueError, RuntimeError) as error:  # of a user that there is not
        reason = str(error).rstrip(".")
        raise UnknownName(f"no file or folder can be called {source[:200]!r}: {reason}.") from error
    return path


def saved_path(source: str) -> Path | None:
    """The folder that ``hf:/path`` means; None of other sources, such as ``hf:NAME``.

    Raises:
        UnknownName: It can be no path.
    """
    name = source.removeprefix(HUB)
    if name == source or not name.startswith(("/", "./", "../", "~")):
        return None
    return local_path(name)


def anchored(source: str) -> str:
    """The same source wherever the program is started next: paths are made absolute.

    Raises:
        UnknownName: It can be no path.
    """
    saved = saved_path(source)
    if saved is not None:
        return f"{HUB}{os.path.realpath(saved)}"
    if source == "digits" or source.startswith(HUB):
        return source
    return os.path.realpath(local_path(source))


def name_of(source: str) -> str:
    """A short name: of the folder, the data file or the data set.

    Raises:
        UnknownName: It can be no path.
    """
    saved = saved_path(source)
    if source.startswith(HUB) and saved is None:
        return source.removeprefix(HUB).rpartition("/")[2].replace(":", "-")
    path = saved or local_path(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        return path.stem
    return Path(os.path.realpath(path)).name
