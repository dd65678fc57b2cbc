"""Where shards lie: those of a folder, or as a data file lists them."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_nas.data.place import name_of
from elastic_nas.data.remote import Cache
from elastic_nas.data.shards import LocalShard, RemoteShard, Shard
from elastic_nas.errors import DataError
from elastic_nas.plugins import suggest
from elastic_nas.yaml_file import read_yaml

PARTS = ("train", "val", "test")
KEYS = (*PARTS, "classes", "cache_gb")

CACHE_GB = 50.0
"""Disk space that fetched shards may take, unless the data file says otherwise."""

GIGABYTE = 10**9

MOST_SHARDS = 100_000

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")

EXAMPLE = "train: train-{000000..000146}.tar"


@dataclass(frozen=True)
class Listed:
    """The shards of a source.

    Attributes:
        place: The folder, or the data file.
        name: Of the source.
        parts: Shards of ``train`` and, where given, ``val`` and ``test``, in that order.
        classes: Names by their numbers, or empty.
    """

    place: Path
    name: str
    parts: dict[str, list[Shard]]
    classes: tuple[str, ...]


def list_shards(source: str) -> Listed | None:
    """The shards that a folder with ``train-*.tar`` or a data file names; None if it is neither.

    Raises:
        ConfigError: The data file is no YAML.
        DataError: It says something impossible; there are no shards where it says.
    """
    root = Path(source).expanduser()
    if root.is_dir():
        globs = {part: _locals(root.glob(f"{part}-*.tar")) for part in PARTS}
        parts = {part: shards for part, shards in globs.items() if shards}
        listed = Listed(root, name_of(source), parts, _class_list(root / "classes.txt"))
        return listed if "train" in parts else None
    if root.suffix.lower() in (".yaml", ".yml"):
        return _from_file(root)
    return None


def _locals(paths: Iterator[Path]) -> list[Shard]:
    return [LocalShard(path) for path in sorted(paths)]


def _class_list(path: Path) -> tuple[str, ...]:
    """One class name a line, or none where there is no such file."""
    if not path.exists():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the class names in {path}: {error}.") from error
    return _checked_classes([line.strip() for line in lines if line.strip()], path)


def _checked_classes(names: Any, place: Path) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"classes in {place} must be a list of names (in quotes if numbers).")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"the class {twice!r} stands twice in {place}.")
    return tuple(names)


def _from_file(path: Path) -> Listed:
    content = _content(path)
    gigabytes = content.get("cache_gb", CACHE_GB)
    if isinstance(gigabytes, bool) or not isinstance(gigabytes, int | float) or not gigabytes > 0:
        raise DataError(f"cache_gb in {path} must be a positive number, got {gigabytes!r}.")
    cache = Cache(int(min(gigabytes, 1e9) * GIGABYTE))
    parts = {
        part: [
            shard
            for text in _patterns(path, part, content[part])
            for shard in _shards(path, text, cache)
        ]
        for part in PARTS
        if part in content
    }
    _check_apart(path, parts)
    classes = _checked_classes(content["classes"], path) if "classes" in content else ()
    return Listed(path, name_of(str(path)), parts, classes)


def _content(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict) or "train" not in content:
        raise DataError(f"{path} names no shards to train on; a data file starts like\n  {EXAMPLE}")
    for key in content:
        if key not in KEYS:
            hint = suggest(str(key), list(KEYS))
            raise DataError(f"unknown key {key!r} in {path}{hint} Keys: {', '.join(KEYS)}.")
    return content


def _patterns(path: Path, part: str, value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise DataError(f"{part} in {path} must be a pattern or a list of them, such as {EXAMPLE}.")
    return texts


def _shards(path: Path, text: str, cache: Cache) -> list[Shard]:
    if text.startswith(("http://", "https://")):
        return [RemoteShard(_checked_url(url, path), cache) for url in expanded(text)]
    if "://" in text:
        raise DataError(f"{text!r} in {path}: shards are local files, or http or https URLs.")
    shards: list[Shard] = []
    for name in expanded(text):
        place = path.parent / Path(name).expanduser()
        matching = place.parent.glob(place.name) if "*" in place.name else iter([place])
        found = _locals(matching)
        if not found:
            raise DataError(f"no shard is called {str(place)!r}, as {path} says.")
        shards += found
    return shards


def _checked_url(url: str, path: Path) -> str:
    if not url.isascii() or any(character <= " " for character in url):
        raise DataError(
            f"{url!r} in {path} is no URL: other characters than plain ones are written like %20."
        )
    return url


def expanded(pattern: str) -> list[str]:
    """What braces stand for: ``a-{08..10}.tar`` for three shards, ``{a,b}.tar`` for two.

    Raises:
        DataError: Of more than 100,000 shards.
    """
    pieces: list[list[str]] = []
    texts = BRACES.split(pattern)  # outside, inside, outside, ...
    count = 1
    for place, text in enumerate(texts):
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
