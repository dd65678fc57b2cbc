"""Which part of a Hugging Face data set is which: by their names, or as the user says."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from elastic_nas.config import PARTS, DataConfig
from elastic_nas.data.part_words import part_of
from elastic_nas.errors import ConfigError, DataError

ALONE = "all"
"""What a data set without parts, or with all of them joined, comes in."""

TOLD = 10
"""Names that are told; of more, the number."""


def chosen_parts(data: DataConfig, given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the data set's parts, by what we take them for.

    Raises:
        ConfigError: The user names a part that there is not, or none to train with.
        DataError: Two are for one, or none is to train with; the options are named.
    """
    if data.parts == "none" or (list(given) == [ALONE] and not data.given):
        return {ALONE: list(given)}
    if data.given:
        return _as_given(data, given)
    chosen: dict[str, list[str]] = defaultdict(list)
    for name in given:
        if part := part_of(name):
            chosen[part].append(name)
    for part, names in chosen.items():
        if len(names) > 1:
            raise DataError(
                f"{data.source!r} has several parts for {part}: {some(names)}. Pick one with "
                f"{_option({of: names[:1] for of, names in chosen.items()})}, or join them with "
                f"{_option(chosen)}. It has {some(list(given))}."
            )
    if "train" not in chosen:
        raise DataError(
            f"{data.source!r} has no part that is called 'train'; it has {some(list(given))}. "
            f"Say what is what, such as {_likely(given, chosen)}, or have all of it joined and "
            "split for you with --set data.parts=none."
        )
    return {part: chosen[part] for part in PARTS if part in chosen}


def _likely(given: Mapping[str, Any], chosen: Mapping[str, list[str]]) -> str:
    """The option that takes a part to train with which is not needed for anything else."""
    known = {name: part for part, names in chosen.items() for name in names}
    name = min(given, key=lambda name: ("", "val", "test").index(known.get(name, "")))
    return _option(
        {part: names for part, names in chosen.items() if name not in names}, train=[name]
    )


def _option(chosen: Mapping[str, list[str]], **other: list[str]) -> str:
    parts = {**chosen, **other}
    pairs = [f"{part}:{name}" for part in PARTS for name in parts.get(part, ())]
    return f"--set data.parts={','.join(pairs)}"


def _as_given(data: DataConfig, given: Mapping[str, Any]) -> dict[str, list[str]]:
    named = [name for names in data.given.values() for name in names]
    for name in named:
        if name not in given:
            raise ConfigError(
                f"data.parts names {name!r}, but {data.source!r} has no such part; it has "
                f"{some(list(given))}."
            )
        if named.count(name) > 1:
            raise ConfigError(f"data.parts names {name!r} twice; a part is for one thing.")
    if "train" not in data.given:
        raise ConfigError(
            f"data.parts names nothing to train with; add train:NAME. {data.source!r} has "
            f"{some(list(given))}."
        )
    return {part: data.given[part] for part in PARTS if part in data.given}


def some(names: Sequence[str], most: int = TOLD) -> str:
    """The first names, and the number of the others."""
    more = [f"and {len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])
