"""The run folder: what lies where, and which network it belongs to (reads JSON only)."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from elastic_nas.errors import RunFolderError, UnknownName
from elastic_nas.files import sha256_of, write_json
from elastic_nas.network import Network
from elastic_nas.outside import read_json
from elastic_nas.plugins import suggest

SCHEMA = "elastic-run/1"
WEIGHTS = "supernet.safetensors"
_STEP = re.compile(r"step-(\d{8,})\.safetensors")
_RECORD: dict[str, type] = {
    "space": str, "identity": str, "classes": int, "task": str, "labels": list
}  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """A folder that `train` made.

    ``run.yaml`` (the full run file), ``network.json``, ``supernet.safetensors``, ``checkpoints/``,
    ``log.jsonl``, then ``latency_tables/``, ``history.jsonl``, ``ties.json``, ``fronts/`` and the
    pictures.
    """

    path: Path

    @property
    def run_file(self) -> Path:
        """The full run file."""
        return self.path / "run.yaml"

    @property
    def weights(self) -> Path:
        """The latest checkpoint: weights, optimiser state, and how far the training is."""
        return self.path / WEIGHTS

    def checkpoint(self, step: int) -> Path:
        """The checkpoint that is kept of a step."""
        return self.path / "checkpoints" / f"step-{step:08}.safetensors"

    @property
    def kept(self) -> list[int]:
        """The steps of which a checkpoint is kept, the oldest first."""
        folder = self.checkpoint(0).parent
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(found[1]) for found in map(_STEP.fullmatch, names) if found)

    @property
    def best(self) -> Path:
        """The checkpoint that did best in its validation."""
        return self.checkpoint(0).with_name("best.safetensors")

    @property
    def checkpoints(self) -> list[Path]:
        """All there are, the newest first: the latest, those kept, the best."""
        kept = [self.checkpoint(step) for step in reversed(self.kept)]
        return [path for path in (self.weights, *kept, self.best) if path.is_file()]

    @property
    def history(self) -> Path:
        """Every evaluated child, append-only."""
        return self.path / "history.jsonl"

    @property
    def ties(self) -> Path:
        """Hashes that the latest search's history rows are tied to."""
        return self.path / "ties.json"

    def table(self, device: str) -> Path:
        """Where this run keeps a device's latency table."""
        return self.path / "latency_tables" / f"{device}.json"

    def front(self, device: str) -> Path:
        """A device's Pareto front; pictures lie beside it with other endings."""
        return self.path / "fronts" / f"{device}.json"

    def measured(self, device: str) -> Path:
        """What finalists of searches were measured at on a device."""
        return self.path / "fronts" / f"{device}.measured.json"

    def exported(self, device: str) -> Path:
        """What the pictures show of the children that were exported for a device."""
        return self.path / "fronts" / f"{device}.exported.json"

    @cached_property
    def _record(self) -> dict[str, Any]:
        path = self.path / "network.json"
        record = read_json(path)
        sound = (
            isinstance(record, dict)
            and record.get("schema") == SCHEMA
            and all(type(record.get(key)) is kind for key, kind in _RECORD.items())
            and all(type(label) is str for label in record["labels"])
            and len(record["labels"]) == record["classes"]
        )
        if not sound:
            raise RunFolderError(
                f"{path} is damaged: it must be a record of schema {SCHEMA!r} as train writes it. "
                "Restore it from a copy, or train anew."
            )
        return dict(record)

    @cached_property
    def network(self) -> Network:
        """The network this run trains.

        Raises:
            RunFolderError: The folder's record is damaged, or its space has changed since.
        """
        record, place = self._record, str(self.path / "network.json")
        network = Network(record["space"], record["classes"], record["task"], place)
        if network.identity != self._record["identity"]:
            raise RunFolderError(
                f"space {network.space_name!r} is not what {self.path} was trained with; use the "
                "version of elastic-nas (or the space file) that trained it, or train anew."
            )
        return network

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self._record["labels"])

    def read_ties(self) -> dict[str, str] | None:
        """Hashes that the latest search's rows are tied to; None where nothing was searched.

        Raises:
            RunFolderError: They are damaged, or the weights have changed since: what is known
                of children is of older weights.
        """
        if not self.ties.exists():
            return None
        ties = read_json(self.ties)
        if not isinstance(ties, dict) or not all(type(value) is str for value in ties.values()):
            raise RunFolderError(
                f"{self.ties} is damaged; elastic-nas search {self.path} writes it anew."
            )
        if self.weights.exists() and sha256_of(self.weights) != ties.get("weights"):
            raise RunFolderError(
                f"{self.path} was trained on since its last search, so that the accuracies known "
                "there are of older weights. Search again: elastic-nas search "
                f"{self.path} --device DEVICE"
            )
        return ties

    def write_record(self, network: Network, labels: tuple[str, ...]) -> None:
        """Write ``network.json``."""
        record = {
            "schema": SCHEMA,
            "space": network.space_name,
            "identity": network.identity,
            "classes": network.classes,
            "task": network.task_name,
            "labels": labels,
        }
        write_json(self.path / "network.json", record)


def open_run(path: Path) -> RunFolder:
    """The run folder at `path`.

    Raises:
        UnknownName: There is no such folder, or it holds no run; near names are suggested.
    """
    if not path.is_dir():
        beside = path.parent if path.parent.is_dir() else Path()
        names = [entry.name for entry in beside.iterdir() if entry.is_dir()]
        near = suggest(path.name, names)
        what = "is a file, not a run folder." if path.exists() else f"does not exist{near}"
        raise UnknownName(f"the run folder {str(path)!r} {what} elastic-nas train makes one.")
    if not (path / "network.json").is_file():
        raise UnknownName(
            f"{path} holds no run (no network.json); make one: elastic-nas train --data DIR "
            "--out RUN"
        )
    return RunFolder(path)
