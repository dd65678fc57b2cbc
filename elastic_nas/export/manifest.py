"""The manifest of an exported folder: one model for whoever writes it and whoever reads it."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from pydantic import model_validator as checked

from elastic_nas.data.preprocess import Preprocess
from elastic_nas.errors import DataError, RunFolderError
from elastic_nas.intervals import wilson
from elastic_nas.outside import MEGABYTE, read_json
from elastic_nas.strict import Strict

SCHEMA = "elastic-child/1"
MODEL, MANIFEST, LABELS = "child.onnx", "manifest.json", "labels.txt"
INPUT, OUTPUT = "test_data/input_0.npy", "test_data/output_0.npy"
FILES = (MODEL, LABELS, INPUT, OUTPUT)
"""What a manifest must have hashes of."""
KNOWN = ("test_data/images.npy", "test_data/seen.npy")
"""Likewise where it tells of its images; came after version 0.1.0. See `known_images`."""
MOST_BYTES = 4 * MEGABYTE
MOST_MS = 1e7
TRIES = 5
"""Children to time before a budget is given up."""
TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit in size."""

Ms = Annotated[float, Field(gt=0, le=MOST_MS)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**15)]
Words = Annotated[str, StringConstraints(max_length=4000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_DURATION = re.compile(r"\d[\d.e+-]{0,10} m?s")


def _date(text: str) -> str:
    datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return text


class Scored(Strict):
    """Right answers on a number of images."""

    top1: Share
    n: Count
    interval_95: Annotated[list[Share], Field(min_length=2, max_length=2)]

    def faults(self) -> list[str]:
        """Why these figures cannot be, if they cannot."""
        right = self.top1 * self.n
        if abs(right - round(right)) > 1e-6 * self.n:
            return [f"a share of {self.top1!r} is no whole number of {self.n} images"]
        low, high = wilson(round(right), self.n)
        if max(abs(low - self.interval_95[0]), abs(high - self.interval_95[1])) > 1e-6:
            stated = "-".join(f"{end:.4f}" for end in self.interval_95)
            return [f"95 % interval {stated}, recomputed from top-1 and n: {low:.4f}-{high:.4f}"]
        return []


class Accuracy(Scored):
    """Of the file, on the test split."""

    split: Literal["test"]


class Int8(Accuracy):
    """Of the int8 form that was timed, on the same images; it is not among the files."""

    scheme: Name
    calibration_images: Count
    note: Words


class Validation(Strict):
    """What the search knew of the child."""

    accuracy: Share
    n: Count


Number = Annotated[int, Field(ge=0, le=10**12)]
Kinds = Annotated[dict[Name, Number], Field(max_length=1000)]
"""Numbers by kind."""


class Sides(Strict):
    """Numbers of images."""

    train: Number
    search_validation: Number
    test: Number


class ImageCounts(Strict):
    """What the figures are of."""

    used: Sides
    """Images that were there at the export."""
    missing: Sides
    """Images that the run was trained with, or would be judged on, and that were not there."""
    left_out: Kinds
    """What was passed over when the run was trained."""
    copies: Kinds
    """Equal pictures, by what was done with them."""


class Meaning(Strict):
    """What pixels mean where their files leave it open; see `data.images.Reading`."""

    bits: Annotated[int, Field(ge=8, le=16)] | None
    bands: Literal["rgb", "rgba"] | None


class Parity(Strict):
    """How far the file's logits are from the PyTorch child's, on real images."""

    max_difference: Annotated[float, Field(ge=0)]
    top1_agreement: Share
    images: Count


class Machine(Strict):
    """What a measured latency belongs to."""

    arch: Name
    cpu: Words
    cores: Count
    flags: Name
    runtime: Name
    threads: Count


class Latency(Strict):
    """Predicted, bounded and, where the machine was the device, measured; in milliseconds."""

    device: Annotated[str, StringConstraints(pattern=r"^[^/\\]{1,200}$")] | None
    predicted_ms: Ms | None
    bound_ms: Ms | None
    bound_level: Annotated[float, Field(ge=0.95, le=0.95)] = 0.95
    measured_ms: Ms | None
    note: Words
    table_sha256: Hash | None = None
    speed: Annotated[float, Field(gt=0, le=1000)] | None = None
    """The machine's when the child was chosen, in multiples of what the table says."""
    notes: list[Words] = Field(default_factory=list, max_length=20)
    machine: Machine | None = None
    p10_ms: Ms | None = None
    p90_ms: Ms | None = None
    contended_p90_ms: Ms | None = None
    n: Annotated[int, Field(ge=0)] | None = None
    accept: Share | None = None
    budget_ms: Annotated[float, Field(gt=0)] | None = None
    passed_over: list[Words] = Field(default_factory=list, max_length=TRIES)

    @property
    def named_by_path(self) -> bool:
        """Whether the device is a file's name: data name devices, never files."""
        return self.device is not None and self.device.endswith((".yaml", ".yml", ".py"))

    def faults(self) -> list[str]:
        """What of these figures cannot stand beside each other."""
        shown = {key: f"{getattr(self, key)} ms" for key in type(self).model_fields}
        found = []
        for lower, higher in (
            ("predicted_ms", "bound_ms"),
            ("measured_ms", "bound_ms"),
            ("measured_ms", "budget_ms"),
            ("p10_ms", "p90_ms"),
        ):
            less, more = getattr(self, lower), getattr(self, higher)
            if less is not None and more is not None and less > more * (1 + 1e-9):
                found.append(f"{lower} {shown[lower]} is above {higher} {shown[higher]}")
        if (self.predicted_ms is None) != (self.bound_ms is None):
            found.append(f"predicted {self.predicted_ms}, but bounded {self.bound_ms}")
        if self.device is None and (self.bound_ms or self.measured_ms):
            found.append("latencies of no device")
        if self.named_by_path:
            found.append(f"the device {self.device!r} is a file, not a name")
        if any(not _DURATION.fullmatch(text) for text in self.passed_over):
            found.append(f"passed_over {str(self.passed_over)[:80]} are no durations")
        if self.passed_over and self.budget_ms is None:
            found.append("children were passed over, but there was no budget")
        return [f"latency: {text}" for text in found]


class Manifest(Strict):
    """What an exported folder says of itself."""

    schema_: Literal["elastic-child/1"] = Field(alias="schema")
    version: Name
    task: Name
    space: Name
    genotype: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(,[0-9]{1,4}){0,999}$")]
    settings: dict[str, Any]
    macs: Count
    params: Count
    classes: Annotated[int, Field(ge=2, le=100_000)]
    data: Name
    preprocess: dict[str, Any]
    resolution: Annotated[int, Field(ge=1, le=4096)]
    weights_sha256: Hash
    calibration_images: Count
    oldest_runtime: Name
    created: Annotated[
        str,
        StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"),
        AfterValidator(_date),
    ]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Of the splits; this and the next two tell the test images, and came after version 0.1.0."""
    statistics: Literal["data", "imagenet"] | None = None
    test_sha256: Hash | None = None
    images: ImageCounts | None = None
    """With its files, `KNOWN`; came after version 0.1.0, as does the next."""
    reading: Meaning | None = None
    accuracy: Accuracy
    int8: Int8 | None = None
    latency: Latency
    search_validation: Validation | None
    parity: Parity
    size_bytes: Count
    sha256: dict[str, Hash]

    @checked(mode="after")
    def _whole(self) -> "Manifest":
        wrong = set(self.sha256) ^ set(self.files)
        if wrong:
            raise ValueError(
                f"sha256 lacks, or names beyond an export's own files: {sorted(wrong)!s:.200}"
            )
        try:
            _ = self.deployed
        except DataError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """What lies in the folder beside the manifest."""
        return FILES if self.images is None else (*FILES, *KNOWN)

    @property
    def deployed(self) -> Preprocess:
        """How images are resized and normalised."""
        return Preprocess.from_description(self.preprocess)

    def plain(self) -> dict[str, Any]:
        """The manifest as it stands in the file."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def faults(self) -> list[str]:
        """Claims that cannot be true, whatever the files hold; each as a sentence's part."""
        found = [f"accuracy: {text}" for text in self.accuracy.faults()]
        if self.int8 is not None:
            found += [f"accuracy of the int8 form: {text}" for text in self.int8.faults()]
        found += self.latency.faults()
        if self.images is not None and self.images.used.test != self.accuracy.n:
            found.append(
                f"images: {self.images.used.test} test images were there, but the accuracy is of "
                f"{self.accuracy.n}"
            )
        parity = self.parity
        if parity.max_difference > TOLERANCE or parity.top1_agreement < 1:
            found.append(
                f"parity: {parity.max_difference:.1e} of the largest logit, top-1 agreement "
                f"{parity.top1_agreement:.1%}; no such file is exported (allowed {TOLERANCE:.0e})"
            )
        return found


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an exported folder.

    Raises:
        RunFolderError: There is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = f"holds no {MANIFEST}" if folder.is_dir() else "is no folder"
        raise RunFolderError(f"{folder} {what}; name a folder that elastic-nas export wrote.")
    values = read_json(path, most=MOST_BYTES)
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise RunFolderError(f"{path} is not of schema {SCHEMA!r}; export again.")
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise RunFolderError(f"{path} is damaged: {_told(error)}; export again.") from error


def _told(error: ValidationError) -> str:
    """What is wrong, key by key."""
    return "; ".join(
        f"see {'.'.join(map(str, one['loc'])) or 'the whole'!r}: {one['msg']}"[:300]
        for one in error.errors(include_url=False, include_input=False)[:6]
    )
