"""What weights belong to: the images and the seed that they were trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elastic_nas.data.dataset import Dataset
from elastic_nas.data.first_version import fingerprint
from elastic_nas.errors import ConfigError
from elastic_nas.strict import shown

_WHY = {
    "seed": "images that were trained on would be tested with",
    "statistics": "the weights expect other pixels",
    "preprocess": "the weights expect other pixels",
    "images": "images that were trained on would be tested with",
}
"""What would go wrong where each of these differs."""


def belongings(data: Dataset, seed: int) -> dict[str, Any]:
    """What a checkpoint stores of its images, as JSON values."""
    sides = data.record.fingerprints
    return {
        "seed": seed,
        "data": data.name,
        "statistics": data.record.head.statistics,
        "preprocess": data.preprocess.describe(),
        "images": {
            "train": sides["train"],
            "validation": sides["search-validation"],
            "test": sides["test"],
        },
    }


def check_belongs(facts: Mapping[str, Any], data: Dataset, seed: int, place: Path) -> None:
    """Refuse weights that were trained with another seed, or on images that are split otherwise.

    What an older checkpoint does not store cannot be compared.

    Args:
        facts: The checkpoint's metadata.
        data: The images that are asked for now; those of its record count, missing ones included.
        seed: The one that is asked for now.
        place: The run or checkpoint, for the message.

    Raises:
        ConfigError: Something differs; both sides are named.
    """
    check_seed(facts, seed, place)
    now = belongings(data, seed)
    for key in ("statistics", "images", "preprocess"):
        if facts.get(key) not in (None, now[key]):
            raise ConfigError(_differs(key, facts, now, place))
    if facts.get("images") is None and facts.get("splits") is not None:
        _check_first(facts, data, place)


def tells_images(facts: Mapping[str, Any]) -> bool:
    """Whether weights tell which images they were trained on, so that `check_belongs` sees it."""
    return any(facts.get(key) is not None for key in ("images", "splits"))


def _check_first(facts: Mapping[str, Any], data: Dataset, place: Path) -> None:
    """Compare the hashes that checkpoints held before images had identities."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    now = {"data": data.name, "images": {part: fingerprint(of) for part, of in splits.items()}}
    if facts["splits"] != now["images"]:
        raise ConfigError(_differs("images", {**facts, "images": facts["splits"]}, now, place))


def check_seed(facts: Mapping[str, Any], seed: int, place: Path) -> None:
    """Refuse weights that were trained with another seed; see `check_belongs`.

    Raises:
        ConfigError: It differs.
    """
    if facts.get("seed") not in (None, seed):
        raise ConfigError(_differs("seed", facts, {"seed": seed}, place))


def _differs(key: str, facts: Mapping[str, Any], now: Mapping[str, Any], place: Path) -> str:
    old, new = facts[key], now[key]
    if key == "images":
        parts = [part for part in new if old.get(part) != new[part]]
        what = (
            f"on other images than images.safetensors of the run tells (or, where there is none, "
            f"than there are now): of {facts.get('data')!r} then and {now['data']!r} now, the "
            f"{', '.join(parts)} images differ"
        )
        back = "Restore that file from a copy (or bring those images back)"
    elif key == "preprocess":
        parts = [part for part in new if old.get(part) != new[part]]
        told = (f"{part} {shown(old.get(part))}, now {shown(new[part])}" for part in parts)
        what = f"with other pixels: {'; '.join(told)}"
        back = "Restore images.safetensors of the run (or, without one, its images) from a copy"
    else:
        what = f"with {key}: {old}, not {new}"
        back = f"Put {key}: {old} back into the run file"
    return (
        f"{place} was trained {what}, so that {_WHY[key]}. {back}, or train in another folder "
        "with --out."
    )
