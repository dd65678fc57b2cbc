"""The machine's speed as last checked, kept per user beside no table: tables do not change."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from elastic_nas.errors import RunFolderError, TableError
from elastic_nas.files import read_json, user_folder, write_json
from elastic_nas.latency.speed import Speed

SCHEMA = "elastic-speed/1"
LIMITS = (0.5, 2.0)


@dataclass(frozen=True)
class Checked:
    """What `profile --check` found.

    Attributes:
        factor: How long children take, in multiples of what the table says.
        date: When, in UTC.
    """

    factor: float
    date: str


def speed_file(device: str, table_sha256: str) -> Path:
    """Where the speed of this machine against that table is kept."""
    return user_folder() / "speeds" / f"{device}-{table_sha256[:16]}.json"


def write_speed(device: str, table_sha256: str, speed: Speed) -> None:
    """Keep what a check found; later predictions from this table are told at that speed.

    Raises:
        RunFolderError: The file cannot be written.
    """
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"schema": SCHEMA, "table_sha256": table_sha256, "date": date, **asdict(speed)}
    write_json(speed_file(device, table_sha256), record)


def forget_speed(device: str, table_sha256: str) -> None:
    """Drop what an earlier check found."""
    speed_file(device, table_sha256).unlink(missing_ok=True)


def read_speed(device: str, table_sha256: str) -> Checked | None:
    """What the last check found, if there was one.

    Raises:
        TableError: The file is damaged.
    """
    path = speed_file(device, table_sha256)
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        factor, date = values["factor"], values["date"]
        sound = values["schema"] == SCHEMA and values["table_sha256"] == table_sha256
        if not sound or type(date) is not str or not LIMITS[0] <= factor <= LIMITS[1]:
            raise ValueError("a value that cannot be")
    except (TypeError, KeyError, ValueError, RunFolderError) as error:
        raise TableError(
            f"{path} is damaged ({error}); remove it, or check again: elastic-nas profile {device} "
            "--check"
        ) from error
    return Checked(float(factor), date)
