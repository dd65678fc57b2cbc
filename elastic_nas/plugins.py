"""Plugins by file name: `elastic_nas/<kind>/<name>.py`, or a path to a file of the same form.

There is no registry: a file is a plugin by lying in the folder of its kind.
"""

import importlib
import importlib.util
import pkgutil
import sys
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

from elastic_nas.errors import ConfigError, UnknownName

CLASS_NAMES = {
    "spaces": "Space",
    "tasks": "Task",
    "runtimes": "Runtime",
    "strategies": "Search",
}
"""The one class that a plugin module of each kind offers."""


def available(kind: str) -> list[str]:
    """Names of all plugins of one kind: the public modules of ``elastic_nas/<kind>/``."""
    package = importlib.import_module(f"elastic_nas.{kind}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_")


def suggest(name: str, names: list[str]) -> str:
    """A hint for an error message: the nearest of `names`, or nothing."""
    by_small_letters = {known.casefold(): known for known in names}
    near = get_close_matches(name.casefold(), by_small_letters, n=1)
    near += [known for known in by_small_letters if name and known.startswith(name.casefold())]
    return f"; did you mean {by_small_letters[near[0]]!r}?" if near else "."


def split_options(text: str) -> tuple[str, str]:
    """Name (or path of a Python file) and options: ``tiny:size=32`` is ``tiny``, ``size=32``."""
    path, ending, options = text.rpartition(".py")
    if ending and options[:1] in ("", ":"):
        return path + ending, options[1:]
    name, _, options = text.partition(":")
    return name, options


def split_child(text: str) -> tuple[str, str | None]:
    """A space and one child of it, if any: ``tiny:size=32@0,1`` is ``tiny:size=32``, ``0,1``."""
    space, at, child = text.rpartition("@")
    return (space, child) if at and ".py" not in child else (text, None)


def anchored(text: str) -> str:
    """The same plugin from any folder: a path to a file made absolute, a name as it is."""
    name, _ = split_options(split_child(text)[0])
    if not name.endswith(".py"):
        return text
    return f"{Path(name).resolve()}{text[len(name) :]}"


def load(kind: str, name: str) -> ModuleType:
    """The module ``elastic_nas/<kind>/<name>.py``, or the Python file at path `name`.

    Raises:
        UnknownName: There is no such plugin or file.
    """
    if name.endswith(".py"):
        return _load_file(kind, Path(name))
    names = available(kind)
    if name not in names:
        noun = CLASS_NAMES[kind].lower() if kind != "strategies" else "strategy"
        raise UnknownName(
            f"no {noun} called {name!r}{suggest(name, names)}\n"
            f"Available {kind}: {', '.join(names)}; a path to a .py file works too."
        )
    return importlib.import_module(f"elastic_nas.{kind}.{name}")


def _load_file(kind: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise UnknownName(f"no file {str(path)!r} to load one of the {kind} from.")
    # A name of its own, so that a file called numpy.py replaces nothing; dataclasses with
    # postponed annotations look their module up by name.
    name = f"elastic_nas_file.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UnknownName(f"{str(path)!r} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{str(path)!r} fails when imported: {error!r}") from error
    return module


def create(kind: str, text: str, **arguments: Any) -> Any:
    """The plugin object that `text` names, with its options: ``tiny:size=32,activation=hswish``.

    `arguments` are passed on as they are (a strategy's dims and generator, say).

    Raises:
        UnknownName: There is no such plugin.
        ConfigError: An option is unknown, of the wrong type, or out of range.
    """
    name, options = split_options(text)
    module = load(kind, name)
    cls = getattr(module, CLASS_NAMES[kind], None)
    if not is_dataclass(cls) or not isinstance(cls, type):
        raise ConfigError(f"{name!r} defines no dataclass {CLASS_NAMES[kind]!r}.")
    return cls(**arguments, **_parse_options(cls, name, options))


def _parse_options(cls: type, name: str, text: str) -> dict[str, Any]:
    simple = (bool, int, float, str)
    known = {f.name: f.default for f in fields(cls) if f.init and type(f.default) in simple}
    parsed: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if key in parsed:
            raise ConfigError(f"option {key!r} of {name!r} is given twice; give it once.")
        options = f"Options: {', '.join(f'{k}={v}' for k, v in known.items()) or 'none'}."
        if key not in known:
            raise ConfigError(
                f"{name!r} has no option {key!r}{suggest(key, list(known))}\n{options}"
            )
        if not equals:
            raise ConfigError(f"option {key!r} of {name!r} needs a value.\n{options}")
        parsed[key] = _typed(value, known[key], f"option {key!r} of {name!r}")
    return parsed


def _typed(text: str, default: Any, where: str) -> Any:
    """`text` as the type of the option's default: a bool, a whole number, a number or a text."""
    kind = type(default)
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        if kind is float and not isfinite(value):
            raise ValueError(f"{text} is not finite")
        return value
    except (ValueError, KeyError) as error:
        what = {bool: "true or false", int: "a whole number"}.get(kind, "a finite number")
        raise ConfigError(f"{where} must be {what}, got {text[:40]!r}.") from error
