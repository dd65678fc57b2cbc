"""What finalists of a search really took: kept beside the front, read by every later query.

A search picks children *because* they seem fast and good, so that the bound, which holds for random
children, holds less often for them. Finalists are therefore measured; one that broke its bound
joins the calibration, and none is promised less than it was measured at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_nas.errors import RunFolderError
from elastic_nas.files import write_json
from elastic_nas.genotype import Genotype
from elastic_nas.latency.rows import MAX_CHOICES, MAX_MS
from elastic_nas.outside import read_json

SCHEMA = "elastic-measured/1"
MAX_CHILDREN = 10_000


@dataclass(frozen=True)
class Measured:
    """Whole children that were measured against one table.

    Attributes:
        digest: Of what the table says of the network; see `predictor.Predictor`.
        ms: Milliseconds at the table's speed, by genotype.
    """

    digest: str
    ms: Mapping[Genotype, float]

    def write(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            RunFolderError: It cannot be written.
        """
        children = [{"genotype": list(g), "ms": float(f"{ms:.6g}")} for g, ms in self.ms.items()]
        write_json(path, {"schema": SCHEMA, "digest": self.digest, "children": children})


def read_measured(path: Path, digest: str, genes: int) -> Measured:
    """What was measured against this table; nothing where there is no file, or of another table.

    Args:
        path: The file.
        digest: Of the table in use.
        genes: Length of a genotype.

    Raises:
        RunFolderError: The file is damaged.
    """
    if not path.is_file():
        return Measured(digest, {})
    values = read_json(path)
    try:
        if values["schema"] != SCHEMA or len(values["children"]) > MAX_CHILDREN:
            raise ValueError("another schema, or too long")
        ms = dict(_child(row, genes) for row in values["children"])
        same = values["digest"] == digest
    except (TypeError, KeyError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}); remove it, and search again to measure its children."
        ) from error
    return Measured(digest, ms if same else {})


def _child(row: Any, genes: int) -> tuple[Genotype, float]:
    genotype, ms = row["genotype"], row["ms"]
    if len(genotype) != genes or any(
        type(gene) is not int or not 0 <= gene < MAX_CHOICES for gene in genotype
    ):
        raise ValueError("a genotype that cannot be")
    if type(ms) not in (int, float) or not 0 < ms < MAX_MS:
        raise ValueError("a latency that cannot be")
    return tuple(genotype), float(ms)
