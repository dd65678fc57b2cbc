"""YAML files as plain values: safe, strict, bounded."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from elastic_nas.errors import ConfigError

MAX_BYTES = 1_000_000
"""A larger file is refused unread."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, refusing duplicate keys, and aliases, which can grow without bound."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed; write the value out.")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key!r} stands there twice, again in line {line}.")
            seen |= {key} if isinstance(key, Hashable) else set()
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The value in a YAML file; safe loader, duplicate keys refused.

    Raises:
        ConfigError: The file is missing, unreadable, too large or not YAML.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes; not a YAML file?")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text file, so no YAML.") from error
    except NOT_YAML as error:
        raise ConfigError(f"{path} is not valid YAML: {reason(error)}") from error


NOT_YAML = (yaml.YAMLError, ValueError, TypeError, RecursionError)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text spells.

    Raises:
        NOT_YAML: It is no such text.
    """
    return yaml.load(text, Loader=_Loader)


def reason(error: BaseException) -> str:
    """What the parser says, without the excerpt and its two positions."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return str(error) or type(error).__name__
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}."
