"""The Pareto front of accuracy against latency, and its file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_nas.budgets import Budgets
from elastic_nas.files import write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = "elastic-front/1"


def pareto_front(
    accuracy: "Sequence[float] | NDArray[np.float64]",
    latency_ms: "Sequence[float] | NDArray[np.float64]",
) -> list[int]:
    """Positions of the children that no other beats, from fast to slow.

    Latency never falls and accuracy strictly rises along the front; of equal children the first
    is taken. O(n log n).

    Args:
        accuracy: (n,), higher is better.
        latency_ms: (n,), lower is better.
    """
    order = sorted(range(len(accuracy)), key=lambda i: (latency_ms[i], -accuracy[i]))
    front: list[int] = []
    for i in order:
        if not front or accuracy[i] > accuracy[front[-1]]:
            front.append(i)
    return front


def write_front(
    path: Path,
    *,
    device: str,
    table_sha256: str,
    ties: Mapping[str, str],
    budgets: Budgets,
    children: Iterable[Mapping[str, Any]],
) -> None:
    """Write ``<run>/fronts/<device>.json`` atomically.

    Args:
        path: The file.
        device: Name of the hardware profile.
        table_sha256: SHA-256 of the latency table that bounds and predictions come from.
        ties: Hashes of what made the accuracies, as in the history.
        budgets: What every child in the front keeps.
        children: Plain values of each child, from fast to slow.

    Raises:
        RunFolderError: The file cannot be written.
    """
    value = {
        "schema": SCHEMA,
        "device": device,
        "table_sha256": table_sha256,
        "ties": dict(ties),
        "budgets": asdict(budgets),
        "children": [dict(child) for child in children],
    }
    write_json(path, value)
