"""Where shards lie: those of a folder, or as a data file lists them."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
)

from elastic_nas.config import PARTS, DataConfig
from elastic_nas.data.class_names import has_control_characters
from elastic_nas.data.labels import MOST_NAME
from elastic_nas.data.place import local_path, name_of
from elastic_nas.data.remote import Cache
from elastic_nas.data.shard_layout import MOST_SHARDS, shards_in
from elastic_nas.data.shards import LocalShard, RemoteShard, Shard
from elastic_nas.data.web import check_url
from elastic_nas.errors import ConfigError, DataError, UnknownName
from elastic_nas.outside import read_text
from elastic_nas.plugins import suggest
from elastic_nas.strict import Strict
from elastic_nas.yaml_file import read_yaml

KEYS = (*PARTS, "classes", "cache_gb")

GIGABYTE = 10**9

MOST_LISTED = 1000
"""Times that one pattern with ``*`` lists a folder."""

MOST_PATTERN = 1000
"""Characters of a pattern."""

MOST_CLASSES = 100_000
"""A label beyond is no class."""

MOST_CLASS_LIST = 30_000_000
"""Bytes of ``classes.txt``."""

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")

EXAMPLE = "train: train-{000000..000146}.tar"


def _fixed(value: Any) -> Any:
    """YAML's lists become tuples."""
    return tuple(value) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    """One pattern is a list of one."""
    return (value,) if isinstance(value, str) else _fixed(value)


def _plain(text: str) -> str:
    if has_control_characters(text):
        raise ValueError("it holds control characters")
    return text


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ValueError(f"the class {twice!r} stands twice")
    return names


_Pattern = Annotated[str, Field(min_length=1, max_length=MOST_PATTERN), AfterValidator(_plain)]
_Patterns = Annotated[
    tuple[_Pattern, ...], Field(min_length=1, max_length=MOST_SHARDS), BeforeValidator(_listed)
]
_ClassName = Annotated[str, Field(min_length=1, max_length=MOST_NAME), AfterValidator(_plain)]
Classes = Annotated[
    tuple[_ClassName, ...],
    Field(max_length=MOST_CLASSES),
    BeforeValidator(_fixed),
    AfterValidator(_unique),
]


class _ClassList(Strict):
    """What a folder's ``classes.txt`` holds."""

    classes: Classes


class DataFile(Strict):
    """What a data file says."""

    train: _Patterns
    val: _Patterns = ()
    test: _Patterns = ()
    classes: Classes = ()
    cache_gb: Annotated[float, Field(ge=0.001, le=1e6)] = 50.0
    """Gigabytes of disk space that fetched shards may take."""


_RULES = {
    **dict.fromkeys(PARTS, f"must be a pattern or a list of them, such as {EXAMPLE}"),
    "classes": "must be a list of names, each once (in quotes if numbers)",
    "cache_gb": "must be a positive number, from 0.001 to 1,000,000",
}


def _checked(model: type[Strict], content: dict[str, Any], place: Path) -> Any:
    """The content as the model has it.

    Raises:
        DataError: It is something else; the message names the first mistake.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        mistake = error.errors()[0]
    key = str((*mistake["loc"], "")[0])[:60]
    if key not in _RULES:
        raise DataError(
            f"unknown key {key!r} in {place}{suggest(key, list(KEYS))} Keys: {', '.join(KEYS)}."
        )
    got = f"{mistake['input']!r:.60}"
    why = "" if "value_error" not in mistake["type"] else mistake["msg"].split(", ", 1)[-1] + "; "
    raise DataError(f"{key} in {place} {_RULES[key]}: {why}got {got}.")


@dataclass(frozen=True)
class Listed:
    """The shards of a source.

    Attributes:
        place: The folder, or the data file.
        name: Of the source.
        parts: Shards of ``train`` and, where given, ``val`` and ``test``, in that order.
        classes: Names by their numbers, or empty.
        left_out: What lies beside them: numbers by kind.
    """

    place: Path
    name: str
    parts: dict[str, list[Shard]]
    classes: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def list_shards(data: DataConfig) -> Listed | None:
    """The shards that a folder of tars or a data file names; None if it is neither.

    Raises:
        ConfigError: The data file is no YAML, or ``data.parts`` is given beside one.
        UnknownName: The source can be no path.
        DataError: It says something impossible; there are no shards where it says; which part
            shards are of is open.
    """
    root = local_path(data.source)
    if os.path.isdir(root):
        found = shards_in(root, data)
        if found is None:
            return None
        parts: dict[str, list[Shard]] = {
            part: [*map(LocalShard, paths)] for part, paths in found.parts.items()
        }
        classes = _class_list(root / "classes.txt")
        return Listed(root, name_of(data.source), parts, classes, found.left_out)
    if root.suffix.lower() in (".yaml", ".yml"):
        if data.parts != "auto":
            raise ConfigError(
                f"data.parts={data.parts}: {data.source} names its parts itself; change them there."
            )
        return _from_file(root)
    return None


def _matching(folder: Path, pattern: str) -> list[LocalShard]:
    """The shards in a folder whose names fit, sorted; ``*`` stands for any characters.

    Raises:
        DataError: The folder cannot be listed; there are too many.
    """
    escaped = pattern.replace("[", "[[]").replace("?", "[?]")
    try:
        names = [name for name in os.listdir(folder) if fnmatchcase(name, escaped)]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot list the folder {str(folder)!r}: {reason}.") from error
    if len(names) > MOST_SHARDS:
        raise DataError(f"{str(folder / pattern)!r} stands for more than {MOST_SHARDS:,} shards.")
    return [LocalShard(folder / name) for name in sorted(names)]


def _class_list(path: Path) -> tuple[str, ...]:
    """One class name a line, or none where there is no such file."""
    if not os.path.lexists(path):
        return ()
    lines = [line.strip() for line in read_text(path, MOST_CLASS_LIST, DataError).split("\n")]
    names = [line for line in lines if line]
    found: _ClassList = _checked(_ClassList, {"classes": names}, path)
    return found.classes


def _from_file(path: Path) -> Listed:
    content = read_yaml(path)
    if not isinstance(content, dict) or "train" not in content:
        raise DataError(f"{path} names no shards to train on; a data file starts like\n  {EXAMPLE}")
    file: DataFile = _checked(DataFile, content, path)
    cache = Cache(int(file.cache_gb * GIGABYTE))
    parts: dict[str, list[Shard]] = {}
    for part in PARTS:
        for text in getattr(file, part) or ():
            parts.setdefault(part, []).extend(_shards(path, text, cache))
            if sum(map(len, parts.values())) > MOST_SHARDS:
                raise DataError(f"{path} lists more than {MOST_SHARDS:,} shards.")
    _check_apart(path, parts)
    return Listed(path, name_of(str(path)), parts, file.classes)


def _shards(path: Path, text: str, cache: Cache) -> list[Shard]:
    if text.startswith(("http://", "https://")):
        return [RemoteShard(_checked_url(url, path), cache) for url in expanded(text)]
    if "://" in text:
        raise DataError(f"{text!r} in {path}: shards are local files, or http or https URLs.")
    names = expanded(text)
    if "*" in text and len(names) > MOST_LISTED:
        raise DataError(f"{text!r} in {path} lists folders more than {MOST_LISTED:,} times.")
    shards: list[Shard] = []
    for name in names:
        shards += _named(path, name)
        if len(shards) > MOST_SHARDS:
            raise DataError(f"{text!r} stands for more than {MOST_SHARDS:,} shards.")
    return shards


def _named(path: Path, name: str) -> list[LocalShard]:
    """The shards of one name in a data file, which may hold ``*`` at its end."""
    try:
        place = path.parent / local_path(name)
    except UnknownName as error:
        raise DataError(f"{path}: {error}") from error
    if "*" in os.path.dirname(name):
        raise DataError(
            f"{name!r} in {path}: only the name of a shard may hold *, not its folder; list the "
            "folders, or write {a,b}."
        )
    if "*" not in place.name:
        return [LocalShard(place)]
    found = _matching(place.parent, place.name)
    if not found:
        raise DataError(f"no shard is called {str(place)!r}, as {path} says.")
    return found


def _checked_url(url: str, path: Path) -> str:
    try:
        check_url(url)
    except ValueError as error:
        raise DataError(f"{url!r:.300} in {path} is no URL: {error}.") from error
    return url


def expanded(pattern: str) -> list[str]:
    """What braces stand for: ``a-{08..10}.tar`` for three shards, ``{a,b}.tar`` for two.

    Raises:
        DataError: Of more than 100,000 shards; braces that do not close, or stand in others.
    """
    pieces: list[list[str]] = []
    texts = BRACES.split(pattern)  # outside, inside, outside, ...
    count = 1
    for place, text in enumerate(texts):
        if place % 2 == 0 and ("{" in text or "}" in text):
            raise DataError(f"braces in {pattern!r} do not close, or stand in others.")
        choices = _choices(text) if place % 2 else [text]
        count *= len(choices)
        if count > MOST_SHARDS:
            raise DataError(f"{pattern!r} stands for more than {MOST_SHARDS:,} shards.")
        pieces.append(choices)
    return ["".join(parts) for parts in itertools.product(*pieces)]


def _choices(text: str) -> list[str]:
    ends = RANGE.fullmatch(text)
    if not ends:
        return text.split(",")
    first, last = ends.groups()
    numbers = range(int(first), min(int(last), int(first) + MOST_SHARDS) + 1)
    if not numbers:
        raise DataError(f"the range {{{text}}} of shards is empty: it runs from low to high.")
    return [str(number).zfill(len(first)) for number in numbers]


def _check_apart(path: Path, parts: dict[str, list[Shard]]) -> None:
    """A shard that stands twice would put test images among the training images."""
    seen: dict[str, str] = {}
    for part, shards in parts.items():
        for shard in shards:
            if shard.address in seen:
                raise DataError(
                    f"the shard {shard.address!r} stands twice in {path}: in "
                    f"{seen[shard.address]} and in {part}. Each belongs to one of them."
                )
            seen[shard.address] = part
