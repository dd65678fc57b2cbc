"""What files from outside must be: strict models, and what is wrong with a value in one line."""

from collections.abc import Callable
from reprlib import Repr
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from elastic_nas.errors import ElasticNasError

MOST_MISTAKES = 8
"""Mistakes of one file that are told."""

Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
"""A name or a path: not empty, and no longer than a path may be."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Short(Repr):
    """Short texts of any values; Python itself writes out no number of thousands of digits."""

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 64 else "a number of more than 19 digits"


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


class Strict(BaseModel):
    """Frozen; unknown keys, strings for numbers, bools for whole numbers, NaN and infinity fail.

    A model is built when it is first used: a query imports more of them than it needs.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )


Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], value: object, refused: Callable[[str], ElasticNasError]) -> Model:
    """The model that a plain value spells.

    Args:
        model: What the value must be.
        value: Such as JSON gives.
        refused: Makes the error of a text that says what is wrong, such as
            ``classes: must be greater than 1, got 0``.

    Raises:
        ElasticNasError: The value is not what the model says.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refused("; ".join(mistakes(error))) from error


def _no_hint(key: str) -> str:
    return ""


def mistakes(error: ValidationError, hint: Callable[[str], str] = _no_hint) -> list[str]:
    """What is wrong with each key, the first few: ``seed: must be a valid integer, got True``.

    Args:
        error: What the model says.
        hint: What to add behind an unknown key.
    """
    found = error.errors(include_url=False, include_context=False)
    lines = [_told(dict(mistake), hint) for mistake in found[:MOST_MISTAKES]]
    more = len(found) - len(lines)
    return [*lines, f"and {more} more"] if more else lines


def _told(mistake: dict[str, Any], hint: Callable[[str], str]) -> str:
    """One mistake: the dotted key, what is wrong, and what stands there."""
    key = ".".join(str(part)[:100] for part in mistake["loc"])
    where = f"{key}: " if key else ""
    if mistake["type"] == "extra_forbidden":
        return f"unknown key {key!r}{hint(key)}"
    if mistake["type"] == "missing":
        return f"{where}it is missing"
    message = mistake["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    if mistake["type"] == "value_error":
        return f"{where}{message}"
    return f"{where}{message}, got {shown(mistake['input'])}"


def shown(value: object) -> str:
    """A value in at most about 60 characters, however large or deep it is."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
