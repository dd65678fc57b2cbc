"""YAML files as plain values: safe, strict, bounded, with YAML 1.2's idea of a number.

PyYAML follows YAML 1.1, where ``1e-3`` is a text, ``1:30`` is ninety, ``010`` is eight and ``no``
is false. Here plain scalars mean what the core schema of YAML 1.2 says (section 10.3.2 of
https://yaml.org/spec/1.2.2/), and what is written is quoted so that readers of both versions agree.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from elastic_nas.errors import ConfigError
from elastic_nas.outside import MOST_DEPTH, MOST_DIGITS, check_characters, read_text

MAX_BYTES = 1_000_000
"""A larger file is refused."""
MAX_NODES = 50_000
"""Scalars, lists and mappings of a file: what is parsed within seconds."""

_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?(?:\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
        list("-+.0123456789"),
    ),
)
"""What a plain scalar is, by the core schema; the first that fits."""
_TAG = "tag:yaml.org,2002:"
_NUMBER_BASES = {"0o": 8, "0x": 16}


class _Loader(yaml.SafeLoader):
    """YAML's safe loader by the core schema of 1.2, refusing what a settings file never needs.

    That is duplicate keys, tags, aliases, which can grow without bound, more than `MOST_DEPTH`
    levels or `MAX_NODES` nodes.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own form

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed; write the value out.")
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("tags (!) are not allowed; quote a text that begins with one.")
        self._depth, self._nodes = self._depth + 1, self._nodes + 1
        if self._depth > MOST_DEPTH:
            raise yaml.YAMLError("it is nested too deeply.")
        if self._nodes > MAX_NODES:
            raise yaml.YAMLError(f"it holds more than {MAX_NODES:,} values.")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key!r} stands there twice, again in line {line}.")
            seen |= {key} if isinstance(key, Hashable) else set()
        return super().construct_mapping(node, deep)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """A whole number: decimal whatever it begins with, ``0o17`` or ``0x1f``."""
        text = str(node.value)
        if len(text) > MOST_DIGITS + 1:
            raise yaml.YAMLError(f"{text[:20]}... is a number of {len(text)} digits.")
        return int(text, _NUMBER_BASES.get(text[:2], 10))

    def construct_float(self, node: yaml.ScalarNode) -> float:
        """A number; ``.inf`` and ``.nan`` are refused by whoever gets them."""
        return float(str(node.value).lower().replace(".inf", "inf").replace(".nan", "nan"))


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper: a text that a reader of 1.1 or of 1.2 would take for more is quoted."""


for _name, _pattern, _first in _RESOLVERS:
    _regex = re.compile(rf"^(?:{_pattern})$")
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", _regex, _first)
    _Dumper.add_implicit_resolver(f"{_TAG}{_name}", _regex, _first)
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_int)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_float)


def read_yaml(path: Path) -> Any:
    """The value in a YAML file; safe loader, duplicate keys refused.

    Raises:
        ConfigError: The file is missing, unreadable, too large or not YAML.
    """
    text = read_text(path, MAX_BYTES, ConfigError)
    try:
        return parse_yaml(text)
    except NOT_YAML as error:
        raise ConfigError(f"{path} is not valid YAML: {reason(error)}") from error


NOT_YAML = (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text spells.

    Raises:
        NOT_YAML: It is no such text.
    """
    value = yaml.load(text, Loader=_Loader)
    check_characters(value)
    return value


def dump_yaml(value: Any) -> str:
    """A value as one line of YAML, as `parse_yaml` reads it."""
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def reason(error: BaseException) -> str:
    """What the parser says, without the excerpt and its two positions."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return str(error) or type(error).__name__
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}."
