"""Reading a latency table's file without trusting it: size, JSON, and its free-form parts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elastic_nas.errors import TableError

MAX_BYTES = 64 * 2**20
NEEDED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "device": {"name": str, "arch": str, "cpu": str, "cores": int, "os": str},
    "runtime": {"name": str, "version": str, "provider": str, "threads": int},
    "protocol": {"warmup": int, "rounds": int, "filter": str, "statistic": str, "seed": int},
    "provenance": {"date": str, "commit": str, "null_ms": (int, float), "anchors": dict},
}
"""What the free-form parts of a table hold at least."""


def load_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        TableError: The file cannot be read, is too large, no JSON, or has a key twice.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TableError(f"it is larger than {MAX_BYTES // 2**20} MB.")
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except OSError as error:
        raise TableError(f"it cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise TableError(f"it is not valid JSON: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not a number that may stand here")


def check_part(name: str, part: Any, needed: Mapping[str, type | tuple[type, ...]]) -> None:
    """Refuse a free-form part that lacks something, or holds numbers that cannot be.

    Raises:
        TableError: It does.
    """
    if not isinstance(part, dict):
        raise TableError(f"its {name} must be a mapping.")
    for key, kind in needed.items():
        if not isinstance(part.get(key), kind) or isinstance(part.get(key), bool):
            raise TableError(f"its {name} lacks {key!r}, or that is not of the right type.")
    flags = part.get("flags", [])
    if not isinstance(flags, list) or any(type(flag) is not str for flag in flags):
        raise TableError("flags must be a list of words.")
    _check_finite(part, name, depth=8)


def _check_finite(value: Any, where: str, depth: int) -> None:
    """Refuse infinite and absurd numbers and deep nesting."""
    if isinstance(value, dict | list):
        if depth == 0:
            raise TableError(f"its {where} is nested too deeply.")
        for item in value.values() if isinstance(value, dict) else value:
            _check_finite(item, where, depth - 1)
    elif isinstance(value, int | float) and not -1e18 < value < 1e18:
        raise TableError(f"its {where} holds a number that cannot be.")
