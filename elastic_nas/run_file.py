"""Run files: read strictly, changed on the command line, written in full."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from elastic_nas.config import LENGTHS, RunConfig
from elastic_nas.errors import ConfigError
from elastic_nas.plugins import suggest
from elastic_nas.strict import mistakes
from elastic_nas.yaml_file import NOT_YAML, dump_yaml, parse_yaml, read_yaml, reason

MOST_PARTS = 8
"""Of a dotted key; the run file's own have three."""


def read_run_file(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """The run file at `path` with ``key=value`` overrides applied.

    Raises:
        ConfigError: See `read_yaml`; or a key is unknown, or a value of the wrong type or range.
    """
    value = read_yaml(path)
    if not isinstance(value, dict) or not value:
        raise ConfigError(f"{path} holds no settings; a run file starts like\n  data: digits")
    return parse_run(value, overrides, str(path))


def parse_run(
    value: dict[str, Any], overrides: list[str] | None = None, source: str = "the run"
) -> RunConfig:
    """A checked `RunConfig` from plain values and ``train.batch_size=32``-like overrides.

    Raises:
        ConfigError: A key is unknown, or a value of the wrong type or range.
    """
    for override in overrides or []:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(
                f"--set needs key=value, such as train.batch_size=32; got {override!r}."
            )
        path = key.split(".")
        if len(path) > MOST_PARTS:
            raise ConfigError(f"--set {override[:60]}...: no key of a run file is so deep.")
        try:
            _put(value, path, parse_yaml(text))
        except NOT_YAML as error:
            raise ConfigError(
                f"--set {override}: the value is not valid YAML: {reason(error)}"
            ) from error
    try:
        return RunConfig.model_validate(value)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from error


def _put(value: dict[str, Any], path: list[str], item: Any) -> None:
    if isinstance(value.get("data"), str):  # a source alone
        value["data"] = {"source": value["data"]}
    if path == ["data"] and not isinstance(item, dict):
        path = ["data", "source"]
    for key in path[:-1]:
        value = value.setdefault(key, {})
        if not isinstance(value, dict):
            raise ConfigError(f"cannot set {'.'.join(path)}: {key!r} is no section with keys.")
    if path[-1] in LENGTHS:
        for length in LENGTHS:
            value.pop(length, None)
    value[path[-1]] = item


def known_keys() -> list[str]:
    """Every key of a run file, dotted."""
    return [key for key, _ in _walk(RunConfig, "")]


def _walk(model: type[BaseModel], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows += _walk(kind, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, " ".join((field.description or "").split())))
    return rows


def _explain(error: ValidationError, source: str) -> str:
    """One line a mistake: the dotted key, what is wrong, and a near key if unknown."""
    known = known_keys()
    lines = mistakes(error, lambda key: suggest(key, known))
    lines = [line if line.endswith((".", "?")) else f"{line}." for line in lines]
    if any(line.startswith("unknown key") for line in lines):
        lines.append(f"Known keys: {', '.join(known)}.")
    return f"{source} cannot be used:\n  " + "\n  ".join(lines)


def dump_run(config: RunConfig) -> str:
    """The full run file as YAML, every key with what it means."""
    meanings = dict(_walk(RunConfig, ""))
    lines: list[str] = []

    def write(value: dict[str, Any], prefix: str, indent: str) -> None:
        for key, item in value.items():
            if isinstance(item, dict):
                lines.append(f"{indent}{key}:")
                write(item, f"{prefix}{key}.", indent + "  ")
            else:
                lines.append(f"{indent}{key}: {dump_yaml(item)}  # {meanings[prefix + key]}")

    write(config.model_dump(), "", "")
    return "\n".join(lines) + "\n"


def recipe(name: str) -> RunConfig:
    """A run file that ships with the package: ``elastic_nas/recipes/<name>.yaml``."""
    return read_run_file(Path(__file__).parent / "recipes" / f"{name}.yaml")


def recipes() -> list[str]:
    """Names of the run files that ship with the package."""
    return sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.yaml"))
