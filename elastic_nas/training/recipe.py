"""What may differ between a checkpoint's recipe and the one that goes on from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elastic_nas.config import LENGTHS, TrainConfig
from elastic_nas.errors import ConfigError
from elastic_nas.strict import shown

FREE = {
    *LENGTHS,
    "init",
    "device",
    "threads",
    "workers",
    "guard",
    "validations",
    "checkpoint_seconds",
    "keep_checkpoints",
    "tensorboard",
}
"""Keys of the train section that say how long, where and how watched to train, not how."""


def check_recipe(before: Mapping[str, Any], now: TrainConfig, place: Path) -> None:
    """Refuse to go on from a checkpoint with a recipe that its state does not fit.

    Args:
        before: The train section that the checkpoint was written with; empty where it tells none.
        now: The one to go on with.
        place: The run, for the message.

    Raises:
        ConfigError: The optimiser is another.
    """
    old = before.get("optimizer", now.optimizer)
    if old != now.optimizer:
        raise ConfigError(
            f"{place} was trained with train.optimizer: {_text(old)}, which cannot become "
            f"{now.optimizer}: what one optimiser remembers of each weight is of no use to "
            f"another. To begin with these weights anew: --out ANOTHER --init {place}"
        )


def changes(before: Mapping[str, Any], now: TrainConfig) -> list[str]:
    """What is learned otherwise from now on: ``train.ema null -> 0.9``, a key each.

    Args:
        before: The train section that the checkpoint was written with; keys that it or `now`
            lacks are of another version, and left out.
        now: The one to go on with.
    """
    old, new = _flat(before), _flat(now.model_dump())
    return [
        f"train.{key} {_text(old[key])} -> {_text(value)}"
        for key, value in new.items()
        if key in old and old[key] != value and key.partition(".")[0] not in FREE
    ]


def _flat(section: Mapping[str, Any]) -> dict[str, Any]:
    """``augment.strong`` for a key of a section in the section."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": deeper for inner, deeper in _flat(value).items()}
        else:
            flat[key] = value
    return flat


def _text(value: object) -> str:
    return "null" if value is None else shown(value).strip("'")
