"""The machine's speed as last checked, kept per user beside no table: tables do not change."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from elastic_nas.errors import RunFolderError, TableError
from elastic_nas.files import user_folder, write_json
from elastic_nas.latency.speed import Speed
from elastic_nas.outside import read_json

SCHEMA = "elastic-speed/1"
LIMITS = (1e-3, 1e3)
MAX_WHY = 500


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
        RunFolderError: The file cannot be written.
    """
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"schema": SCHEMA, "digest": digest, "date": date, "why": why, **asdict(speed)}
    write_json(speed_file(device, digest), record)


def read_speed(device: str, digest: str) -> Checked | None:
    """What the last check found, if there was one.

    Raises:
        TableError: The file is damaged.
    """
    path = speed_file(device, digest)
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        factor, date, why = (values[key] for key in ("factor", "date", "why"))
        sound = values["schema"] == SCHEMA and values["digest"] == digest
        if not sound or not LIMITS[0] <= factor <= LIMITS[1]:
            raise ValueError("a value that cannot be")
        if type(date) is not str or type(why) is not str or len(why) > MAX_WHY:
            raise ValueError("a text that cannot be")
    except (TypeError, KeyError, ValueError, RunFolderError) as error:
        raise TableError(
            f"{path} is damaged ({error}); remove it, or check again: elastic-nas profile {device} "
            "--check"
        ) from error
    return Checked(float(factor), date, why)
