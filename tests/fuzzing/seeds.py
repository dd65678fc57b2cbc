"""A valid specimen of everything: from one run of a second that was searched and exported."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import fake_latency
import small_run

from elastic_nas import delivery
from elastic_nas.budgets import Budgets
from elastic_nas.measure import Timing
from elastic_nas.network import Network
from elastic_nas.runs import RunFolder

DEVICE = small_run.DEVICE
NETWORK = Network(small_run.SPACE, 10)


@dataclass(frozen=True)
class Seeds:
    """Where the specimens lie.

    Attributes:
        run: A run that was searched, of which a child was exported.
        child: What was exported.
        folder: For what a kind makes of its own.
    """

    run: Path
    child: Path
    folder: Path


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Exported files take 0.13 ms, without measuring."""

    def measure(runs: object, protocol: object, owns_threads: bool = False) -> dict[str, Timing]:
        return {"child": Timing(0.13, 0.13, 0.13, 0.13, 0.13, 30, 0.9, [0.13])}

    with patch.object(delivery, "measure", measure):
        yield


def make_seeds(folder: Path, run: Path | None = None) -> Seeds:
    """The specimens.

    Args:
        folder: Where to make them; it stays.
        run: The folder of a run as `small_run.make_run` makes it, which is made where it is none.
    """
    with patch.dict(os.environ, ELASTIC_NAS_HOME=str(folder / "home")), stopped_clock():
        path = small_run.make_run(folder / "run").path if run is None else run
        child = folder / "child"
        delivery.export(
            RunFolder(path), child, device_name=DEVICE, budgets=Budgets.of(latency="5ms")
        )
    return Seeds(path, child, folder)


__all__ = ["DEVICE", "NETWORK", "Seeds", "fake_latency", "make_seeds", "stopped_clock"]
