"""Plugins by file name: `elastic_nas/<kind>/<name>.py`, or a path to a file of the same form.

There is no registry: a file is a plugin by lying in the folder of its kind.
"""

import importlib
import pkgutil
import sys
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

from elastic_nas.errors import ConfigError, ElasticNasError, UnknownName
from elastic_nas.trusted import read_code

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


def load(kind: str, name: str, named_in: str = "") -> ModuleType:
    """The module ``elastic_nas/<kind>/<name>.py``, or the Python file at path `name`.

    Args:
        kind: A folder of plugins.
        name: Of the plugin, or the path of a file.
        named_in: The file from outside that gives the name; nothing where the user does. See
            `trusted`.

    Raises:
        UnknownName: There is no such plugin or file.
        UntrustedCode: A file from outside names code that the user never named.
    """
    if name.endswith(".py"):
        return _load_file(kind, Path(name), named_in)
    names = available(kind)
    if name not in names:
        noun = CLASS_NAMES[kind].lower() if kind != "strategies" else "strategy"
        raise UnknownName(
            f"no {noun} called {name[:200]!r}{suggest(name, names)}\n"
            f"Available {kind}: {', '.join(names)}; a path to a .py file works too."
        )
    return importlib.import_module(f"elastic_nas.{kind}.{name}")


class _Checked(SourceLoader):
    """Loads the very bytes that were checked, and keeps no compiled copy of them."""

    def __init__(self, path: str, content: bytes) -> None:
        self._path, self._content = path, content

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str) -> bytes:
        if path != self._path:
            raise OSError(f"there is no {path}")
        return self._content


def _load_file(kind: str, path: Path, named_in: str) -> ModuleType:
    if not path.is_file():
        raise UnknownName(f"no file {str(path)!r} to load one of the {kind} from.")
    content = read_code(path, named_in)
    # A name of its own, so that a file called numpy.py replaces nothing; dataclasses with
    # postponed annotations look their module up by name.
    name = f"elastic_nas_file.{path.stem}"
    module = module_from_spec(ModuleSpec(name, _Checked(str(path), content), origin=str(path)))
    sys.modules[name] = module
    try:
        module.__loader__.exec_module(module)  # type: ignore[union-attr]
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{str(path)!r} fails when imported: {_told(error)}") from error
    return module


def create(kind: str, text: str, named_in: str = "", **arguments: Any) -> Any:
    """The plugin object that `text` names, with its options: ``tiny:size=32,activation=hswish``.

    `arguments` are passed on as they are (a strategy's dims and generator, say).

    Raises:
        UnknownName: There is no such plugin.
        UntrustedCode: See `load`.
        ConfigError: An option is unknown, of the wrong type, or out of range; a file offers
            something else than its kind must.
    """
    name, options = split_options(text)
    module = load(kind, name, named_in)
    cls = getattr(module, CLASS_NAMES[kind], None)
    if not is_dataclass(cls) or not isinstance(cls, type):
        raise ConfigError(f"{name!r} defines no dataclass {CLASS_NAMES[kind]!r}.")
    parsed = _parse_options(cls, name, options)
    if not name.endswith(".py"):
        return cls(**arguments, **parsed)
    try:
        made = cls(**arguments, **parsed)
        _check_form(kind, name, made)
    except ElasticNasError:
        raise
    except Exception as error:  # of somebody's code
        raise ConfigError(f"{name!r} fails when it is used: {_told(error)}") from error
    return made


MEMBERS: dict[str, tuple[str, ...]] = {
    "spaces": ("name", "dims", "units"),
    "tasks": ("units", "loss", "teacher", "distillation_loss", "correct"),
    "runtimes": ("name", "version", "owns_threads", "describe", "convert", "prepare", "run"),
    "strategies": ("ask", "tell"),
}
"""What an object of each kind must have."""


def _check_form(kind: str, name: str, made: object) -> None:
    """Refuse a plugin from a file that lacks what its kind must have."""
    lacking = [member for member in MEMBERS[kind] if not hasattr(made, member)]
    if lacking:
        raise ConfigError(
            f"{CLASS_NAMES[kind]} in {name!r} lacks {', '.join(lacking)}; one of the {kind} has "
            f"{', '.join(MEMBERS[kind])}."
        )


def _told(error: BaseException) -> str:
    """An error of somebody's code in a few words."""
    return f"{type(error).__name__}: {str(error)[:300]}" if str(error) else repr(error)[:300]


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
