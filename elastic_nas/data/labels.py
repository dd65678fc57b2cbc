"""Labels as shards write them: class names, or numbers, which may be names or indices."""

import re
import tarfile
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from elastic_nas.data.class_names import has_control_characters
from elastic_nas.errors import DataError
from elastic_nas.outside import parse_json

NAMES, NUMBERS_AS_TEXT, NUMBERS = "names", "numbers as text", "numbers"
"""What the labels of a shard are: names, at least one of them; numbers, at least one of them from a
``.cls`` member; or numbers of JSON alone."""

KINDS = (NAMES, NUMBERS_AS_TEXT, NUMBERS)

MOST_LABEL_BYTES = 1_000_000
"""Of a member that gives a label; a shard may come from anywhere."""

MOST_NAME = 255
"""Characters of a class name."""

_NUMBER = re.compile("0|-?[1-9][0-9]{0,11}")


class Label(NamedTuple):
    """The label of an image.

    Attributes:
        text: As it is written.
        kind: What it is by itself, one of `KINDS`.
    """

    text: str
    kind: str


def kind_of(labels: Iterable[Label]) -> str:
    """What labels are together: names where one is a name."""
    return together(label.kind for label in labels)


def together(kinds: Iterable[str]) -> str:
    """The first of `KINDS` that is among these."""
    found = set(kinds)
    return next(kind for kind in KINDS if kind in found)


def read_label(file: BinaryIO, member: tarfile.TarInfo, shard: str) -> Label:
    """What a ``.cls`` or ``.json`` member of a shard says.

    A text of ``.cls`` that is a whole number as it is usually written (not ``01``) is one; a JSON
    text is always a name.

    Raises:
        DataError: It is no label.
    """
    try:
        if member.size > MOST_LABEL_BYTES:
            raise ValueError(f"it has {member.size:,} bytes")
        file.seek(member.offset_data)
        text = file.read(member.size).decode("utf-8-sig").strip()
        if member.name.lower().endswith(".json"):
            return _of_json(parse_json(text)["label"])
        return (
            Label(text, NUMBERS_AS_TEXT) if _NUMBER.fullmatch(text) else Label(_name(text), NAMES)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{member.name!r} in the shard {shard!r} gives no label: {_why(error)}. A .cls member "
            'holds a number or a class name, a .json member {"label": ...} with one of the two.'
        ) from error


def _of_json(label: object) -> Label:
    if isinstance(label, int) and not isinstance(label, bool) and abs(label) < 10**12:
        return Label(str(label), NUMBERS)
    if isinstance(label, str):
        return Label(_name(label), NAMES)
    raise ValueError(f"{label!r:.60} is neither a number nor a class name")


def _name(text: str) -> str:
    if 0 < len(text) <= MOST_NAME and not has_control_characters(text):
        return text
    raise ValueError(f"{text!r:.60} is neither a number nor a class name")


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no text (UTF-8)"
    return "it has no key 'label'" if isinstance(error, KeyError) else str(error)
