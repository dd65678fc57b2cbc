"""Names of classes are text: of one line, visible, and told apart by more than case or form."""

from collections.abc import Iterable
from unicodedata import category, normalize

from elastic_nas.errors import DataError

_UNSEEN = ("Cc", "Cs", "Co", "Zl", "Zp")
_MARKS = (
    "\ufeff\u200b\u200e\u200f\u2060\u00ad\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
"""Byte order marks, spaces without a width, and marks that turn the text around them."""


def has_control_characters(name: str) -> bool:
    """Whether a name would break the lines or the terminal that it is written to."""
    return any(category(character) in _UNSEEN for character in name)


def alike(name: str) -> str:
    """What is the same for names that differ only by case or Unicode normal form."""
    return normalize("NFC", normalize("NFKC", name).casefold())


def check_class_names(names: Iterable[str], place: str) -> None:
    """Refuse names that cannot be told apart, or cannot be written in a line.

    Args:
        names: Of all classes of a source, each once.
        place: The source, for messages.

    Raises:
        DataError: There are some; the first is shown escaped.
    """
    seen: dict[str, str] = {}
    for name in names:
        if fault := _fault(name):
            raise DataError(f"the class {name!a} of {place!r} {fault}. Rename it.")
        other = seen.setdefault(alike(name), name)
        if other != name:
            raise DataError(
                f"the classes {other!r} and {name!r} of {place!r} differ only by case or by how "
                f"Unicode spells them ({other!a} and {name!a}). If they are one class, "
                "put their images together; else rename one."
            )


def _fault(name: str) -> str:
    """What is wrong with a name, as the end of a sentence; nothing where it is fine."""
    if has_control_characters(name):
        return (
            "has control characters in its name, such as a line break, or bytes that are no text: "
            "lists of classes have one a line"
        )
    if any(mark in name for mark in _MARKS):
        return "has characters in its name that nobody sees, such as a byte order mark"
    if not name.strip():
        return "has a name of spaces alone"
    if name != name.strip():
        return "has spaces at an end of its name"
    return ""
