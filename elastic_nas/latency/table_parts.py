"""What a latency table's file must hold: one model for reader and writer, with all its limits.

Rows come in thousands, so that they are checked column by column. Other keys than these may stand
in the parts that describe device, runtime, protocol and provenance; nothing reads them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from elastic_nas.errors import TableError
from elastic_nas.network import MAX_CLASSES
from elastic_nas.outside import MOST_JSON
from elastic_nas.strict import Strict, shown

SCHEMA = "elastic-latency/2"
MAX_BYTES = MOST_JSON
MAX_MS = 1e6
MAX_CHOICES = 1000
MAX_COUNT = 1_000_000
MAX_PEAK = 10**12
"""Bytes of a block's activations, and more than any number that a table tells by the way."""
MAX_ROUNDS = 10_000


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"must be printable, got {shown(text)}")
    return text


Word = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
"""A name or a rule, as it is shown to people."""
Ms = Annotated[float, Field(gt=0, lt=MAX_MS)]
Genes = Annotated[list[Annotated[int, Field(ge=0, lt=MAX_CHOICES)]], Field(max_length=1000)]
Classes = Annotated[int, Field(ge=2, le=MAX_CLASSES)]
Count = Annotated[int, Field(ge=0, lt=MAX_COUNT)]
Seconds = Annotated[float, Field(ge=0, lt=MAX_PEAK)]
Identity = Annotated[str, Field(max_length=100), AfterValidator(_printable)]


class _Open(Strict):
    """A part in which later versions may write more."""

    model_config = ConfigDict(extra="allow")


class DevicePart(_Open):
    """The machine; see `machine.environment`."""

    name: Word
    arch: Word
    cpu: Word
    cores: Count
    os: Word
    flags: list[Word] = Field(default_factory=list)


class RuntimePart(_Open):
    """What ran the models."""

    name: Word
    version: Word
    provider: Word
    threads: Count


class ProtocolPart(_Open):
    """How figures were taken."""

    warmup: Count
    rounds: Count
    filter: Word
    statistic: Word
    seed: int


class Anchor(Strict):
    """A child that tells the machine's speed, and what it took."""

    classes: Classes
    genotype: Genes
    ms: Ms


class VisitPart(_Open):
    """One profiling run."""

    date: Word
    device_s: Seconds
    speed: list[Annotated[float, Field(gt=0, lt=MAX_MS)]]
    stolen_share: Annotated[float, Field(ge=-1000, le=1000)] | None


class EnergyPart(Strict):
    """What anchors take, and by what meter."""

    rule: Word
    millijoules: dict[Word, Annotated[float, Field(ge=0, lt=MAX_PEAK)] | None]


class ProvenancePart(_Open):
    """Where, when and how."""

    date: Word
    commit: Word
    null_ms: Annotated[float, Field(ge=0, lt=MAX_MS)]
    anchors: dict[Identity, list[Anchor]]
    version: Word = ""
    device_s: Seconds = 0.0
    visits: list[VisitPart] = Field(default_factory=list)
    spaces: dict[Identity, Word] = Field(default_factory=dict)
    energy: dict[Identity, EnergyPart] = Field(default_factory=dict)
    imported: list[Word] = Field(default_factory=list)
    kit: Word = ""


class TableFile(Strict):
    """The file; rows and models are checked by `rows` and `model`."""

    model_config = ConfigDict(extra="forbid")

    schema_: Annotated[Literal["elastic-latency/2"], Field(alias="schema")]
    device: DevicePart
    runtime: RuntimePart
    precision: Word
    protocol: ProtocolPart
    provenance: ProvenancePart
    blocks: list[Any]
    children: list[Any]
    models: dict[Identity, Any]


class FigureColumns(Strict):
    """What rows tell of their samples, each field a column."""

    ms: list[Ms]
    p10: list[Ms | None]
    p90: list[Ms | None]
    contended_p90: list[Ms | None]
    n: list[Annotated[int, Field(ge=1, lt=MAX_COUNT)] | None]
    accept: list[Annotated[float, Field(gt=0, le=1)] | None]


class BlockColumns(FigureColumns):
    """The rows of blocks."""

    memory_bytes: list[Annotated[int, Field(gt=0, lt=MAX_PEAK)] | None]


class ChildColumns(FigureColumns):
    """The rows of children."""

    space: list[Identity]
    classes: list[Classes]
    genotype: list[Genes]
    role: list[Literal["fit", "calibrate", "verify"]]
    round_ms: list[Annotated[list[Ms], Field(max_length=MAX_ROUNDS)]]


def columns(rows: list[Any], names: Mapping[str, Any], what: str) -> dict[str, list[Any]]:
    """The rows' fields, each a list over all rows.

    Raises:
        TableError: A row is no mapping, or has not exactly these fields.
    """
    for place, row in enumerate(rows):
        if type(row) is not dict or row.keys() != names.keys():
            raise TableError(
                f"{what}.{place} must have exactly the fields {', '.join(names)}, got {shown(row)}."
            )
    return {name: [row[name] for row in rows] for name in names}
