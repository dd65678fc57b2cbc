"""A file that torch saved, read without torch's reader: tensors, and nothing that costs or runs.

Today's format is a zip archive: one pickle, and a record for each storage; the checksum of every
record is checked, which torch's reader does not do. The format before torch 1.6 is five pickles
and then the storages in a row; it has no checksum, so that only its structure can be checked.
"""

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

from elastic_nas.errors import CheckpointError
from elastic_nas.outside import read_bytes
from elastic_nas.training.tensor_pickle import Described, Storage, read_pickle

MOST_BYTES = 256 << 20
"""Published files have some 40 MB; with an optimiser's state they would have some 120."""
MOST_RECORDS = 10_000
"""Of an archive; a published supernet has some 800."""

_ENTRY = b"PK\x01\x02"
"""Begins each entry of an archive's list of records."""
_ARCHIVE = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001

_TYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class TorchFile:
    """What a file holds.

    Attributes:
        value: Of dicts, lists, tuples, text, numbers and `Described` tensors.
        storages: The bytes of each storage, by key.
    """

    value: object
    storages: dict[str, memoryview]

    def tensor(self, found: Described) -> Tensor:
        """The tensor that is described.

        Raises:
            ValueError: It is a part of a storage, or not in the order of its axes.
        """
        strides = [math.prod(found.shape[axis + 1 :]) for axis in range(len(found.shape))]
        rows = zip(found.shape, found.strides, strides, strict=True)
        in_order = all(size < 2 or stride == wanted for size, stride, wanted in rows)
        if found.offset or not in_order or math.prod(found.shape) != found.storage.count:
            raise ValueError("is a view of other numbers, or not in the order of its axes")
        kind = _TYPES[found.storage.kind]
        if not found.storage.count:
            return torch.empty(found.shape, dtype=kind)
        numbers = bytearray(self.storages[found.storage.key])  # torch wants what can be written
        return torch.frombuffer(numbers, dtype=kind).view(found.shape)


def has_checksums(path: Path) -> bool:
    """Whether damage of the numbers in a file would be found: whether it is an archive.

    Raises:
        CheckpointError: It cannot be read.
    """
    return read_bytes(path, MOST_BYTES, CheckpointError).startswith(_ARCHIVE)


def read_torch_file(path: Path) -> TorchFile:
    """What a file holds, its structure and, in an archive, its checksums checked.

    Raises:
        CheckpointError: It cannot be read, is damaged, or would build more than tensors.
    """
    content = read_bytes(path, MOST_BYTES, CheckpointError)
    try:
        archive = content.startswith(_ARCHIVE)
        return _from_archive(content) if archive else _from_row(memoryview(content))
    except Exception as error:  # of any kind: `zipfile` lets errors of bad bytes through
        words = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{path} is no checkpoint that torch saved, is damaged, or holds more than tensors "
            f"({words[:300]}); nothing of it was executed or used. Download it again."
        ) from error


def _from_archive(content: bytes) -> TorchFile:
    if content.count(_ENTRY) > MOST_RECORDS:
        raise ValueError("its archive has more records than that of any supernet")
    with ZipFile(BytesIO(content)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > len(content):
            raise ValueError("records of its archive overlap")
        if any(e.compress_type != ZIP_STORED or e.file_size != e.compress_size for e in entries):
            raise ValueError("records of its archive are compressed, which torch never does")
        folder = _folder([entry.filename for entry in entries])
        # `read` compares each record with its checksum
        records = {e.filename.removeprefix(folder): archive.read(e) for e in entries}
    return _of_records(records)


def _folder(names: list[str]) -> str:
    """What all names of an archive's records begin with, such as ``archive/``."""
    pickles = [name for name in names if name.endswith("/data.pkl")]
    folder = pickles[0].removesuffix("data.pkl") if pickles else ""
    if folder.count("/") != 1 or not all(name.startswith(folder) for name in names):
        raise ValueError("its archive has no pickle, or records outside of the pickle's folder")
    if len(set(names)) != len(names):
        raise ValueError("two records of its archive have one name")
    return folder


def _of_records(records: dict[str, bytes]) -> TorchFile:
    if records.get("byteorder", b"little") != b"little":
        raise ValueError("its numbers are in big-endian order")
    pickle = read_pickle(memoryview(records["data.pkl"]))
    if pickle.length != len(records["data.pkl"]):
        raise ValueError("something follows its pickle")
    numbers = {}
    for key, storage in pickle.storages.items():
        found = records.get(f"data/{key}", b"")
        _check_size(storage, len(found))
        numbers[key] = memoryview(found)
    return TorchFile(pickle.value, numbers)


def _check_size(storage: Storage, found: int) -> None:
    if found != storage.bytes:
        raise ValueError(
            f"it claims {storage.bytes:,} bytes of numbers {storage.key[:80]!r} and has {found:,}"
        )


def _from_row(content: memoryview) -> TorchFile:
    """Of the older format: magic number, version, machine, value, keys; then the storages."""
    pickles, place = [], 0
    for wanted in (_MAGIC, _VERSION, dict, None, list):
        pickle = read_pickle(content[place:])
        place += pickle.length
        pickles.append(pickle)
        if wanted not in (None, pickle.value, type(pickle.value)):
            raise ValueError("it begins as none does")
    _, _, machine, described, keys = pickles
    if isinstance(machine.value, dict) and machine.value.get("little_endian") is not True:
        raise ValueError("its numbers are in big-endian order")
    storages, order = described.storages, keys.value
    assert isinstance(order, list)
    if len(order) != len(storages) or any(type(key) is not str for key in order):
        raise ValueError("its list of storages is not that of its tensors")
    numbers = {}
    for key in order:
        numbers[key], place = _numbers(content, place, storages.pop(key))
    if place != len(content):
        raise ValueError(f"{len(content) - place:,} bytes follow its last numbers")
    return TorchFile(described.value, numbers)


def _numbers(content: memoryview, place: int, storage: Storage) -> tuple[memoryview, int]:
    """The numbers of a storage in a row, behind their count, and where the next ones begin."""
    start = place + 8
    end = start + storage.bytes
    if int.from_bytes(content[place:start], "little") != storage.count or end > len(content):
        raise ValueError(f"it has not as many numbers {storage.key[:80]!r} as it claims")
    return content[start:end], end
