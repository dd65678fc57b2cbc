"""Rows as aligned columns, within the width of a terminal and in printable characters."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

import typer

WIDTH = 80
"""Of what goes to a file or to another program, too: that looks the same for everybody."""
NARROW = 24
"""A column that is to be folded into less than this goes below its row instead."""
GAP = "  "
_GENOTYPE = re.compile(r" *[\d,]+")


def show(text: str) -> None:
    """Print text for a person on standard output; it moves no cursor, whatever it quotes."""
    typer.echo("\n".join(map(shown, text.split("\n"))))


def columns(
    rows: Sequence[tuple[str, ...]],
    header: tuple[str, ...] | None = None,
    *,
    width: int | None = None,
) -> str:
    """Rows as aligned columns; where they are too wide the widest column is folded.

    Words stay whole, so that a path or a command can be copied: one that alone is wider than the
    terminal gets a line of its own.

    Args:
        rows: Cells; characters that a terminal would act on are escaped.
        header: Names of the columns.
        width: In characters; by default the terminal's.
    """
    everything = [tuple(map(shown, row)) for row in ([header, *rows] if header else rows)]
    widths = [max(len(row[i]) for row in everything) for i in range(len(everything[0]))]
    room = (width or terminal_width()) - len(GAP) * (len(widths) - 1) - sum(widths)
    if room >= 0:
        return "\n".join(_line(row, widths) for row in everything)
    widest = max(range(len(widths)), key=widths.__getitem__)
    widths[widest] += room
    folded = _folded if widths[widest] >= NARROW else _below
    return "\n".join(line for row in everything for line in folded(row, widths, widest))


def paragraph(text: str, indent: str = "") -> str:
    """Text in lines of the terminal's width, its words whole."""
    return "\n".join(_wrapped(shown(text), terminal_width(), indent))


def shown(text: str) -> str:
    """A text of one line that moves no cursor: all but printable characters are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def terminal_width() -> int:
    """Characters in a line of the terminal that standard output is; `WIDTH` where it is none."""
    if sys.stdout is None or not sys.stdout.isatty():
        return WIDTH
    return max(shutil.get_terminal_size((WIDTH, 0)).columns, WIDTH // 2)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(map(str.ljust, row, widths)).rstrip()


def _folded(row: tuple[str, ...], widths: Sequence[int], widest: int) -> list[str]:
    """The row, as many lines as its widest cell takes within its column."""
    parts = _wrapped(row[widest], widths[widest])
    if any(len(part) > widths[widest] for part in parts):
        return _below(row, widths, widest)
    blank = [""] * len(row)
    lines = [[*blank[:widest], part, *blank[widest + 1 :]] for part in parts]
    lines[0] = [*row[:widest], parts[0], *row[widest + 1 :]]
    return [_line(line, widths) for line in lines]


def _below(row: tuple[str, ...], widths: Sequence[int], widest: int) -> list[str]:
    """The row without its widest cell, and that one below."""
    rest, narrow = list(row), list(widths)
    del rest[widest], narrow[widest]
    width = sum(widths) + len(GAP) * (len(widths) - 1)
    return [_line(rest, narrow), *_wrapped(row[widest], width, GAP)]


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    lines = textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [part for line in lines for part in _shorter(line, width, indent)] or [""]


def _shorter(line: str, width: int, indent: str) -> list[str]:
    """A genotype that is wider than the terminal, cut at its commas; others as they are."""
    if len(line) <= width or not _GENOTYPE.fullmatch(line):
        return [line]
    spaced = line.strip().replace(",", ", ")
    parts = textwrap.wrap(spaced, width, initial_indent=indent, subsequent_indent=indent)
    return [part.replace(", ", ",") for part in parts]
