"""Hardware profiles: what a device is, how it is measured, and where its table lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elastic_nas.errors import ConfigError, TableError, UnknownName
from elastic_nas.files import data_folder, user_folder
from elastic_nas.machine import environment
from elastic_nas.plugins import suggest
from elastic_nas.yaml_file import read_yaml

MAX_THREADS = 1024
PRECISIONS = ("fp32", "bf16", "fp16", "int8")

_FIELDS: dict[str, type] = {
    "name": str,
    "description": str,
    "runtime": str,
    "threads": int,
    "precision": str,
    "generic": bool,
}
_OPTIONAL: dict[str, type] = {"provider": str, "scheme": str, "measure": str}
_CPU_FIELDS: dict[str, type] = {"arch": str, "name": str, "flags": list}
_LIMITS: dict[str, type] = {"memory_kb": int, "flash_kb": int}


@dataclass(frozen=True)
class Device:
    """One way to run networks on one kind of machine.

    Attributes:
        name: The profile's file name without ``.yaml``.
        description: One line for people.
        runtime: A module of ``elastic_nas/runtimes/``, or a path.
        threads: Threads that the runtime may use.
        precision: One of `PRECISIONS`; the runtime must have it.
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
        path = Path(name_or_path)
        if not path.is_file():
            raise UnknownName(f"no file {name_or_path!r} to read a hardware profile from.")
        return _read(path)
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
    return _read(own if own.is_file() else _shipped("hardware_profiles", f"{name}.yaml"))


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
        if not table.is_file():
            raise TableError(f"no latency table at {table}: there is no such file.")
        return table
    places = table_places(device, run)
    for place in places:
        if place.is_file():
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
    values = read_yaml(path)
    values = _checked(values, _FIELDS, f"{path}", optional=("cpu", "limits", *_OPTIONAL))
    limits = _checked(values.pop("limits", {}), {}, f"limits of {path}", optional=tuple(_LIMITS))
    _check_types(limits, _LIMITS, f"limits of {path}")
    cpu = _checked(values.pop("cpu", {}), {}, f"cpu of {path}", optional=tuple(_CPU_FIELDS))
    _check_types(cpu, _CPU_FIELDS, f"cpu of {path}")
    _check_types(values, {**_FIELDS, **_OPTIONAL}, f"{path}")
    if any(type(flag) is not str for flag in cpu.get("flags", ())):
        raise ConfigError(f"cpu flags of {path} must be a list of words.")
    if values["name"] != path.stem:
        raise ConfigError(f"the name in {path} must be the file's, {path.stem!r}.")
    if not 1 <= values["threads"] <= MAX_THREADS:
        raise ConfigError(f"threads of {path} must be 1 to {MAX_THREADS}.")
    if values["precision"] not in PRECISIONS:
        raise ConfigError(f"precision of {path} must be one of {', '.join(PRECISIONS)}.")
    if any(limit < 1 for limit in limits.values()):
        raise ConfigError(f"limits of {path} must be 1 kB or more.")
    return Device(**values, cpu=cpu, limits=limits, place=str(path))


def _checked(
    values: Any, needed: Mapping[str, type], where: str, optional: tuple[str, ...]
) -> dict[str, Any]:
    """The mapping itself, with all `needed` keys and no unknown one."""
    known = [*needed, *optional]
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a mapping with the keys {', '.join(known)}.")
    for key in values:
        if key not in known:
            hint = suggest(str(key), known)
            raise ConfigError(f"unknown key {key!r} in {where}{hint}\nKeys: {', '.join(known)}.")
    lacking = [key for key in needed if key not in values]
    if lacking:
        raise ConfigError(f"{where} lacks the key {lacking[0]!r}.")
    return dict(values)


def _check_types(values: Mapping[str, Any], types: Mapping[str, type], where: str) -> None:
    for key, value in values.items():
        if type(value) is not types[key]:
            kind = {str: "text", int: "a whole number", bool: "true or false", list: "a list"}
            raise ConfigError(f"{key} in {where} must be {kind[types[key]]}.")
