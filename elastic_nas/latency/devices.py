"""Hardware profiles: what a device is, how it is measured, and where its table lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os.path import isfile, lexists
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from elastic_nas.errors import ConfigError, TableError, UnknownName
from elastic_nas.files import data_folder, user_folder
from elastic_nas.machine import environment
from elastic_nas.plugins import suggest
from elastic_nas.strict import Strict, mistakes, shown
from elastic_nas.yaml_file import read_yaml

MAX_THREADS = 1024
MAX_KB = 10**9


def _of_lines(text: str) -> str:
    if not text.replace("\n", "").isprintable():
        raise ValueError(f"must be printable text, got {shown(text)}")
    return text


def _of_one_line(text: str) -> str:
    if "\n" in text:
        raise ValueError(f"must be one line, got {shown(text)}")
    return _of_lines(text)


Word = Annotated[str, Field(max_length=100), AfterValidator(_of_one_line)]
Words = Annotated[str, Field(max_length=2000), AfterValidator(_of_lines)]


class _CpuPart(Strict):
    arch: Word = ""
    name: Word = ""
    flags: Annotated[list[Word], Field(max_length=1000)] = Field(default_factory=list)


class _LimitsPart(Strict):
    memory_kb: Annotated[int, Field(ge=1, le=MAX_KB)] = 1
    flash_kb: Annotated[int, Field(ge=1, le=MAX_KB)] = 1


class _ProfileFile(Strict):
    """A hardware profile as it stands in a file; see `Device`."""

    name: Word
    description: Words
    runtime: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_of_one_line)]
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)]
    precision: Literal["fp32", "bf16", "fp16", "int8"]
    generic: bool
    provider: Word = ""
    scheme: Word = ""
    measure: Words = ""
    cpu: _CpuPart = _CpuPart()
    limits: _LimitsPart = _LimitsPart()


KEYS = (
    *_ProfileFile.model_fields,
    *(f"cpu.{key}" for key in _CpuPart.model_fields),
    *(f"limits.{key}" for key in _LimitsPart.model_fields),
)


@dataclass(frozen=True)
class Device:
    """One way to run networks on one kind of machine.

    Attributes:
        name: The profile's file name without ``.yaml``.
        description: One line for people.
        runtime: A module of ``elastic_nas/runtimes/``, or a path.
        threads: Threads that the runtime may use.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``; the runtime must have it.
        generic: Whether it stands for whatever machine this is, so that no table can ship.
        cpu: For a specific device: ``arch``, part of the CPU's ``name``, vector ``flags`` it has.
        provider: The runtime's execution provider; by default the CPU's.
        scheme: How int8 models are quantised; by default what the CPU runs fast.
        measure: How it is measured where `run.py` of a kit is not the way.
        limits: ``memory_kb`` and ``flash_kb`` of a microcontroller or an NPU.
        place: The profile's file, which names the runtime.
    """

    name: str
    description: str
    runtime: str
    threads: int
    precision: str
    generic: bool
    cpu: Mapping[str, Any] = field(default_factory=dict, hash=False)
    provider: str = ""
    scheme: str = ""
    measure: str = ""
    limits: Mapping[str, int] = field(default_factory=dict, hash=False)
    place: str = field(default="", compare=False, repr=False)

    def mismatch(self, environment: Mapping[str, Any]) -> str:
        """Why a machine is not this device, or nothing.

        Args:
            environment: Of the machine, as `measure.environment` tells it.
        """
        if environment["arch"] != self.cpu.get("arch", environment["arch"]):
            return f"it has an {self.cpu['arch']} CPU, this machine an {environment['arch']} one"
        if self.cpu.get("name", "") not in environment["cpu"]:
            return f"its CPU is {self.cpu['name']!r}, this machine's {environment['cpu']!r}"
        lacking = sorted(set(self.cpu.get("flags", ())) - set(environment["flags"]))
        return f"this machine's CPU lacks {', '.join(lacking)}" if lacking else ""


def device_names() -> list[str]:
    """Names of the shipped profiles and of those in the user's folder."""
    folders = (data_folder("hardware_profiles"), user_folder() / "hardware_profiles")
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def load_device(name_or_path: str) -> Device:
    """The device of that name, or of the YAML file at that path.

    Raises:
        UnknownName: There is no such profile or file.
        ConfigError: The file is not a valid profile.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        if not isfile(name_or_path):
            raise UnknownName(f"no file {name_or_path!r} to read a hardware profile from.")
        return _read(Path(name_or_path))
    return named_device(name_or_path)


def named_device(name: str) -> Device:
    """The device of that name, shipped or of the user's own: never a path, whatever it looks like.

    For names that a file from outside gives, such as a manifest or the result of a kit.

    Raises:
        UnknownName: There is no such profile.
        ConfigError: The file is not a valid profile.
    """
    names = device_names()
    if name not in names:
        raise UnknownName(
            f"no device called {name[:200]!r}{suggest(name[:200], names)}\n"
            f"Available devices: {', '.join(names)}; a path to a .yaml file works too."
        )
    own = user_folder() / "hardware_profiles" / f"{name}.yaml"
    return _read(own if lexists(own) else _shipped("hardware_profiles", f"{name}.yaml"))


def known_devices() -> dict[str, Device | ConfigError]:
    """All profiles by name, or what is wrong with one; no runtime is loaded."""
    known: dict[str, Device | ConfigError] = {}
    for name in device_names():
        try:
            known[name] = named_device(name)
        except ConfigError as error:
            known[name] = error
    return known


def table_places(device: Device, run: Path | None = None) -> list[Path]:
    """Where the device's table is looked for, first place first.

    Args:
        device: The device.
        run: A run folder.
    """
    file = f"{device.name}.json"
    folders = [*([run] if run else []), user_folder()]
    places = [folder / "latency_tables" / file for folder in folders]
    return [*places, _shipped("latency_tables", file)]


def find_table(device: Device, *, table: Path | None = None, run: Path | None = None) -> Path:
    """The file of the device's latency table.

    Args:
        device: The device.
        table: A file that the user names; it is used or refused, never passed over.
        run: A run folder, which may hold a table of its own.

    Raises:
        TableError: There is no table.
    """
    if table is not None:
        if not isfile(table):
            raise TableError(f"no latency table at {table}: there is no such file.")
        return table
    places = table_places(device, run)
    for place in places:
        if isfile(place):
            return place
    raise TableError(
        f"no latency table for {device.name!r}. Looked for {', '.join(map(str, places))}.\n"
        f"{how_to_measure(device)}"
    )


def how_to_measure(device: Device, space: str = "SPACE") -> str:
    """What makes a table of the device: a profile where this machine is it, else a kit."""
    if not device.mismatch(environment()):
        return f"Measure this machine: elastic-nas profile {device.name} --space {space}"
    return (
        f"This machine is not {device.name}; make a kit that measures it: elastic-nas kit --device "
        f"{device.name} --space {space} --out kit.zip"
    )


def _shipped(folder: str, file: str) -> Path:
    return data_folder(folder) / file


def _read(path: Path) -> Device:
    value = read_yaml(path)
    try:
        found = _ProfileFile.model_validate(value)
    except ValidationError as error:
        lines = mistakes(error, lambda key: suggest(key, list(KEYS)))
        keys = f"\n  Known keys: {', '.join(KEYS)}." if "unknown key" in "".join(lines) else ""
        raise ConfigError(f"{path} cannot be used:\n  " + "\n  ".join(lines) + keys) from error
    if found.name != path.stem:
        raise ConfigError(f"the name in {path} must be the file's, {path.stem!r}.")
    parts = {key: getattr(found, key).model_dump(exclude_unset=True) for key in ("cpu", "limits")}
    return Device(**{**dict(found), **parts}, place=str(path))
