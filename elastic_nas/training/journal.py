"""The log of a training: one JSON object a line."""

import json
import time
from pathlib import Path
from typing import Any

from elastic_nas.errors import RunFolderError

FILE_NAME = "log.jsonl"


class Journal:
    """Appends rows to ``log.jsonl``.

    Args:
        folder: The run folder.
        tensorboard: Write the numbers for TensorBoard, too.
    """

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        self._path = folder / FILE_NAME

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, with the time.

        Args:
            row: Plain values; ``step`` is one of them.

        Raises:
            RunFolderError: The file cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "time": time.time()}) + "\n")
        except OSError as error:
            raise RunFolderError(
                f"cannot write {self._path}: {error.strerror or error}. The last checkpoint is "
                "kept; free some space or remove what is in the way, then go on with --resume."
            ) from error

    def close(self) -> None:
        """Flush what is written elsewhere."""
