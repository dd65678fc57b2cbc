"""What a source is called, and where it lies: words only, nothing is read."""

from pathlib import Path

HUB = "hf:"
"""How a source on the Hugging Face hub, or saved by its library, begins."""


def saved_path(source: str) -> Path | None:
    """The folder that ``hf:/path`` means; None of other sources, such as ``hf:NAME``."""
    name = source.removeprefix(HUB)
    if name == source or not name.startswith(("/", "./", "../", "~")):
        return None
    return Path(name).expanduser()


def anchored(source: str) -> str:
    """The same source wherever the program is started next: paths are made absolute."""
    saved = saved_path(source)
    if saved is not None:
        return f"{HUB}{saved.resolve()}"
    if source == "digits" or source.startswith(HUB):
        return source
    return str(Path(source).expanduser().resolve())


def name_of(source: str) -> str:
    """A short name: of the folder, the data file or the data set."""
    saved = saved_path(source)
    if source.startswith(HUB) and saved is None:
        return source.removeprefix(HUB).rpartition("/")[2].replace(":", "-")
    path = saved or Path(source).expanduser()
    return path.stem if path.suffix.lower() in (".yaml", ".yml") else path.resolve().name
