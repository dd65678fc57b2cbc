"""Settings: a genotype spelled out for people.

``{resolution: 192, width: [stem, stages..., head], kernel: [...], expand: [...], depth: [...]}``,
as published children are listed. Where a space draws kernel and expand per block, a stage's
entry is the list of its blocks' values.
"""

from typing import Any

from elastic_nas.errors import GenotypeError
from elastic_nas.genotype import Dims, Genotype, canonical, is_active

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
        raise GenotypeError(f"settings need exactly the keys {', '.join(KEYS)}; got {settings!r}.")
    lists = {key: settings[key] for key in KEYS if key != "resolution"}
    if any(not isinstance(values, list) for values in lists.values()):
        raise GenotypeError("width, kernel, expand and depth must be lists, one entry per stage.")
    used = dict.fromkeys(lists, 0)
    genes: list[int] = []
    for dim in dims:
        key, block = _address(dim.name)
        if key == "resolution":
            genes.append(_gene(dim.name, dim.choices, settings["resolution"]))
            continue
        if block is None or block == 1:
            used[key] += 1
        value = lists[key][used[key] - 1] if used[key] <= len(lists[key]) else None
        if block is not None:
            blocks = value if isinstance(value, list) else []
            # Blocks beyond the depth have no entry; their genes change nothing.
            value = blocks[block - 1] if block <= len(blocks) else dim.choices[0]
        genes.append(_gene(dim.name, dim.choices, value))
    for key, values in lists.items():
        if len(values) != used[key]:
            raise GenotypeError(f"{key} needs {used[key]} entries, got {len(values)}.")
    genotype = canonical(dims, tuple(genes))
    if to_settings(dims, genotype) != settings:
        raise GenotypeError(
            "the settings do not fit the depths: give kernel and expand for exactly the blocks "
            f"that exist, as in {to_settings(dims, genotype)}."
        )
    return genotype


def _address(name: str) -> tuple[str, int | None]:
    """The key a dim's value stands under, and its block's number where blocks differ."""
    parts = name.split(".")
    block = int(parts[1].removeprefix("block")) if len(parts) == 3 else None
    return parts[-1], block


def _gene(name: str, choices: tuple[int, ...], value: object) -> int:
    if type(value) is not int or value not in choices:
        raise GenotypeError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}.")
    return choices.index(value)
