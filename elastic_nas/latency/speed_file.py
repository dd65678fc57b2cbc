"""The machine's speed as last checked, kept per user beside no table: tables do not change."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from elastic_nas.errors import RunFolderError, TableError
from elastic_nas.files import user_folder, write_json
from elastic_nas.latency.speed import Speed
from elastic_nas.latency.table_parts import Count, Word
from elastic_nas.outside import read_json
from elastic_nas.strict import Sha256, Strict, checked

MISSING = object()
CLOSE = 1.000001
"""The factor is a mean of logarithms, and rounded."""
Factor = Annotated[float, Field(ge=1e-3, le=1e3)]


class _SpeedFile(Strict):
    """The file, for its writer as for its reader."""

    schema_: Annotated[Literal["elastic-speed/1"], Field(alias="schema")]
    digest: Sha256
    date: Word
    why: Word
    factor: Factor
    low: Factor
    high: Factor
    n: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low / CLOSE <= self.factor <= self.high * CLOSE:
            raise ValueError("the factor is not between its least and its largest")
        return self


@dataclass(frozen=True)
class Checked:
    """What `profile --check` found.

    Attributes:
        factor: How long children take, in multiples of what the table says.
        date: When, in UTC.
        why: Why the table does not hold; empty where it does.
    """

    factor: float
    date: str
    why: str


def speed_file(device: str, digest: str) -> Path:
    """Where the speed of this machine against that table is kept."""
    return user_folder() / "speeds" / f"{device}-{digest[:16]}.json"


def write_speed(device: str, digest: str, speed: Speed, why: str) -> None:
    """Keep what a check found: later predictions are told at that speed, or promise nothing.

    Args:
        device: The device's name.
        digest: Of what the table says of one space; see `predictor.Predictor`.
        speed: What was found.
        why: Why the table does not hold; empty where it does.

    Raises:
        RunFolderError: The file cannot be written, or could not be read again.
    """
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path = speed_file(device, digest)
    record = {"digest": digest, "date": date, "why": why, **asdict(speed)}
    record = {"schema": "elastic-speed/1", **record}
    checked(_SpeedFile, record, lambda text: RunFolderError(f"cannot write {path}: {text}."))
    write_json(path, record)


def read_speed(device: str, digest: str) -> Checked | None:
    """What the last check found, if there was one.

    Raises:
        TableError: The file is damaged.
    """
    path = speed_file(device, digest)
    values = read_json(path, TableError, missing=MISSING)
    if values is MISSING:
        return None
    again = f"remove it, or check again: elastic-nas profile {device} --check"

    def damaged(text: str) -> TableError:
        return TableError(f"{path} is damaged ({text}); {again}")

    found = checked(_SpeedFile, values, damaged)
    if found.digest != digest:
        raise damaged("it is of another table")
    return Checked(found.factor, found.date, found.why)
