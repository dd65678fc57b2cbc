"""What a kit's plan and its result hold, as strict models: for their writers and their readers.

Limits and forms are those by which a kit reads the same files on the device (`kit_check`), and
those of a latency table's rows: what is sound here makes a table that its reader takes.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from elastic_nas import kit_check
from elastic_nas.errors import TableError
from elastic_nas.kit_check import MAX_COUNT, MAX_ROUNDS, MAX_ROWS, MAX_SAMPLES, MAX_SIZE

YEARS = range(1970, 2200)
"""A board without a clock begins with the first of them."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds control characters")
    return text


def _date(text: str) -> str:
    if datetime.fromisoformat(text).year not in YEARS:
        raise ValueError("no kit was measured in that year")
    return text


Text = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
Hash = Annotated[str, Field(pattern=f"^{kit_check.HASH.pattern}$")]
Name = Annotated[str, Field(pattern=f"^{kit_check.NAME.pattern}$")]
File = Annotated[str, Field(pattern=f"^{kit_check.FILE.pattern}$")]
Date = Annotated[Text, Field(max_length=40), AfterValidator(_date)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
Rounds = Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
Samples = Annotated[int, Field(ge=1, le=MAX_SAMPLES)]
Milliseconds = Annotated[float, Field(ge=kit_check.MIN_MS, lt=kit_check.MAX_MS)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NetworkPart(_Part):
    """The network that a kit was made for."""

    space: Text
    classes: Size
    identity: Text


class ProtocolPart(_Part):
    """How figures were taken; see `measure.Protocol`."""

    warmup: Annotated[int, Field(ge=1, le=kit_check.MAX_CHOICES)]
    rounds: Rounds
    accepted_per_round: Samples
    attempts_per_round: Samples
    max_wait_share: Share
    max_wait_s: Annotated[float, Field(ge=0, le=60)]
    min_accept: Share
    min_samples: Annotated[int, Field(ge=0, le=MAX_SIZE)]
    seed: Count
    sample_s: Annotated[float, Field(ge=0, le=60)]


class Protocols(_Part):
    """How blocks and whole children were timed."""

    blocks: ProtocolPart
    children: ProtocolPart


class RuntimePart(_Part):
    """What ran the models, as a table names it."""

    name: Text
    provider: Text
    threads: Annotated[int, Field(ge=1, le=kit_check.MAX_THREADS)]
    graph_optimization: Text


class VersionedRuntime(RuntimePart):
    """The same with the release that was found on the device."""

    version: Text


class State(_Part):
    """What may change about a machine; see `machine.environment`."""

    load: Annotated[list[Annotated[float, Field(ge=0, le=MAX_SIZE)]], Field(max_length=1000)] = []
    freq_khz: Annotated[list[Count], Field(max_length=MAX_ROUNDS)] = []
    thermal_c: Annotated[
        list[Annotated[float, Field(ge=-MAX_SIZE, le=MAX_SIZE)]], Field(max_length=MAX_ROUNDS)
    ] = []
    governor: Text = ""
    stolen_ticks: Count = 0


class MachinePart(State):
    """A machine and its state; see `machine.environment`."""

    arch: Text
    cpu: Text
    flags: Annotated[list[Text], Field(max_length=MAX_ROUNDS)]
    cores: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    os: Text
    memory_mb: Count = 0
    cpu_limit: Text = ""


class VisitPart(_Part):
    """One run of a kit."""

    date: Date
    device_s: Seconds
    seconds: Seconds
    before: State
    after: State
    stolen_share: Share = 0.0


class What(_Part):
    """What a model is: a block, or a whole child and its role; the empty model has neither."""

    block: Annotated[
        dict[Text, bool | Annotated[int, Field(ge=0, le=MAX_SIZE)] | Text], Field(max_length=1000)
    ] = {}
    genotype: Annotated[
        list[Annotated[int, Field(ge=0, lt=kit_check.MAX_CHOICES)]],
        Field(min_length=1, max_length=kit_check.MAX_CHOICES),
    ] = []
    role: Literal["fit", "calibrate", "anchor", ""] = ""

    @model_validator(mode="after")
    def _check_one(self) -> "What":
        told = self.model_fields_set
        if told not in (set(), {"block"}, {"genotype", "role"}) or bool(self.role) != (
            "role" in told
        ):
            raise ValueError("it must be a block, or a child with its role")
        return self


class RowPart(_Part):
    """One model and its rounds; what they come to is told once more, for people."""

    name: Name
    what: Annotated[What, Field(alias="is")]
    rounds: Annotated[list[Any], Field(max_length=3 * MAX_ROUNDS)]
    ms: Milliseconds | None = None
    contended_p90: Milliseconds | None = None
    n: Count = 0
    refused: Text = ""

    @model_validator(mode="after")
    def _check_rounds(self) -> "RowPart":
        if not all(map(kit_check.is_round, self.rounds)):
            raise ValueError(f"the rounds of {self.name} hold numbers that cannot be")
        return self


class GroupPart(_Part):
    """Models that were measured together; its rows are checked one by one, by `RowPart`."""

    part: Literal["blocks", "children"]
    rounds: Rounds
    rows: Annotated[list[Any], Field(min_length=1, max_length=MAX_ROWS)]


class ModelPart(_Part):
    """One model of a kit's plan."""

    name: Name
    file: File
    sha256: Hash
    input_shape: Annotated[list[Size], Field(min_length=1, max_length=4)]
    weight_bytes: Count
    guess_ms: Annotated[float, Field(ge=0, le=MAX_COUNT)]
    what: Annotated[What, Field(alias="is")]

    @model_validator(mode="after")
    def _check_input(self) -> "ModelPart":
        if not kit_check.has_size(self.input_shape):
            raise ValueError("its input is too large")
        return self


class DrawPart(_Part):
    """Which children were chosen; see `plan.Draw`."""

    n_fit: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    n_calibrate: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    seed: Annotated[int, Field(ge=-MAX_COUNT, le=MAX_COUNT)]


class _Shared(_Part):
    device: Text
    network: NetworkPart
    draw: DrawPart
    precision: Text
    protocol: Protocols
    sha256: Hash


Models = Annotated[list[Any], Field(min_length=1, max_length=MAX_ROWS)]


class PlanPart(_Shared):
    """A kit's plan; the models of its parts are checked one by one, by `ModelPart`."""

    schema_: Annotated[Literal["elastic-kit/1"], Field(alias="schema")]
    profile: Text = ""
    runtime: RuntimePart
    session: Annotated[dict[Text, Text], Field(max_length=1000)]
    needs: Annotated[dict[Literal["numpy", "onnxruntime"], Text], Field(min_length=2)]
    input_seed: Count
    child_seconds: Annotated[float, Field(ge=0, le=3600)]
    max_rounds: Rounds
    anchors: Annotated[list[Any], Field(min_length=1, max_length=kit_check.MAX_CHOICES)]
    blocks: Models
    children: Models
    files: Annotated[dict[File, Hash], Field(max_length=1000)]


class ResultPart(_Shared):
    """A kit's result; its groups are checked one by one, by `GroupPart`."""

    schema_: Annotated[Literal["elastic-kit-result/1"], Field(alias="schema")]
    plan: Hash
    runtime: VersionedRuntime
    libraries: Annotated[dict[Text, Text], Field(max_length=1000)] = {}
    filter: Text
    environment: MachinePart
    visits: Annotated[list[VisitPart], Field(max_length=MAX_ROUNDS)]
    groups: Annotated[list[Any], Field(min_length=1, max_length=MAX_ROWS)]
    complete: bool


Part = TypeVar("Part", bound=_Part)


def checked(model: type[Part], content: Any) -> Part:
    """The content as the model.

    Raises:
        TableError: It is not what the model says; the message names the first field.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        found = "" if first["type"] in ("missing", "value_error") else _shown(first["input"])
        raise TableError(
            f"{place}: {first['msg'].removeprefix('Value error, ')}{found}."
        ) from error


def _shown(value: Any) -> str:
    plain = value is None or isinstance(value, str | int | float)
    return f", not {str(value)[:40]!r}" if plain else ""


def checked_plan(content: Any) -> PlanPart:
    """A kit's plan, all of it.

    Raises:
        TableError: It is no such plan.
    """
    plan = checked(PlanPart, content)
    models = [*plan.anchors, *plan.blocks, *plan.children]
    names = {checked(ModelPart, model).name for model in models}
    if len(names) < len(models):
        raise TableError("two models of the plan have one name.")
    return plan
