"""A device as seen from this machine: its table, what children cost on it, and what holds here.

Imports neither torch nor a runtime, so that a query is quick.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elastic_nas import additive, plugins
from elastic_nas.additive import AdditiveCost
from elastic_nas.budgets import Budgets, Costs
from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.files import sha256_of
from elastic_nas.genotype import Genotype
from elastic_nas.latency.bound import LEVEL
from elastic_nas.latency.devices import Device, find_table, load_device
from elastic_nas.latency.measured import Measured, read_measured
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.speed_file import Checked, read_speed
from elastic_nas.latency.table import LatencyTable
from elastic_nas.machine import environment, signature
from elastic_nas.network import Network
from elastic_nas.runs import RunFolder
from elastic_nas.specs import BlockSpec
from elastic_nas.specs.block import FLOAT_BYTES


@dataclass(frozen=True)
class Target:
    """What `open_target` found.

    Attributes:
        device: The profile.
        table_path: The file of the latency table in use.
        table: The table.
        table_sha256: Hash of its file.
        predictor: Predicts and bounds latencies from it.
        measured: What finalists of earlier searches really took.
        checked: What the last check of the table on this machine found.
        elsewhere: Why this machine is not the device: its CPU, runtime version or threads are not
            the table's. Empty where it is.
        costs: Predictions, bounds and the counted costs, for search and query.
    """

    device: Device
    table_path: Path
    table: LatencyTable
    table_sha256: str
    predictor: Predictor
    measured: Measured
    checked: Checked | None
    elsewhere: str
    costs: Costs

    def measured_ms(self, genotype: Genotype) -> float | None:
        """What a child was measured at, told at the machine's speed as last checked, if it was."""
        ms = self.measured.ms.get(genotype)
        return None if ms is None else ms * self.predictor.speed

    @property
    def checked_text(self) -> str:
        """When the table was last found to hold on this machine, and at what speed; or nothing."""
        if self.checked is None or self.checked.why:
            return ""
        return f"{self.checked.date}: {self.checked.factor:.3f} times what the table says"

    @property
    def is_here(self) -> bool:
        """Whether children can be measured here as they were for the table."""
        return not self.elsewhere

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must know before relying on the figures."""
        notes = []
        if self.predictor.stale:
            notes.append(f"stale table: {self.predictor.stale}; its bounds are no promise here")
        if self.predictor.unfitted:
            notes.append("bare sums of the table's entries: no children were measured, no bound")
        elif self.predictor.unbounded:
            notes.append("no children to take a bound on: the prediction stands in its place")
        if self.predictor.interpolated:
            notes.append("the classifier's latency is interpolated between measured sizes")
        return tuple(notes)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What does not weaken the figures, but must be known: files are fp32 on every device."""
        device = self.device
        if device.precision == "fp32":
            return ()
        what = f"its {device.precision} form, as {device.runtime} converts it"
        return (f"the exported file is fp32; latency, size and memory are those of {what}",)

    def limited(self, budgets: Budgets) -> Budgets:
        """The budgets, and the device's own limits where these are narrower."""
        limits = self.device.limits
        own = {"memory_bytes": limits.get("memory_kb"), "size_bytes": limits.get("flash_kb")}
        narrower = {
            name: min(1024 * kb, getattr(budgets, name) or inf) for name, kb in own.items() if kb
        }
        return replace(budgets, **narrower)


def _as_floats(count: Callable[[Any], NDArray[np.int64]]) -> Callable[[Any], NDArray[np.float64]]:
    return lambda genotypes: count(genotypes).astype(np.float64)


def runtime_of(device: Device) -> Any:
    """The device's runtime plugin with its threads, precision, provider and scheme.

    The scheme of int8 is the device's own, so that a kit for another machine is right there.

    Raises:
        ConfigError: The runtime has no such precision, provider or scheme.
    """
    module = plugins.load("runtimes", device.runtime, device.place)
    cls: Any = getattr(module, "Runtime", None)
    sound = is_dataclass(cls) and callable(cls)
    if not sound:
        raise ConfigError(f"{device.runtime!r} defines no dataclass 'Runtime'.")
    try:
        made = cls(threads=device.threads, precision=device.precision, **_options(cls, device))
        lacking = [name for name in plugins.MEMBERS["runtimes"] if not hasattr(made, name)]
    except ElasticNasError:
        raise
    except Exception as error:  # of somebody's code
        told = f"{type(error).__name__}: {str(error)[:300]}"
        raise ConfigError(f"{device.runtime!r} fails when it is used: {told}") from error
    if lacking:
        raise ConfigError(f"Runtime in {device.runtime!r} lacks {', '.join(lacking)}.")
    return made


def _options(cls: Any, device: Device) -> dict[str, str]:
    """Provider and scheme, where the device names them."""
    given = {"provider": device.provider, "scheme": device.scheme}
    known = {f.name for f in fields(cls)}
    if "scheme" in known and device.precision == "int8" and device.cpu and not device.scheme:
        facts = environment()
        given["scheme"] = cls.scheme_for(
            device.cpu.get("arch", facts["arch"]),
            device.cpu.get("flags", facts["flags"]),
            device.provider,
        )
    options = {key: value for key, value in given.items() if value}
    if not options.keys() <= known:
        lacking = ", ".join(sorted(options.keys() - known))
        raise ConfigError(f"{device.name}: runtime {device.runtime} has no {lacking}.")
    return options


def missing_runtime(device: Device) -> str:
    """Why the device's runtime cannot run here: what to install, or nothing."""
    runtime = runtime_of(device)
    if runtime.version:
        return ""
    install = f"pip install 'elastic-nas[{runtime.extra}]'" if runtime.extra else runtime.name
    return f"needs {runtime.name}, which is not installed here ({install})"


def this_machine(device: Device) -> dict[str, Any]:
    """What a latency measured here belongs to: CPU, runtime version, threads."""
    runtime = runtime_of(device)
    return {
        **signature(environment()),
        "runtime": f"{runtime.name} {runtime.version}",
        "threads": runtime.threads,
    }


def open_target(
    network: Network,
    device_name: str,
    *,
    table: Path | None = None,
    run: RunFolder | None = None,
    level: float = LEVEL,
) -> Target:
    """The device, ready to predict for children of `network`.

    Args:
        network: Whose children are asked about.
        device_name: A hardware profile's name or path.
        table: A latency table to use whatever else exists.
        run: A run folder that may hold one, and finalists that were measured.
        level: The share of random children that keep the bound.

    Raises:
        ConfigError: No bound can be of this level.
        UnknownName: There is no such profile.
        TableError: There is no table, it cannot be trusted, or it was made for another space.
        MissingEntries: It lacks blocks of this network.
    """
    device = load_device(device_name)
    path = find_table(device, table=table, run=None if run is None else run.path)
    content = LatencyTable.read(path)
    content.check_fits(device)
    elsewhere = missing_runtime(device) or content.stale(runtime_of(device).version, environment())
    plain = Predictor(network, content, stale=elsewhere, level=level)
    checked = None if elsewhere else read_speed(device.name, plain.digest)
    measured = _measured(network, device, plain.digest, run)
    predictor, broken = _informed(plain, checked, measured)

    def bound_ms(genotypes: NDArray[np.integer]) -> NDArray[np.float64]:
        """The bound, and what was measured where that is more."""
        bounds = predictor.bound_ms(genotypes)
        for genotype in broken:
            same = (np.asarray(genotypes) == genotype).all(axis=1)
            bounds[same] = np.maximum(bounds[same], measured.ms[genotype] * predictor.speed)
        return bounds

    costs = Costs(
        predicted_ms=predictor.predict_ms,
        bound_ms=bound_ms,
        params=_as_floats(partial(additive.params, network)),
        macs=_as_floats(partial(additive.macs, network)),
        size_bytes=_as_floats(partial(additive.file_bytes, network, precision=device.precision)),
        memory_bytes=_memory_bytes(network, content),
    )
    digest = sha256_of(path)
    return Target(device, path, content, digest, predictor, measured, checked, elsewhere, costs)


def _memory_bytes(
    network: Network, table: LatencyTable
) -> Callable[[NDArray[np.integer]], NDArray[np.float64]]:
    """Peak activations: the largest block's, by the runtime's own counters where it has them."""
    scale = FLOAT_BYTES if table.precision == "int8" else 1

    def of_block(spec: BlockSpec) -> float:
        row = table.blocks.get(spec)
        counted = None if row is None else row.memory_bytes
        return spec.costs.peak_bytes / scale if counted is None else counted

    return AdditiveCost(network, of_block, np.maximum)


def _measured(network: Network, device: Device, digest: str, run: RunFolder | None) -> Measured:
    if run is None:
        return Measured(digest, {})
    return read_measured(run.measured(device.name), digest, network.dims)


def _informed(
    plain: Predictor, checked: Checked | None, measured: Measured
) -> tuple[Predictor, list[Genotype]]:
    """The predictor that knows of the last check, and of measured children that broke their bound.

    Returns:
        It, and these children.
    """
    if checked is not None and checked.why:
        return plain.told(stale=f"{checked.why} (checked {checked.date})"), []
    speed = 1.0 if checked is None else checked.factor
    children = list(measured.ms)
    if not children or not plain.promise:
        return plain.told(stale=plain.stale, speed=speed), []
    ms = np.array(list(measured.ms.values()))
    ratios = ms / plain.predict_ms(np.array(children))
    over = np.flatnonzero(ms > plain.bound_ms(np.array(children)))
    also = tuple(float(ratio) for ratio in ratios[over])
    return plain.told(speed=speed, also=also), [children[i] for i in over]
