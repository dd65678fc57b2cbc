"""What a run keeps of its data: classes, preprocessing, and each image's identity and side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from elastic_nas.data.identity import WIDTH, digest_of
from elastic_nas.data.pixels import Reading
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.errors import RunFolderError
from elastic_nas.outside import parse_json, read_bytes
from elastic_nas.strict import Strict, Text, checked

SCHEMA = "elastic-data/1"

SIDES = ("train", "search-validation", "test")
"""Of images, by their number in a record."""

LEFT_OUT = len(SIDES)
"""The side of images that were there and are on none, such as copies."""

MOST_BYTES = 4 << 30
"""Of a record; one of a million images has about 60 MB."""

MOST_HEAD = 64 << 20
"""Bytes of its description, which holds the names of the classes."""

Count = Annotated[int, Field(ge=0, le=10**12)]
PartName = Literal["all", "train", "val", "test"]


class Head(Strict):
    """The description of a data set in a record.

    Attributes:
        name: Of the data set.
        place: Where it lay.
        classes: Names in the order of the logits.
        given: The parts that the source came in, such as ``["all"]`` or ``["train", "test"]``.
        seed: Of the splits that were drawn.
        statistics: What images are normalised by.
        preprocess: How images are resized and normalised, see `preprocess.Preprocess`.
        flip: Whether a horizontally flipped image keeps its label.
        typical_size: Median shorter side of the training images, in pixels.
        bits: See `pixels.Reading`; what was found in the files counts as given.
        bands: Likewise.
        left_out: What was passed over: numbers by kind.
        copies: Equal pictures: numbers by what was done with them.
    """

    format: Annotated[Literal["elastic-data/1"], Field(alias="schema")]
    name: Annotated[str, Field(max_length=4096)]
    place: Text
    classes: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=100_000)]
    given: Annotated[list[PartName], Field(min_length=1, max_length=3)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    statistics: Literal["data", "imagenet"]
    preprocess: dict[str, Any]
    flip: bool
    typical_size: Annotated[int, Field(ge=1, le=100_000_000)]
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    bands: Literal["rgb", "rgba"] | None = None
    left_out: Annotated[dict[str, Count], Field(max_length=1000)] = Field(default_factory=dict)
    copies: Annotated[dict[str, Count], Field(max_length=100)] = Field(default_factory=dict)

    @field_validator("preprocess")
    @classmethod
    def _computed(cls, value: dict[str, Any]) -> dict[str, Any]:
        Preprocess.from_description(value)  # its error is told by whoever reads
        return value

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")
        if len(set(self.given)) < len(self.given):
            raise ValueError("a part is named twice")
        return self


@dataclass(frozen=True, eq=False)
class DataRecord:
    """All images that a run was given, in the order of its parts.

    Attributes:
        head: What the data set is.
        identities: Of each image, (n, 16), see `identity`.
        labels_N: Class indices.
        sides_N: Indices into `SIDES`, or `LEFT_OUT`.
        parts_N: Indices into `head.given`.
        names: What each image was called.
    """

    head: Head
    identities: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    sides_N: NDArray[np.uint8]
    parts_N: NDArray[np.uint8]
    names: Sequence[str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self.head.classes)

    @property
    def preprocess(self) -> Preprocess:
        """How images are resized and normalised."""
        return Preprocess.from_description(self.head.preprocess)

    @property
    def reading(self) -> Reading:
        """What pixels mean."""
        return Reading(self.head.bits, self.head.bands)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Hex hash of each side's images and labels, in order, by the name of the side."""
        return {side: self._fingerprint(number) for number, side in enumerate(SIDES)}

    def _fingerprint(self, side: int) -> str:
        rows = self.sides_N == side
        return digest_of(self.labels_N[rows], self.identities[rows])

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many images each side has."""
        found = np.bincount(self.sides_N, minlength=LEFT_OUT + 1)
        return {side: int(found[number]) for number, side in enumerate(SIDES)}

    def encoded(self) -> bytes:
        """The content of its file: safetensors, described in the metadata."""
        from safetensors.numpy import save

        names = "\0".join(name.replace("\0", "\ufffd") for name in self.names)
        tensors: dict[str, NDArray[Any]] = {
            "identities": np.ascontiguousarray(self.identities),
            "labels": self.labels_N.astype(np.int32),
            "sides": self.sides_N,
            "parts": self.parts_N,
            "names": np.frombuffer(names.encode(errors="surrogatepass"), np.uint8),
        }
        return save(tensors, {"elastic_nas": self.head.model_dump_json(by_alias=True)})


def read_record(path: Path) -> DataRecord:
    """The record in a file.

    Raises:
        RunFolderError: It cannot be read, or is damaged.
    """

    return decoded(read_bytes(path, MOST_BYTES), path)


def decoded(content: bytes, path: Path) -> DataRecord:
    """The record that such bytes hold.

    Args:
        content: Of a record's file.
        path: Of the file, for messages.

    Raises:
        RunFolderError: They are none.
    """
    from safetensors.numpy import load

    def damaged(reason: str) -> RunFolderError:
        return RunFolderError(
            f"{path} is damaged ({reason}): it must tell which images the run was trained on, as "
            "train writes it. Restore it from a copy, or train anew."
        )

    try:
        tensors = load(content)
        head = checked(Head, parse_json(_metadata(content)), damaged)
        return _of_tensors(head, tensors)
    except RunFolderError:
        raise
    except Exception as error:  # of the library, or of values that cannot be
        raise damaged(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _metadata(content: bytes) -> str:
    """The description in the header, whose length the library has checked."""
    length = int.from_bytes(content[:8], "little")
    if length > MOST_HEAD:
        raise ValueError("its description is too long")
    head = json.loads(content[8 : 8 + length])["__metadata__"]["elastic_nas"]
    if not isinstance(head, str):
        raise ValueError("it has no description")
    return head


_TYPES = {
    "identities": np.uint8,
    "labels": np.int32,
    "sides": np.uint8,
    "parts": np.uint8,
    "names": np.uint8,
}


def _of_tensors(head: Head, tensors: Mapping[str, NDArray[Any]]) -> DataRecord:
    """The record of checked arrays.

    Raises:
        ValueError: Shapes, types or values cannot be.
    """
    if {name: array.dtype for name, array in tensors.items()} != _TYPES:
        raise ValueError("it holds other arrays")
    identities, labels, sides, parts = (
        tensors[name] for name in ("identities", "labels", "sides", "parts")
    )
    n = len(labels)
    names = tensors["names"].tobytes().decode(errors="surrogatepass").split("\0")
    if identities.shape != (n, WIDTH) or any(a.shape != (n,) for a in (labels, sides, parts)):
        raise ValueError("its arrays have unequal lengths")
    if n == 0 or len(names) != n:
        raise ValueError(f"it has {len(names)} names of {n} images")
    if sides.max() > LEFT_OUT or parts.max() >= len(head.given):
        raise ValueError("an image is on no side that there is")
    used = labels[sides != LEFT_OUT]
    if len(used) and not 0 <= used.min() <= used.max() < len(head.classes):
        raise ValueError("an image is of no class that there is")
    for number, side in enumerate(SIDES):
        if len(np.unique(parts[sides == number])) != 1:
            raise ValueError(f"the {side} images are none, or of several parts")
    return DataRecord(head, identities, labels.astype(np.int64), sides, parts, names)
