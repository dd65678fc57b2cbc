"""What finalists of a search really took: kept beside the front, read by every later query.

A search picks children *because* they seem fast and good, so that the bound, which holds for random
children, holds less often for them. Finalists are therefore measured; one that broke its bound
joins the calibration, and none is promised less than it was measured at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from elastic_nas.errors import GenotypeError, RunFolderError
from elastic_nas.files import write_json
from elastic_nas.genotype import Dims, Genotype, check
from elastic_nas.latency.table_parts import Genes, Ms
from elastic_nas.outside import read_json
from elastic_nas.strict import Sha256, Strict, checked

MISSING = object()
MAX_CHILDREN = 10_000


class _Child(Strict):
    genotype: Genes
    ms: Ms


class _MeasuredFile(Strict):
    """The file, for its writer as for its reader."""

    schema_: Annotated[Literal["elastic-measured/1"], Field(alias="schema")]
    digest: Sha256
    children: Annotated[list[_Child], Field(max_length=MAX_CHILDREN)]


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
            RunFolderError: It cannot be written, or holds what could not be read again.
        """
        children = [{"genotype": list(g), "ms": float(f"{ms:.6g}")} for g, ms in self.ms.items()]
        values = {"schema": "elastic-measured/1", "digest": self.digest, "children": children}
        checked(_MeasuredFile, values, lambda text: RunFolderError(f"cannot write {path}: {text}."))
        write_json(path, values)


def read_measured(path: Path, digest: str, dims: Dims) -> Measured:
    """What was measured against this table; nothing where there is no file, or of another table.

    Args:
        path: The file.
        digest: Of the table in use.
        dims: Of the network.

    Raises:
        RunFolderError: The file is damaged.
    """
    values = read_json(path, missing=MISSING)
    if values is MISSING:
        return Measured(digest, {})
    found = checked(_MeasuredFile, values, lambda text: _damaged(path, text))
    ms = {tuple(child.genotype): child.ms for child in found.children}
    if len(ms) < len(found.children):
        raise _damaged(path, "a child stands there twice")
    for genotype in ms:
        try:
            check(dims, genotype)
        except GenotypeError as error:
            raise _damaged(path, str(error).rstrip(".")) from error
    return Measured(digest, ms if found.digest == digest else {})


def _damaged(path: Path, text: str) -> RunFolderError:
    return RunFolderError(
        f"{path} is damaged ({text}); remove it, and search again to measure its children."
    )
