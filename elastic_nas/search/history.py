"""The history: every evaluated child, one JSON line each, append-only.

Accuracy does not depend on the device, so one history serves every device. A row belongs to the
weights, the split and the calibration that made it (its ties); rows with other ties stay in the
file and are left aside. A line counts once its newline is on disk: what a crash left of a line
is dropped by the next append.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from elastic_nas.errors import RunFolderError
from elastic_nas.genotype import Genotype, format_genotype

SPLIT = "search-validation"
"""The split on which every accuracy in a history was measured."""


@dataclass(frozen=True, slots=True)
class Row:
    """One evaluated child.

    Attributes:
        genotype: Canonical.
        accuracy: Share of right answers on the search-validation split, 0 to 1.
        n: Number of images that this was measured on.
        seconds: What the evaluation took.
    """

    genotype: Genotype
    accuracy: float
    n: int
    seconds: float


class History:
    """The rows of a file that have the given ties, in the order of the file.

    Reading changes nothing on disk; a file that does not exist is an empty history.

    Attributes:
        path: E.g. ``<run>/history.jsonl``.
        ties: Hashes of what made the accuracies: ``weights``, ``split``, ``calibration``.
        foreign: Number of rows in the file with other ties.

    Raises:
        RunFolderError: The file cannot be read, or a line of it is damaged.
    """

    def __init__(self, path: Path, ties: Mapping[str, str]) -> None:
        self.path, self.ties, self.foreign = path, dict(ties), 0
        self._rows: dict[Genotype, Row] = {}
        whole, self._torn_at = _whole_lines(path)
        for number, line in enumerate(whole, 1):
            row, made_by = _parse(line, f"line {number} of {path}")
            if made_by == self.ties:
                self._rows.setdefault(row.genotype, row)
            else:
                self.foreign += 1

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __contains__(self, genotype: Genotype) -> bool:
        return genotype in self._rows

    def get(self, genotype: Genotype) -> Row | None:
        """The row of a canonical genotype, or None where it has not been evaluated."""
        return self._rows.get(genotype)

    def add(self, row: Row) -> None:
        """Append a row; when this returns, it is on disk.

        Raises:
            RunFolderError: It cannot be written; the rows before it are safe.
        """
        fields = {
            "genotype": format_genotype(row.genotype),
            "accuracy": row.accuracy,
            "n": row.n,
            "split": SPLIT,
            "ties": self.ties,
            "seconds": row.seconds,
        }
        try:
            self._append(json.dumps(fields, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise RunFolderError(
                f"cannot write {self.path}: {error.strerror or error}. The rows before are safe; "
                "free some space, then run the same command again to go on."
            ) from error
        self._rows[row.genotype] = row

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            if self._torn_at is not None:
                file.truncate(self._torn_at)
            self._torn_at = file.seek(0, os.SEEK_END)  # torn until the whole line is on disk
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._torn_at = None


def read_history(path: Path, ties: Mapping[str, str]) -> list[Row]:
    """All rows of a file with these ties, oldest first.

    Raises:
        RunFolderError: The file is missing, cannot be read, or a line of it is damaged.
    """
    if not path.exists():
        raise RunFolderError(f"there is no {path}: run elastic-nas search first.")
    return list(History(path, ties))


def _whole_lines(path: Path) -> tuple[list[bytes], int | None]:
    """The lines that end in a newline, and where what follows them begins, if anything does."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], None
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}.") from error
    *whole, rest = data.split(b"\n")
    return whole, len(data) - len(rest) if rest else None


def _parse(line: bytes, where: str) -> tuple[Row, dict[str, str]]:
    """The row that a line spells, and its ties."""
    try:
        return _row(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(
            f"{where} is damaged ({type(error).__name__}: {error}). Every line must be as "
            "elastic-nas search wrote it: delete this line, and the child is evaluated again."
        ) from error


def _row(fields: dict[str, Any]) -> tuple[Row, dict[str, str]]:
    genotype = tuple(int(gene) for gene in fields["genotype"].split(","))
    row = Row(genotype, float(fields["accuracy"]), fields["n"], float(fields["seconds"]))
    if not 0 <= row.accuracy <= 1 or not isfinite(row.seconds):
        raise ValueError(f"accuracy {row.accuracy} or seconds {row.seconds} is out of range")
    if type(row.n) is not int or row.n < 1 or fields["split"] != SPLIT:
        raise ValueError(f"n must be a positive whole number and split {SPLIT!r}")
    return row, {str(name): str(value) for name, value in fields["ties"].items()}
