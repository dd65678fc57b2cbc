"""Figures of other projects, in their words: what a file holds, and CSV files in general.

A reader gives figures by the names of that project's parts, and says of which parts a block of ours
is made. A block gets a figure only if each of its parts has one; nothing is guessed.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from statistics import fmean

from elastic_nas.errors import TableError
from elastic_nas.kit_check import MIN_MS
from elastic_nas.latency.rows import MAX_DIMENSION, MAX_MS
from elastic_nas.outside import read_text
from elastic_nas.specs import BlockSpec, spec_from_key, spec_kinds

MAX_BYTES = 16 * 2**20
MAX_COLUMNS, MAX_ROWS = 100, 100_000
"""Of a CSV file: a block has a dozen fields, a space hundreds or thousands of blocks."""
_DIGITS = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?")
"""As programs print numbers: no infinity, no underscores, no digits of other scripts."""

Part = Hashable
"""What a figure is of, in the words of the project that measured it."""

Row = tuple[str, dict[str, str]]
"""A row of a CSV file: its place for messages, and its cells by column, blank ones left out."""


@dataclass(frozen=True)
class Figure:
    """Milliseconds, and the number of samples behind them where that is told."""

    ms: float
    n: int | None = None


@dataclass(frozen=True)
class Foreign:
    """What a file of another project holds.

    Attributes:
        format: The file's format, for people.
        figures: What was measured.
        parts_of: What a block of ours is made of; nothing where the project has no such block.
        unread: Number of rows that no block of ours is made of, by what they say they are.
    """

    format: str
    figures: Mapping[Part, Figure]
    parts_of: Callable[[BlockSpec], tuple[Part, ...]]
    unread: Counter[str] = field(default_factory=Counter)


def csv_rows(path: Path) -> list[Row]:
    """The rows of a CSV file with a header.

    Raises:
        TableError: It cannot be read, is too large, or a row is longer than the header.
    """
    text = read_text(path, MAX_BYTES, TableError)
    if "\0" in text:
        raise TableError(f"{path} is no CSV file: it holds characters that no text has.")
    reader = csv.DictReader(StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        _check_header(path, list(reader.fieldnames or ()))
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row:
                raise TableError(
                    f"{place}: more cells than the header has columns; a cell with commas needs "
                    "quotes."
                )
            if len(rows) == MAX_ROWS:
                raise TableError(f"{path} has more than {MAX_ROWS:,} rows.")
            rows.append((place, {key: cell for key, cell in row.items() if cell}))
    except csv.Error as error:
        raise TableError(f"{path} is no CSV file: {error}.") from error
    return rows


def _check_header(path: Path, columns: list[str]) -> None:
    """Refuse columns that would take each other's place, and more of them than a table has."""
    if len(columns) > MAX_COLUMNS:
        raise TableError(f"{path} has {len(columns):,} columns; a table has {MAX_COLUMNS} at most.")
    for column in columns:
        if column and columns.count(column) > 1:
            raise TableError(f"{path}: two columns are called {column[:60]!r}.")


def cell_ms(row: Mapping[str, str], column: str, place: str) -> float:
    """The latency in a cell.

    Raises:
        TableError: It is none that can be.
    """
    text = row.get(column, "").strip()
    if not _NUMBER.fullmatch(text):
        shown = f", not {text[:40]!r}" if text else ""
        raise TableError(f"{place}: {column} must be milliseconds, such as 0.25{shown}.")
    return checked_ms(float(text), place)


def cell_count(row: Mapping[str, str], column: str, place: str) -> int:
    """The whole number of 1 or more in a cell.

    Raises:
        TableError: It is no such number.
    """
    text = row.get(column, "").strip()
    digits = text.removesuffix(".0")  # as pandas writes a column that has blank cells
    if not _DIGITS.fullmatch(digits) or not 1 <= int(digits) < MAX_DIMENSION:
        raise TableError(f"{place}: {column} must be a whole number of 1 or more, not {text!r}.")
    return int(digits)


def checked_ms(ms: object, place: str) -> float:
    """A number that can be a latency.

    Raises:
        TableError: It is none.
    """
    if type(ms) not in (int, float) or not MIN_MS <= ms < MAX_MS:  # type: ignore[operator]
        raise TableError(f"{place}: {str(ms)[:40]} is no latency in milliseconds.")
    return float(ms)  # type: ignore[arg-type]


def means(pairs: Iterable[tuple[Part, Figure]]) -> dict[Part, Figure]:
    """One figure for each part: the mean where a part was measured more than once."""
    found: dict[Part, list[Figure]] = {}
    for part, figure in pairs:
        found.setdefault(part, []).append(figure)
    return {
        part: figures[0] if len(figures) == 1 else _mean(figures) for part, figures in found.items()
    }


def _mean(figures: list[Figure]) -> Figure:
    known = [figure.n for figure in figures if figure.n is not None]
    n = min(sum(known), MAX_DIMENSION - 1) if len(known) == len(figures) else None
    return Figure(fmean(f.ms for f in figures), n)


NOT_KEYS = ("ms", "n", "file")
"""Columns of a CSV of blocks that are no field of a block; `file` is for whoever fills it in."""


def read_blocks(rows: Iterable[Row]) -> Foreign:
    """Blocks of ours: a column for each field of their kinds, ``kind``, ``ms``, perhaps ``n``.

    Raises:
        TableError: A row is no figure, or has not exactly the fields of its kind.
    """
    figures, unread = [], Counter[str]()
    for place, row in rows:
        n = cell_count(row, "n", place) if "n" in row else None
        figure = Figure(cell_ms(row, "ms", place), n)
        key = {name: _value(cell) for name, cell in row.items() if name not in NOT_KEYS}
        if key.get("kind") not in spec_kinds():
            unread[str(key.get("kind", "no kind"))[:60]] += 1
            continue
        try:
            figures.append((spec_from_key(key), figure))
        except TableError as error:
            raise TableError(f"{place}: {error}") from error
    return Foreign("CSV of blocks", means(figures), lambda spec: (spec,), unread)


def _value(cell: str) -> int | bool | str:
    """A field of a block: a whole number, true or false, or a word."""
    if _DIGITS.fullmatch(cell):
        return int(cell)
    return {"true": True, "false": False}.get(cell.lower(), cell)
