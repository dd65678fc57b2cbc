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
from elastic_nas.errors import ConfigError, RunFolderError, UnknownName
from elastic_nas.genotype import Genotype, format_genotype, parse_genotype
from elastic_nas.latency.bound import LEVEL
from elastic_nas.network import Network
from elastic_nas.runs import open_run
from elastic_nas.settings import from_settings
from elastic_nas.trusted import trust

if TYPE_CHECKING:
    from elastic_nas.config import RunConfig

KINDS = ("spaces", "strategies", "devices", "tasks")


def overrides(values: dict[str, Any]) -> list[str]:
    """Values that are not None, as ``key=value`` overrides of a run file."""
    return [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None
    ]


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
    modules = {name: plugins.load(kind, name) for name in plugins.available(kind)}
    first_lines = {name: (m.__doc__ or "").strip().splitlines()[0] for name, m in modules.items()}
    return {kind: [{"name": name, "about": about} for name, about in first_lines.items()]}


def _devices(run: Path | None) -> list[dict[str, Any]]:
    from elastic_nas.latency.devices import device_names, load_device, table_places
    from elastic_nas.machine import environment

    rows = []
    for name in device_names():
        device = load_device(name)
        found = [str(place) for place in table_places(device, run) if place.is_file()]
        elsewhere = device.mismatch(environment())
        make = "no table yet; make one: elastic-nas " + (
            f"kit --device {name} --space SPACE" if elsewhere else f"profile {name} --space SPACE"
        )
        rows.append(
            {
                "name": name,
                "about": device.description,
                "runtime": f"{device.runtime}, {device.threads} thread(s), {device.precision}",
                "table": found[0] if found else None,
                "hint": "" if found else make,
            }
        )
    return rows
