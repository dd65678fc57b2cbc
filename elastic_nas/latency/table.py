"""Latency tables: what blocks and whole children take on one device, in one JSON file.

Blocks are shared by all spaces; a fitted model belongs to one. A table without provenance, or
with a number that cannot be, is refused as a whole.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from elastic_nas.errors import MissingEntries, TableError
from elastic_nas.files import write_atomic
from elastic_nas.latency.devices import Device
from elastic_nas.latency.model import FittedModel
from elastic_nas.latency.rows import BlockRow, ChildRow, block_rows, child_rows
from elastic_nas.latency.table_parts import MAX_BYTES, SCHEMA, TableFile
from elastic_nas.machine import signature
from elastic_nas.outside import parse_json, read_json
from elastic_nas.specs import BlockSpec
from elastic_nas.specs.classifier import ClassifierSpec
from elastic_nas.strict import checked


@dataclass
class LatencyTable:
    """Everything measured on one device with one runtime, precision and number of threads.

    Attributes:
        device: `measure.environment` and the device's name.
        runtime: Name, version, provider, threads, graph optimisation.
        precision: ``fp32``.
        protocol: How figures were taken.
        provenance: Date, versions, commit, null model's ms, anchor children, load.
        blocks: Each block as deployed, alone.
        children: Whole children.
        models: Fitted models by `Network.identity`.
    """

    device: dict[str, Any]
    runtime: dict[str, Any]
    precision: str
    protocol: dict[str, Any]
    provenance: dict[str, Any]
    blocks: dict[BlockSpec, BlockRow] = field(default_factory=dict)
    children: list[ChildRow] = field(default_factory=list)
    models: dict[str, FittedModel] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> "LatencyTable":
        """The table in a file.

        Raises:
            TableError: The file is missing, too large, or not a sound table.
        """
        value = read_json(path, TableError, most=MAX_BYTES)
        try:
            return _parsed(value)
        except TableError as error:
            raise TableError(f"{path} is no usable latency table: {str(error)[:1000]}") from error

    def write(self, path: Path) -> None:
        """Write the table atomically, one row a line, after reading back what shall be written.

        Raises:
            TableError: The table is none that could be read; the file is as it was.
            RunFolderError: The file cannot be written.
        """
        parts = {
            "schema": SCHEMA,
            **{key: getattr(self, key) for key in ("device", "runtime", "precision")},
            "protocol": self.protocol,
            "provenance": self.provenance,
            "blocks": [{"key": spec.key, **asdict(row)} for spec, row in self.blocks.items()],
            "children": [asdict(row) for row in self.children],
            "models": {identity: model.to_json() for identity, model in self.models.items()},
        }
        try:
            text = "{" + ",\n".join(_lines(parts)) + "}\n"
            _parsed(parse_json(text))
        except (TableError, ValueError) as error:
            raise TableError(
                f"{path} is not written, as it could not be read again: {str(error)[:1000]} What "
                "was there before is untouched."
            ) from error
        write_atomic(path, text)

    def check_fits(self, device: Device) -> None:
        """Refuse a table that was measured for another device.

        Raises:
            TableError: Name, precision or number of threads differ.
        """
        own = (self.device["name"], self.precision, self.runtime["threads"])
        asked = (device.name, device.precision, device.threads)
        for what, mine, wanted in zip(
            ("device", "precision", "number of threads"), own, asked, strict=True
        ):
            if mine != wanted:
                raise TableError(
                    f"this table was measured for {what} {mine}, but {device.name} needs {wanted}."
                    f"\nMeasure one: elastic-nas profile {device.name} --space SPACE"
                )

    def stale(self, version: str, environment: Mapping[str, Any]) -> str:
        """Why the figures may not hold on this machine, or nothing.

        Args:
            version: Of the runtime that is installed here.
            environment: Of this machine.
        """
        if self.runtime["version"] != version:
            if self.runtime["version"] == "imported":
                return "imported; what its figures were measured with is unknown"
            return f"measured with {self.runtime['name']} {self.runtime['version']}, not {version}"
        mine = signature({"flags": [], **self.device})
        here = signature(dict(environment))
        differing = [key for key in mine if mine[key] != here[key]]
        if differing:
            key = differing[0]
            return f"measured on another machine ({key} {mine[key]}, here {here[key]})"
        return ""

    def entry_ms(self, spec: BlockSpec) -> tuple[float, bool]:
        """What the block takes alone in ms, and whether that is interpolated.

        Only a classifier is interpolated, linearly in its outputs between measured ones of the
        same inputs.

        Raises:
            MissingEntries: The block was not measured.
        """
        row = self.blocks.get(spec)
        if row is not None:
            return row.ms, False
        if isinstance(spec, ClassifierSpec):
            ms = self._interpolated(spec)
            if ms is not None:
                return ms, True
        raise self.missing_error([spec])

    def missing(self, specs: Iterable[BlockSpec]) -> list[BlockSpec]:
        """Those of the distinct blocks that `entry_ms` refuses, in order."""
        return [
            spec
            for spec in dict.fromkeys(specs)
            if spec not in self.blocks
            and not (isinstance(spec, ClassifierSpec) and self._interpolated(spec) is not None)
        ]

    def missing_error(self, specs: list[BlockSpec], space: str = "SPACE") -> MissingEntries:
        """The error that names up to three missing blocks and the command that adds them."""
        shown = "; ".join(
            ", ".join(f"{key} {value}" for key, value in spec.key.items()) for spec in specs[:3]
        )
        more = "; ..." if len(specs) > 3 else ""
        name = self.device["name"]
        return MissingEntries(
            f"the latency table of {name} lacks {len(specs)} block(s): {shown}{more}.\n"
            f"Measure them: elastic-nas profile {name} --space {space}"
        )

    @cached_property
    def _classifiers(self) -> dict[int, list[tuple[int, float]]]:
        """Measured (outputs, ms) in ascending order, by inputs."""
        found: dict[int, list[tuple[int, float]]] = {}
        for spec, row in self.blocks.items():
            if isinstance(spec, ClassifierSpec):
                found.setdefault(spec.in_features, []).append((spec.out_features, row.ms))
        return {inputs: sorted(rows) for inputs, rows in found.items()}

    def _interpolated(self, spec: ClassifierSpec) -> float | None:
        rows = self._classifiers.get(spec.in_features, [])
        above = bisect_left(rows, (spec.out_features, 0.0))
        if above in (0, len(rows)):
            return None
        (x0, y0), (x1, y1) = rows[above - 1], rows[above]
        return y0 + (y1 - y0) * (spec.out_features - x0) / (x1 - x0)

    def add_block(self, spec: BlockSpec, row: BlockRow) -> None:
        """Store a block's figures in place of older ones."""
        self.blocks[spec] = row
        self.__dict__.pop("_classifiers", None)


def _lines(parts: Mapping[str, Any]) -> Iterable[str]:
    for key, value in parts.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(json.dumps(row, allow_nan=False) for row in value)
            yield f"{json.dumps(key)}: [\n{rows}\n]"
        else:
            yield f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}"


def _parsed(value: Any) -> LatencyTable:
    """The table that a JSON value is.

    Raises:
        TableError: It is none.
    """
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise TableError(f"its schema is not {SCHEMA!r}; measure it again: elastic-nas profile.")
    checked(TableFile, value, lambda text: TableError(f"{text}."))
    return LatencyTable(
        **{key: value[key] for key in ("device", "runtime", "precision")},
        protocol=value["protocol"],
        provenance=value["provenance"],
        blocks=block_rows(value["blocks"]),
        children=child_rows(value["children"]),
        models={key: FittedModel.from_json(model) for key, model in value["models"].items()},
    )
