"""The history: every evaluated child, one JSON line each, append-only.

Accuracy does not depend on the device, so one history serves every device. A row belongs to the
weights, the split and the calibration that made it (its ties); rows with other ties stay in the
file and are left aside. A line counts once its newline is on disk: what a crash left of a line
is dropped by the next append.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from elastic_nas.errors import RunFolderError
from elastic_nas.genotype import Dims, Genotype, format_genotype
from elastic_nas.outside import read_bytes
from elastic_nas.search.lines import SPLIT, Damage, Line, parse_lines

MOST_BYTES = 4_000_000_000
"""Of a history: ten million rows."""


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
        dims: Those of the space that the children are of.
        foreign: Number of rows in the file with other ties.

    Raises:
        RunFolderError: The file cannot be read, or a line of it is damaged.
    """

    def __init__(self, path: Path, ties: Mapping[str, str], dims: Dims) -> None:
        self.path, self.ties, self.dims, self.foreign = path, dict(ties), dims, 0
        self._rows: dict[Genotype, Row] = {}
        whole, self._torn_at = _whole_lines(path)
        for line in self._parsed(whole):
            if line.ties == self.ties:
                row = Row(line.genotype, line.accuracy, line.n, line.seconds)
                self._rows.setdefault(row.genotype, row)
            else:
                self.foreign += 1

    def _parsed(self, lines: Sequence[bytes]) -> list[Line]:
        try:
            return parse_lines(lines, self.dims)
        except Damage as damage:
            raise RunFolderError(
                f"line {damage.number} of {self.path} is damaged ({damage}). Every line must be "
                "as elastic-nas search wrote it: delete this line, and the child is evaluated "
                "again."
            ) from damage

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
            RunFolderError: It cannot be written, or could not be read again; the rows before it
                are safe.
        """
        fields = {
            "genotype": format_genotype(row.genotype),
            "accuracy": row.accuracy,
            "n": row.n,
            "split": SPLIT,
            "ties": self.ties,
            "seconds": row.seconds,
        }
        line = json.dumps(fields, allow_nan=False).encode()
        try:
            parse_lines([line], self.dims)
        except Damage as damage:
            raise RunFolderError(
                f"an evaluation gave what no history may hold ({damage}); nothing was written."
            ) from damage
        try:
            self._append(line + b"\n")
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


def read_history(path: Path, ties: Mapping[str, str], dims: Dims) -> list[Row]:
    """All rows of a file with these ties, oldest first.

    Raises:
        RunFolderError: The file is missing, cannot be read, or a line of it is damaged.
    """
    if not os.path.lexists(path):
        raise RunFolderError(f"there is no {path}: run elastic-nas search first.")
    return list(History(path, ties, dims))


def _whole_lines(path: Path) -> tuple[list[bytes], int | None]:
    """The lines that end in a newline, and where what follows them begins, if anything does."""
    if not os.path.lexists(path):
        return [], None
    data = read_bytes(path, MOST_BYTES)
    *whole, rest = data.split(b"\n")
    return whole, len(data) - len(rest) if rest else None
