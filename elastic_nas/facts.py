"""What commands are asked for, and facts about spaces, children and devices as plain values."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elastic_nas import genotype as genotypes
from elastic_nas import plugins
from elastic_nas.budgets import Budgets
from elastic_nas.data.place import name_of
from elastic_nas.errors import ConfigError, ElasticNasError, RunFolderError, UnknownName
from elastic_nas.genotype import Genotype, format_genotype, parse_genotype
from elastic_nas.latency.bound import LEVEL
from elastic_nas.network import Network
from elastic_nas.runs import open_run
from elastic_nas.settings import from_settings
from elastic_nas.trusted import trust

if TYPE_CHECKING:
    from elastic_nas.config import RunConfig
    from elastic_nas.latency.devices import Device

KINDS = ("spaces", "strategies", "devices", "runtimes", "tasks")


def overrides(values: dict[str, Any]) -> list[str]:
    """Values that are not None, as ``key=value`` overrides of a run file."""
    return [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None
    ]


def changes(data: str | None, settings: list[str] | None) -> list[str]:
    """``--data`` and ``--set`` as ``key=value`` overrides of a run file."""
    return [*(settings or []), *overrides({"data": data})]


def default_run(run_file: str | None, data: str | None) -> Path:
    """``runs/NAME`` for a run file or a folder of images."""
    name = name_of(data) if data is not None else Path(run_file or "digits").stem
    return Path("runs") / name


def train_config(
    run_file: str | None, data: str | None, out: Path | None, changes: list[str], *, resume: bool
) -> tuple["RunConfig", Path]:
    """The run file that a train command means, and its run folder.

    Raises:
        ConfigError: Nothing says what to train on, or the run file cannot be used.
    """
    from elastic_nas.run_file import parse_run, read_run_file, recipe, recipes

    folder = out or default_run(run_file, data)
    lengths = [change for change in changes if _is_length(change)]
    if len(lengths) > 1:
        raise ConfigError(f"give only one of {' and '.join(lengths)}: how long to train.")
    if resume:
        _name_code(changes)
        if not os.path.isfile(folder / "run.yaml"):
            raise RunFolderError(
                f"{folder} holds no run to resume; leave --resume out to start one, or name the "
                "run's folder with --out."
            )
        return read_run_file(folder / "run.yaml", changes), folder
    if run_file is None:
        if data is None:
            raise ConfigError(
                "nothing to train on: name a run file or a recipe "
                f"({', '.join(recipes())}), or a folder of images with --data DIR."
            )
        run_file = "digits" if data == "digits" else "small_data"
    if os.path.exists(run_file):
        return read_run_file(Path(run_file), changes), folder
    if run_file not in recipes():
        raise UnknownName(
            f"no run file {run_file!r}{plugins.suggest(run_file, recipes())}\n"
            f"Recipes: {', '.join(recipes())}; or name a file, or images with --data DIR."
        )
    return parse_run(recipe(run_file).model_dump(exclude_unset=True), changes), folder


def _name_code(changes: list[str]) -> None:
    """Files of code in ``key=value`` changes are named by the user, whatever the run names."""
    for change in changes:
        key, _, value = change.partition("=")
        if key in ("space", "search.strategy"):
            name, _ = plugins.split_options(plugins.split_child(value.strip("'\" "))[0])
            if name.endswith(".py"):
                trust(Path(name))


def _is_length(change: str) -> bool:
    """Whether a ``key=value`` says how long to train."""
    return change.partition("=")[0] in ("train.epochs", "train.minutes", "train.steps")


def folder_name(budgets: Budgets, genotype: str | None) -> str:
    """A name for the folder of an exported child."""
    if genotype is not None:
        return "child-" + genotype.replace(",", "-")
    limits = (kind.show(limit).replace(" ", "") for kind, limit in budgets.limits())
    return "-".join(("child", *limits))


def child_of(network: Network, text: str) -> Genotype:
    """The genotype that ``smallest``, ``largest``, a genotype or a settings file means.

    Raises:
        GenotypeError: It fits no child of the network.
        ConfigError: The settings file cannot be read.
    """
    if text.endswith((".yaml", ".yml")):
        from elastic_nas.yaml_file import read_yaml

        return from_settings(network.dims, read_yaml(Path(text)))
    return parse_genotype(network.dims, text)


def describe(space: str, child: str | None, classes: int | None) -> dict[str, Any]:
    """A space or one of its children as plain values."""
    network = Network(space, 1000 if classes is None else classes)
    if child is not None:
        chosen = child_of(network, child)
        return {
            "space": network.space.name,
            "classes": network.classes,
            **_counts(network, chosen),
            "blocks": [
                {**spec.key, "macs": spec.costs.macs, "params": spec.costs.params}
                for spec in network.blocks(chosen)
            ],
        }
    return {
        "space": network.space.name,
        "classes": network.classes,
        "dims": [{"name": dim.name, "choices": dim.choices} for dim in network.dims],
        "children": genotypes.count(network.dims),
        "smallest": _counts(network, network.smallest),
        "largest": _counts(network, network.largest),
    }


def _counts(network: Network, chosen: Genotype) -> dict[str, Any]:
    return {
        "genotype": format_genotype(chosen),
        "settings": network.settings(chosen),
        "macs": network.macs(chosen),
        "params": network.params(chosen),
    }


def predict(
    device: str,
    space: str,
    child: str,
    classes: int | None,
    table: Path | None,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Predicted and bounded latency of a child as plain values."""
    from elastic_nas.targets import open_target

    network = Network(space, 1000 if classes is None else classes)
    chosen = child_of(network, child)
    target = open_target(network, device, table=table, level=level)
    array = np.array([chosen])
    return {
        "device": target.device.name,
        "space": network.space.name,
        "classes": network.classes,
        "genotype": format_genotype(chosen),
        "latency_ms": float(target.predictor.predict_ms(array)[0]),
        "bound_ms": float(target.predictor.bound_ms(array)[0]),
        "level": level,
        "checked": target.checked_text,
        "promise": not target.notes,
        "notes": list(target.notes),
        "table": str(target.table_path),
    }


def listing(kind: str, run: Path | None) -> dict[str, Any]:
    """Names of one kind with what they are, as plain values.

    Raises:
        UnknownName: There is no such kind.
    """
    if kind not in KINDS:
        hint = plugins.suggest(kind, list(KINDS))
        raise UnknownName(f"no list of {kind!r}{hint}\nThere are: {', '.join(KINDS)}.")
    if kind == "devices":
        return {"devices": _devices(None if run is None else open_run(run).path)}
    if kind == "runtimes":
        return {"runtimes": [_runtime(name) for name in plugins.available(kind)]}
    modules = {name: plugins.load(kind, name) for name in plugins.available(kind)}
    return {kind: [{"name": name, "about": _about(module)} for name, module in modules.items()]}


def _about(module: Any) -> str:
    """The first line of a plugin's description."""
    return (module.__doc__ or "").strip().partition("\n")[0]


def _runtime(name: str) -> dict[str, Any]:
    """A runtime as plain values; nothing of its package is imported."""
    module = plugins.load("runtimes", name)
    runtime = module.Runtime()
    package = f"elastic-nas[{runtime.extra}]" if runtime.extra else runtime.name
    return {
        "name": name,
        "about": _about(module),
        "version": runtime.version,
        "install": "" if runtime.version else f"pip install {package!r}",
        "precisions": list(runtime.precisions),
        "providers": list(runtime.providers),
    }


def _devices(run: Path | None) -> list[dict[str, Any]]:
    from elastic_nas.latency.devices import known_devices, table_places
    from elastic_nas.machine import environment

    rows = []
    for name, device in known_devices().items():
        if isinstance(device, ConfigError):
            rows.append(_unusable(name, device))
            continue
        words = ["run folder"] * (run is not None) + ["per-user folder", "shipped"]
        places = zip(table_places(device, run), words, strict=True)
        found = [(str(place), word) for place, word in places if place.is_file()]
        elsewhere = bool(device.mismatch(environment()))
        install = "" if elsewhere else _lacks(device)
        make = "no table yet; make one: elastic-nas " + (
            f"kit --device {name} --space SPACE" if elsewhere else f"profile {name} --space SPACE"
        )
        rows.append(
            {
                "name": name,
                "about": device.description,
                "runtime": f"{device.runtime}, {device.threads} thread(s), {device.precision}",
                "use": _use(bool(found), elsewhere, install),
                "table": found[0][0] if found else None,
                "place": found[0][1] if found else None,
                "install": install,
                "hint": "" if found else make,
            }
        )
    return rows


def _unusable(name: str, error: ConfigError) -> dict[str, Any]:
    """The row of a profile that is damaged: it is named, and keeps no other from being shown."""
    fault = {"about": f"cannot be used: {error}", "use": "unusable"}
    none = dict.fromkeys(("runtime", "install", "hint"), "")
    return {"name": name, "table": None, "place": None, **none, **fault}


def _lacks(device: "Device") -> str:
    """What keeps a device of this machine from being measured, such as a missing package."""
    from elastic_nas.targets import missing_runtime

    try:
        return missing_runtime(device)
    except ElasticNasError as error:  # of a profile of the user's own
        return f"cannot be used: {error}"


def _use(has_table: bool, elsewhere: bool, install: str) -> str:
    """What can be done with a device now; `texts.USES` has the words."""
    if has_table:
        return "table"
    if elsewhere:
        return "elsewhere"
    return "package" if install else "here"
