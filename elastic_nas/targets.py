"""A device as seen from this machine: its table, what children cost on it, and what holds here.

Imports neither torch nor a runtime, so that a query is quick.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elastic_nas import additive, plugins
from elastic_nas.budgets import Costs
from elastic_nas.files import sha256_of
from elastic_nas.latency.devices import Device, find_table, load_device
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.table import LatencyTable
from elastic_nas.machine import environment, signature
from elastic_nas.network import Network


@dataclass(frozen=True)
class Target:
    """What `open_target` found.

    Attributes:
        device: The profile.
        table_path: The latency table in use.
        predictor: Predicts and bounds latencies from it.
        costs: The same and the counted costs, for search and query.
    """

    device: Device
    table_path: Path
    predictor: Predictor
    costs: Costs

    @property
    def is_here(self) -> bool:
        """Whether this machine is the device: CPU, runtime version and threads of the table."""
        return not self.predictor.stale

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must know before relying on the figures."""
        notes = []
        if self.predictor.stale:
            notes.append(f"stale table: {self.predictor.stale}; its bounds are no promise here")
        if self.predictor.interpolated:
            notes.append("the classifier's latency is interpolated between measured sizes")
        return tuple(notes)

    @property
    def table_sha256(self) -> str:
        """Hash of the table's file."""
        return sha256_of(self.table_path)


def _as_floats(count: Callable[[Any], NDArray[np.int64]]) -> Callable[[Any], NDArray[np.float64]]:
    return lambda genotypes: count(genotypes).astype(np.float64)


def runtime_of(device: Device) -> Any:
    """The device's runtime plugin with its number of threads."""
    return plugins.load("runtimes", device.runtime).Runtime(threads=device.threads)


def this_machine(device: Device) -> dict[str, Any]:
    """What a latency measured here belongs to: CPU, runtime version, threads."""
    runtime = runtime_of(device)
    return {
        **signature(environment()),
        "runtime": f"{runtime.name} {runtime.version}",
        "threads": runtime.threads,
    }


def open_target(
    network: Network, device_name: str, *, table: Path | None = None, run: Path | None = None
) -> Target:
    """The device, ready to predict for children of `network`.

    Args:
        network: Whose children are asked about.
        device_name: A hardware profile's name or path.
        table: A latency table to use whatever else exists.
        run: A run folder that may hold one.

    Raises:
        UnknownName: There is no such profile.
        TableError: There is no table, it cannot be trusted, or it was made for another space.
        MissingEntries: It lacks blocks of this network.
    """
    device = load_device(device_name)
    path = find_table(device, table=table, run=run)
    content = LatencyTable.read(path)
    content.check_fits(device)
    stale = content.stale(runtime_of(device).version, environment())
    predictor = Predictor(network, content, stale=stale)
    costs = Costs(
        predicted_ms=predictor.predict_ms,
        bound_ms=predictor.bound_ms,
        params=_as_floats(partial(additive.params, network)),
        macs=_as_floats(partial(additive.macs, network)),
        size_bytes=_as_floats(partial(additive.file_bytes, network)),
    )
    return Target(device, path, predictor, costs)
