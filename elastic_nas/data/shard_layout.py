"""Which tars of a folder are shards of which part: by their names, and never by a silent guess."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from elastic_nas.config import PARTS, DataConfig
from elastic_nas.data.listing import listed
from elastic_nas.data.part_words import part_of
from elastic_nas.data.passed_over import by_name, ending
from elastic_nas.errors import DataError, some

MOST_SHARDS = 100_000
"""Of a source, all parts together."""

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")

BESIDE = frozenset({"classes.txt"})
"""Files beside shards that are read."""


@dataclass(frozen=True)
class TarFolder:
    """The tars of a folder.

    Attributes:
        parts: Paths by part, sorted: ``all``, or ``train`` with others.
        left_out: What lies beside them: numbers by kind.
    """

    parts: Mapping[str, Sequence[Path]]
    left_out: Mapping[str, int]


def shards_in(root: Path, data: DataConfig) -> TarFolder | None:
    """The shards of a folder; None where it holds class folders, or nothing that may be a shard.

    Args:
        root: The folder.
        data: ``parts`` may say which shards are of which part.

    Raises:
        DataError: The folder cannot be listed; which part shards are of is open; they are packed.
    """
    entries = listed(root)
    tars = [path for path in entries if path.name.lower().endswith(".tar")]
    tars = [path for path in tars if not by_name(path.name)]
    folders = [path for path in entries if not by_name(path.name) and path.is_dir()]
    if not tars:
        packed = [path.name for path in entries if path.name.lower().endswith(PACKED)]
        if packed and not folders:
            raise DataError(
                f"{str(root)!r} holds packed tars, such as {packed[0]!r}: shards are plain tars, "
                "which are read where they lie. Unpack them with gunzip and the like to .tar."
            )
        return None
    if len(tars) > MOST_SHARDS:
        raise DataError(f"{str(root)!r} holds more than {MOST_SHARDS:,} shards.")
    parts = _parts(root, tars, folders, data)
    if parts is None:
        return None
    used = {path for paths in parts.values() for path in paths}
    return TarFolder(parts, _beside([path for path in entries if path not in used]))


def _beside(entries: Sequence[Path]) -> dict[str, int]:
    left_out: Counter[str] = Counter()
    for path in entries:
        if path.name in BESIDE:
            continue
        kind = "folders beside the shards" if path.is_dir() else ending(path.name)
        left_out[by_name(path.name) or kind] += 1
    return dict(left_out)


def _parts(
    root: Path, tars: list[Path], folders: list[Path], data: DataConfig
) -> dict[str, list[Path]] | None:
    if data.given and any(_fits(path, name) for path in tars for name in data.given["train"]):
        return _given(root, tars, data)
    if data.given and not folders:
        raise DataError(_no_such(root, tars, data))
    if data.given or (data.parts == "none" and folders):
        return None
    if data.parts == "none":
        return {"all": tars}
    named = {path: part_of(path.stem) for path in tars}
    if not any(named.values()) and folders:
        return None  # archives beside class folders
    if not all(named.values()):
        without = [path for path, part in named.items() if part is None]
        raise DataError(
            f"the names of {len(without):,} of {len(tars):,} tars in {str(root)!r} do not say "
            f"which part they are of ({_named(without)}). Call them train-000000.tar, "
            "test-000000.tar and so on, or say it by how their names begin: "
            f"--set data.parts=train:{_word(without[0])},test:...; or take all for one part, which "
            "is split for you: --set data.parts=none"
        )
    parts = {part: [path for path in tars if named[path] == part] for part in PARTS}
    if not parts["train"]:
        raise DataError(
            f"{str(root)!r} holds no shards to train on, only {_named(tars)}. Add some, such as "
            "train-000000.tar, or take all for one part, which is split for you: "
            "--set data.parts=none"
        )
    return {part: paths for part, paths in parts.items() if paths}


def _fits(path: Path, name: str) -> bool:
    """Whether a shard is called so: by a pattern with ``*``, its whole name, or its beginning."""
    if "*" in name:
        return fnmatchcase(path.name, name.replace("[", "[[]").replace("?", "[?]"))
    rest = path.name.removeprefix(name)
    return rest != path.name and not rest[:1].isalpha()


def _given(root: Path, tars: list[Path], data: DataConfig) -> dict[str, list[Path]]:
    parts: dict[str, list[Path]] = {}
    for part, names in data.given.items():
        for name in names:
            found = [path for path in tars if _fits(path, name)]
            if not found:
                raise DataError(_no_such(root, tars, data, name))
            parts.setdefault(part, []).extend(found)
    paths = [path for of in parts.values() for path in of]
    if len(set(paths)) < len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise DataError(f"data.parts={data.parts} takes the shard {twice.name!r} twice.")
    return {part: parts[part] for part in PARTS if part in parts}


def _no_such(root: Path, tars: list[Path], data: DataConfig, name: str = "") -> str:
    name = name or data.given.get("train", [""])[0]
    return (
        f"data.parts={data.parts}: no shard of {str(root)!r} is called {name!r} or begins so. It "
        f"has {_named(tars)}."
    )


def _word(path: Path) -> str:
    """How a shard's name begins, without its number."""
    return path.stem.rstrip("0123456789").rstrip("-_.") or path.stem


def _named(paths: Sequence[Path]) -> str:
    return some([path.name for path in paths])
