"""The run folder: what lies where, and which network it belongs to (reads JSON only)."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from elastic_nas.errors import ConfigError, RunFolderError, UnknownName
from elastic_nas.files import sha256_of, write_json
from elastic_nas.network import MAX_CLASSES, Network
from elastic_nas.outside import read_json
from elastic_nas.plugins import suggest
from elastic_nas.strict import Sha256, Strict, Text, checked

SCHEMA = "elastic-run/1"
WEIGHTS = "supernet.safetensors"
MOST_LABELS = 10_000_000
"""Characters of all labels together."""
MOST_BESIDE = 1000
"""Names that are looked at for one that is near."""
_STEP = re.compile(r"step-([0-9]{8,12})\.safetensors")


class NetworkRecord(Strict):
    """``network.json``: which network a run trains, and what its outputs are called."""

    format: Annotated[Literal["elastic-run/1"], Field(alias="schema")]
    space: Text
    identity: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)]
    task: Text
    labels: list[Annotated[str, Field(max_length=1000)]]

    @model_validator(mode="after")
    def _one_label_a_class(self) -> Self:
        if len(self.labels) != self.classes:
            raise ValueError(f"{self.classes} classes have {len(self.labels)} labels")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two classes have the same label")
        if sum(map(len, self.labels)) > MOST_LABELS:
            raise ValueError(f"the labels are longer than {MOST_LABELS:,} characters in all")
        return self


class Ties(Strict):
    """``ties.json``: hashes of all that the accuracies of a search depend on."""

    weights: Sha256
    split: Sha256
    calibration: Sha256


@dataclass(frozen=True)
class RunFolder:
    """A folder that `train` made.

    ``run.yaml`` (the full run file), ``network.json``, ``images.safetensors``,
    ``supernet.safetensors``, ``checkpoints/``, ``log.jsonl``, then ``latency_tables/``,
    ``history.jsonl``, ``ties.json``, ``fronts/`` and the pictures.
    """

    path: Path

    @property
    def run_file(self) -> Path:
        """The full run file."""
        return self.path / "run.yaml"

    @property
    def images(self) -> Path:
        """Which images the run was made with, and on which side each is; see `data.record`."""
        return self.path / "images.safetensors"

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
    def _record(self) -> NetworkRecord:
        path = self.path / "network.json"

        def damaged(reason: str) -> RunFolderError:
            return RunFolderError(
                f"{path} is damaged ({reason}): it must be a record of schema {SCHEMA!r} as train "
                "writes it. Restore it from a copy, or train anew."
            )

        return checked(NetworkRecord, read_json(path), damaged)

    @cached_property
    def network(self) -> Network:
        """The network this run trains.

        Raises:
            RunFolderError: The folder's record is damaged, or its space has changed since.
        """
        record, place = self._record, str(self.path / "network.json")
        network = Network(record.space, record.classes, record.task, place)
        if network.identity != record.identity:
            raise RunFolderError(
                f"space {network.space_name!r} is not what {self.path} was trained with; use the "
                "version of elastic-nas (or the space file) that trained it, or train anew."
            )
        return network

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self._record.labels)

    def read_ties(self) -> dict[str, str] | None:
        """Hashes that the latest search's rows are tied to; None where nothing was searched.

        Raises:
            RunFolderError: They are damaged, or the weights have changed since: what is known
                of children is of older weights.
        """
        if not os.path.lexists(self.ties):
            return None

        def damaged(reason: str) -> RunFolderError:
            return RunFolderError(
                f"{self.ties} is damaged ({reason}); elastic-nas search {self.path} writes it anew."
            )

        ties = checked(Ties, read_json(self.ties), damaged).model_dump()
        if os.path.lexists(self.weights) and self._weights_sha256() != ties["weights"]:
            raise RunFolderError(
                f"{self.path} was trained on since its last search, so that the accuracies known "
                "there are of older weights. Search again: elastic-nas search "
                f"{self.path} --device DEVICE"
            )
        return ties

    def _weights_sha256(self) -> str:
        if not self.weights.is_file():
            raise RunFolderError(f"{self.weights} is no file; restore it from a copy.")
        try:
            return sha256_of(self.weights)
        except OSError as error:
            raise RunFolderError(
                f"cannot read {self.weights}: {error.strerror or error}."
            ) from error

    def write_record(self, network: Network, labels: tuple[str, ...]) -> None:
        """Write ``network.json``.

        Raises:
            ConfigError: A label is too long, or no text that can be written.
            RunFolderError: The file cannot be written.
        """
        fields = {
            "schema": SCHEMA,
            "space": network.space_name,
            "identity": network.identity,
            "classes": network.classes,
            "task": network.task_name,
            "labels": list(labels),
        }
        checked(NetworkRecord, fields, _unwritable)
        write_json(self.path / "network.json", fields)


def _unwritable(reason: str) -> ConfigError:
    return ConfigError(
        f"these classes cannot be written into a run's record ({reason}); rename them."
    )


def open_run(path: Path) -> RunFolder:
    """The run folder at `path`.

    Raises:
        UnknownName: There is no such folder, or it holds no run; near names are suggested.
    """
    if not os.path.isdir(path):
        what = "is a file, not a run folder." if os.path.lexists(path) else _missing(path)
        raise UnknownName(f"the run folder {str(path)!r} {what} elastic-nas train makes one.")
    if not os.path.isfile(path / "network.json"):
        raise UnknownName(
            f"{path} holds no run (no network.json); make one: elastic-nas train --data DIR "
            "--out RUN"
        )
    return RunFolder(path)


def _missing(path: Path) -> str:
    """That there is no such folder, and a near one where there is one."""
    try:
        with os.scandir(path.parent if os.path.isdir(path.parent) else ".") as found:
            names = [entry.name for entry in islice(found, MOST_BESIDE) if entry.is_dir()]
    except OSError:
        names = []
    return f"does not exist{suggest(path.name[:255], names)}"
