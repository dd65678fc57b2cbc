"""Settings: a genotype spelled out for people.

``{resolution: 192, width: [stem, stages..., head], kernel: [...], expand: [...], depth: [...]}``,
as published children are listed. Where a space draws kernel and expand per block, a stage's
entry is the list of its blocks' values.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from elastic_nas.errors import GenotypeError
from elastic_nas.genotype import Dim, Dims, Genotype, canonical, is_active
from elastic_nas.strict import shown

KEYS = ("resolution", "width", "kernel", "expand", "depth")


def to_settings(dims: Dims, genotype: Genotype) -> dict[str, Any]:
    """The settings of a canonical genotype; blocks beyond the depth are left out."""
    settings: dict[str, Any] = {key: [] for key in KEYS}
    for position, (dim, gene) in enumerate(zip(dims, genotype, strict=True)):
        value, (key, block) = dim.choices[gene], _address(dim.name)
        if key == "resolution":
            settings[key] = value
        elif block is None:
            settings[key].append(value)
        else:
            if block == 1:
                settings[key].append([])
            if is_active(dims, genotype, position):
                settings[key][-1].append(value)
    return settings


def from_settings(dims: Dims, settings: Any) -> Genotype:
    """The canonical genotype with these settings.

    Raises:
        GenotypeError: A key is missing or unknown, a list is too short or too long, or a value is
            not a choice of its dimension.
    """
    if not isinstance(settings, dict) or set(settings) != set(KEYS):
        raise GenotypeError(
            f"settings need exactly the keys {', '.join(KEYS)}; got {shown(settings)}."
        )
    lists = {key: settings[key] for key in KEYS if key != "resolution"}
    if any(not isinstance(values, list) for values in lists.values()):
        raise GenotypeError("width, kernel, expand and depth must be lists, one entry per stage.")
    queues = {key: iter(_flat(dims, key, values)) for key, values in lists.items()}
    queues["resolution"] = iter([settings["resolution"]])
    genes = (_gene(dim, next(queues[_address(dim.name)[0]], None)) for dim in dims)
    genotype = canonical(dims, tuple(genes))
    spelled = to_settings(dims, genotype)
    for key, values in settings.items():
        if values != spelled[key]:
            raise GenotypeError(
                f"{key} {shown(values)} does not fit the depths {shown(settings['depth'])}: one "
                "entry per stage, "
                f"and per block of it where blocks differ, as in {spelled[key]}."
            )
    return genotype


def _flat(dims: Dims, key: str, values: list[Any]) -> Iterator[Any]:
    """The value of each dim under `key`, in order; a block beyond the depth has the first."""
    stages = iter(values)
    stage: Any = None
    for dim in dims:
        own, block = _address(dim.name)
        if own != key:
            continue
        if block is None or block == 1:
            stage = next(stages, None)
        if block is None:
            yield stage
        else:
            blocks = stage if isinstance(stage, list) else []
            yield blocks[block - 1] if block <= len(blocks) else dim.choices[0]


@lru_cache(maxsize=4096)
def _address(name: str) -> tuple[str, int | None]:
    """The key a dim's value stands under, and its block's number where blocks differ."""
    parts = name.split(".")
    block = int(parts[1].removeprefix("block")) if len(parts) == 3 else None
    return parts[-1], block


def _gene(dim: Dim, value: object) -> int:
    if type(value) is not int or value not in dim.choices:
        choices = ", ".join(map(str, dim.choices))
        raise GenotypeError(f"{dim.name} must be one of {choices}; got {shown(value)}.")
    return dim.choices.index(value)
