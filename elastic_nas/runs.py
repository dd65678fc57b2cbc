"""The run folder: what lies where, and which network it belongs to (reads JSON only)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from elastic_nas.errors import RunFolderError, UnknownName
from elastic_nas.files import read_json, write_json
from elastic_nas.network import Network
from elastic_nas.plugins import suggest

SCHEMA = "elastic-run/1"


@dataclass(frozen=True)
class RunFolder:
    """A folder that `train` made.

    ``run.yaml`` (the full run file), ``network.json``, ``supernet.safetensors``, ``log.jsonl``,
    then ``latency_tables/``, ``history.jsonl``, ``ties.json``, ``fronts/`` and the pictures.
    """

    path: Path

    @property
    def run_file(self) -> Path:
        """The full run file."""
        return self.path / "run.yaml"

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

    def exported(self, device: str) -> Path:
        """What the pictures show of the children that were exported for a device."""
        return self.path / "fronts" / f"{device}.exported.json"

    @cached_property
    def _record(self) -> dict[str, Any]:
        record = read_json(self.path / "network.json")
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise RunFolderError(f"{self.path / 'network.json'} is damaged; train anew.")
        return record

    @cached_property
    def network(self) -> Network:
        """The network this run trains.

        Raises:
            RunFolderError: The folder's record is damaged, or its space has changed since.
        """
        network = Network(self._record["space"], self._record["classes"], self._record["task"])
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
        raise UnknownName(f"no folder {str(path)!r}{suggest(path.name, names)}")
    if not (path / "network.json").is_file():
        raise UnknownName(
            f"{path} holds no run (no network.json); make one with elastic-nas train --data DIR "
            f"--out {path}."
        )
    return RunFolder(path)
