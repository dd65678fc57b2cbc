"""The run file: frozen, documented, strict.

A run file is YAML. Unknown and duplicate keys are refused; every value is checked for type and
range. `train` writes the full file, defaults filled in, into the run folder.
"""

from collections.abc import Hashable
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from elastic_nas.errors import ConfigError
from elastic_nas.plugins import suggest

MAX_RUN_FILE_BYTES = 1_000_000
LENGTHS = ("epochs", "minutes", "steps")
"""Keys of the train section of which one says how long to train."""

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    """Frozen; unknown keys, strings for numbers, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class AugmentConfig(_Strict):
    """What happens to a training image before the supernet sees it."""

    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Smallest share of the image's area that a random crop keeps."""
    strong: Literal["trivial", "none"] = "trivial"
    """``trivial``: one operation drawn per image (TrivialAugment); ``none``."""


class TrainConfig(_Strict):
    """How the supernet is trained: sandwich rule, in-place distillation."""

    epochs: Positive | None = None
    """Length of the training in passes over the training split; or give `minutes` or `steps`."""
    minutes: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Length in minutes; measured on the first steps and turned into a number of steps."""
    steps: Positive | None = None
    """Length in optimiser steps; what `epochs` and `minutes` become in the written run file."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    """Images a step."""
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Peak rate of SGD with Nesterov momentum, for the sum of the children's gradients."""
    momentum: Share = 0.9
    """Nesterov momentum."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-5
    """Not applied to norms and biases."""
    warmup: Share = 0.05
    """Share of the steps in which the rate rises from 0."""
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the peak rate at which the cosine ends in a constant (BigNAS's constant ending)."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0
    """Largest norm of the summed gradient; null for no clipping."""
    label_smoothing: Share = 0.1
    """For the largest child only."""
    dropout: Share = 0.1
    """Before the classifier, for the largest child only."""
    drop_connect: Share = 0.0
    """Of the last residual block, falling linearly to the first; for the largest child only."""
    random_children: Annotated[int, Field(ge=0, le=64)] = 2
    """Children a step beside the largest and the smallest."""
    augment: AugmentConfig = AugmentConfig()
    """Random crops and one strong augmentation an image."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: a CUDA GPU if there is one."""
    mixed_precision: bool = True
    """bfloat16 autocast on a GPU; the CPU computes in float32."""
    threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Torch threads on the CPU; null for torch's own choice."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that read and augment images; 0: the training process itself."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time between checkpoints."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if sum(getattr(self, length) is not None for length in LENGTHS) > 1:
            raise ValueError("give only one of epochs, minutes and steps")
        return self


class SearchConfig(_Strict):
    """How children are searched and judged."""

    strategy: str = "evolution"
    """A module of ``elastic_nas/strategies/``, with options: ``evolution:population_size=30``."""
    evaluations: Positive = 100
    """Children to evaluate."""
    calibration_images: Annotated[int, Field(ge=32)] = 512
    """Training images that re-estimate a candidate's batch-norm statistics."""
    validation_images: Annotated[int, Field(ge=32)] = 10_000
    """At most so many search-validation images judge a candidate."""
    export_calibration_images: Annotated[int, Field(ge=32)] = 4096
    """Training images that re-estimate the statistics of a child that is exported."""


class RunConfig(_Strict):
    """Everything a run depends on."""

    data: str = "digits"
    """``digits``, or a folder of class folders."""
    space: str | None = None
    """A space with its options, e.g. ``tiny:size=32``; null: chosen from the images."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Of weights, order, augmentation, children and splits, each through its own generator."""
    train: TrainConfig = TrainConfig()
    """How the supernet is trained."""
    search: SearchConfig = SearchConfig()
    """How children are searched and judged."""


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
        if path.stat().st_size > MAX_RUN_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_RUN_FILE_BYTES} bytes; not a YAML file?")
        return _value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text file; a run file is YAML.") from error
    except _NOT_YAML as error:
        raise ConfigError(f"{path} is not valid YAML: {_reason(error)}") from error


_NOT_YAML = (yaml.YAMLError, ValueError, TypeError, RecursionError)


def _value(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _reason(error: BaseException) -> str:
    """What the parser says, without the excerpt and its two positions."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return str(error) or type(error).__name__
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}."


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
        try:
            _put(value, key.split("."), _value(text))
        except _NOT_YAML as error:
            raise ConfigError(
                f"--set {override}: the value is not valid YAML: {_reason(error)}"
            ) from error
    try:
        return RunConfig.model_validate(value)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from error


def _put(value: dict[str, Any], path: list[str], item: Any) -> None:
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
            rows.append((prefix + name, field.description or ""))
    return rows


def _explain(error: ValidationError, source: str) -> str:
    """One line a mistake: the dotted key, what is wrong, and a near key if unknown."""
    lines = []
    for mistake in error.errors():
        key = ".".join(map(str, mistake["loc"])) or "train"
        if mistake["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}{suggest(key, known_keys())}")
        else:
            message = mistake["msg"].replace("Input should be", "must be")
            got = "" if mistake["type"] == "value_error" else f", got {mistake['input']!r:.60}"
            lines.append(f"{key}: {message.removeprefix('Value error, ')}{got}.")
    if any(mistake["type"] == "extra_forbidden" for mistake in error.errors()):
        lines.append(f"Known keys: {', '.join(known_keys())}.")
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
                text = yaml.safe_dump(item, default_flow_style=True, width=inf)
                text = text.removesuffix("...\n").strip()
                lines.append(f"{indent}{key}: {text}  # {meanings[prefix + key]}")

    write(config.model_dump(), "", "")
    return "\n".join(lines) + "\n"


def recipe(name: str) -> RunConfig:
    """A run file that ships with the package: ``elastic_nas/recipes/<name>.yaml``."""
    return read_run_file(Path(__file__).parent / "recipes" / f"{name}.yaml")


def recipes() -> list[str]:
    """Names of the run files that ship with the package."""
    return sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.yaml"))
