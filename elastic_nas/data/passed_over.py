"""What lies in folders and is no image of a class: known by name, and counted by kind."""

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath

_THUMBNAILS = frozenset({"@eadir", ".thumbnails", ".thumbs", ".thumb"})
_SYSTEM = frozenset({
    "__macosx", ".ipynb_checkpoints", "$recycle.bin", "#recycle", "@recycle", ".trash", ".trashes",
    "@recently-snapshot", "#snapshot", ".snapshot", "lost+found", "system volume information",
    ".git", ".svn", ".dvc", ".cache", "__pycache__", ".appledouble", ".spotlight-v100",
    ".fseventsd", ".temporaryitems", ".documentrevisions-v100", ".dropbox.cache", "@tmp",
    "thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".picasa.ini", "picasa.ini",
    ".nomedia", "icon\r", ".directory", ".localized",
})  # fmt: skip

HIDDEN, SYSTEM, THUMBNAILS = "hidden", "made by systems", "thumbnail folders"


def by_name(name: str) -> str | None:
    """The kind of an entry that is passed over whatever it holds; None of others."""
    lower = name.lower()
    if lower in _THUMBNAILS:
        return THUMBNAILS
    if lower in _SYSTEM or lower.startswith("._"):
        return SYSTEM
    return HIDDEN if lower.startswith(".") else None


def ending(name: str) -> str:
    """The kind of a file that is no image: its ending."""
    return PurePath(name).suffix.lower()[:20] or "without an ending"


def told(left_out: Mapping[str, int]) -> str:
    """``.gif 40, hidden 3, thumbnail folders 12``, the most frequent first."""
    return ", ".join(f"{kind} {count:,}" for kind, count in Counter(left_out).most_common())
