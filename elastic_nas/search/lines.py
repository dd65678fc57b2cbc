"""The lines of a history, checked in bulk: a hundred thousand of them within a second or two.

A line as `History` writes it is taken apart by one pattern; any other is read as JSON, held against
the model of a line, and spelled as `History` would. What numbers may be is then checked for all
lines at once.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from elastic_nas.errors import RunFolderError
from elastic_nas.genotype import Dims, Genotype
from elastic_nas.outside import parse_json
from elastic_nas.strict import Strict, checked

SPLIT = "search-validation"
"""The split on which every accuracy in a history was measured."""
MOST_LINE = 10_000
"""Bytes of a line, of which a child of the largest space takes a few hundred."""
MOST_IMAGES, MOST_SECONDS = 100_000_000, 1e9
"""What an evaluation looks at, and takes, at most."""
WHOLE = 1e-4
"""How far the number of right answers, accuracy times n, may be from a whole number."""

_GENES = r"(?:0|[1-9][0-9]{0,3})(?:,(?:0|[1-9][0-9]{0,3})){0,999}"
_NUMBER = r"(?:0|[1-9][0-9]{0,20})(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?"
_TIE = r"\"[a-z]{1,40}\": \"[0-9A-Za-z_-]{1,200}\""
_TIES = rf"\{{(?:{_TIE}(?:, {_TIE}){{0,7}})?\}}"
_LINE = re.compile(
    rf'\{{"genotype": "({_GENES})", "accuracy": ({_NUMBER}), "n": ([1-9][0-9]{{0,8}}), '
    rf'"split": "{SPLIT}", "ties": ({_TIES}), "seconds": ({_NUMBER})\}}'.encode()
)

_Spelled = tuple[bytes, bytes, bytes, bytes, bytes]
"""Genes, accuracy, n, ties and seconds."""

_Name = Annotated[str, Field(pattern=r"^[a-z]{1,40}$")]
_Hash = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,200}$")]


class _Fields(Strict):
    """A line of ``history.jsonl``."""

    genotype: Annotated[str, Field(pattern=rf"^{_GENES}$")]
    accuracy: Annotated[float, Field(ge=0, le=1)]
    n: Annotated[int, Field(ge=1, le=MOST_IMAGES)]
    split: Literal["search-validation"]
    ties: Annotated[dict[_Name, _Hash], Field(max_length=8)]
    seconds: Annotated[float, Field(ge=0, le=MOST_SECONDS)]


class Line(NamedTuple):
    """What a line says.

    Attributes:
        genotype: Canonical.
        accuracy: Share of right answers on the search-validation split, 0 to 1.
        n: Number of images that this was measured on.
        seconds: What the evaluation took.
        ties: Hashes of what made the accuracy.
    """

    genotype: Genotype
    accuracy: float
    n: int
    seconds: float
    ties: dict[str, str]


class Damage(ValueError):
    """A line that no search wrote.

    Attributes:
        number: Of the line, from 1.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def parse_lines(lines: Sequence[bytes], dims: Dims) -> list[Line]:
    """What each line says, in order.

    Args:
        lines: Without their ends.
        dims: Those of the space that the children are of.

    Raises:
        Damage: A line is none that a search in this space writes; the first such line is named.
    """
    if not lines:
        return []
    parts = list(_parts(lines))
    genotypes = _genotypes([genes for genes, *_ in parts], dims)
    accuracy = [float(text) for _, text, *_ in parts]
    n = [int(text) for _, _, text, *_ in parts]
    seconds = [float(text) for *_, text in parts]
    _check_numbers(np.array(accuracy), np.array(n), np.array(seconds))
    ties = _ties([ties for *_, ties, _ in parts])
    genes: list[Genotype] = list(map(tuple, genotypes.tolist()))
    rows = zip(genes, accuracy, n, seconds, ties, strict=True)
    return [Line._make(row) for row in rows]


def _ties(texts: Sequence[bytes]) -> list[dict[str, str]]:
    """The ties of each line; most lines have the same."""
    known: dict[bytes, dict[str, str]] = {}
    for number, text in enumerate(texts, 1):
        if text not in known:
            try:
                known[text] = parse_json(text)
            except ValueError as reason:
                raise Damage(number, str(reason)) from reason
    return [known[text] for text in texts]


def _parts(lines: Sequence[bytes]) -> Iterator[_Spelled]:
    """Genes, accuracy, n, ties and seconds of each line, as they are spelled."""
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line) or _LINE.fullmatch(_respelled(line, number))
        if found is None:
            raise Damage(number, "its numbers are spelled as no search spells them")
        genes, accuracy, n, ties, seconds = found.groups()
        yield genes, accuracy, n, ties, seconds


def _respelled(line: bytes, number: int) -> bytes:
    """A line as `History` would have written it."""
    if len(line) > MOST_LINE:
        raise Damage(number, f"it is longer than {MOST_LINE:,} bytes")
    try:
        fields = checked(_Fields, parse_json(line), RunFolderError)
    except (ValueError, RunFolderError) as reason:
        raise Damage(number, str(reason)) from reason
    return json.dumps(fields.model_dump()).encode()


def _genotypes(texts: Sequence[bytes], dims: Dims) -> NDArray[np.int64]:
    """Genotypes (n, genes), each a canonical one of the space."""
    for number, text in enumerate(texts, 1):
        if text.count(b",") != len(dims) - 1:
            has = text.count(b",") + 1
            raise Damage(number, f"its child has {has} genes, one of this space {len(dims)}")
    genes = chain.from_iterable(text.split(b",") for text in texts)
    found = np.fromiter(map(int, genes), np.int64, len(texts) * len(dims)).reshape(-1, len(dims))
    sizes = np.array([len(dim.choices) for dim in dims])
    _refuse((found >= sizes).any(axis=1), "a gene of its child is beyond its last choice")
    active = np.ones(found.shape, dtype=bool)
    for position, dim in enumerate(dims):
        if dim.needs is not None:
            parent, least = dim.needs
            active[:, position] = active[:, parent] & (found[:, parent] >= least)
    _refuse((found * ~active).any(axis=1), "its child is not spelled in the canonical form")
    return found


def _check_numbers(
    accuracy: NDArray[np.float64], n: NDArray[np.int64], seconds: NDArray[np.float64]
) -> None:
    _refuse(~(accuracy <= 1), "its accuracy is above 1")
    _refuse(n > MOST_IMAGES, f"its n is above {MOST_IMAGES:,}")
    _refuse(~(seconds <= MOST_SECONDS), f"its seconds are more than {MOST_SECONDS:g}")
    right = accuracy * n
    _refuse(np.abs(right - np.rint(right)) > WHOLE, "its accuracy is none that n images can give")


def _refuse(wrong: Any, reason: str) -> None:
    """Name the first line of which `wrong`, (n,) of bool, is true."""
    if wrong.any():
        raise Damage(int(np.argmax(wrong)) + 1, reason)
