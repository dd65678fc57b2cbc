"""A checkpoint: weights and optimiser state in one safetensors file with JSON metadata.

No pickle anywhere: a file that is not safetensors is refused before anything of it is used. A hash
over metadata and tensors is checked whenever they are read.
"""

import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from elastic_nas.errors import CheckpointError, DamagedCheckpoint
from elastic_nas.files import write_atomic
from elastic_nas.network import Network
from elastic_nas.nn.supernet import Supernet
from elastic_nas.outside import MEGABYTE, parse_json
from elastic_nas.progress import say
from elastic_nas.runs import WEIGHTS
from elastic_nas.strict import checked
from elastic_nas.training.header import SCHEMA, WITHOUT_HASH, FirstHeader, Header
from elastic_nas.training.optimiser import Average
from elastic_nas.training.origin import commit, versions

FILE_NAME = WEIGHTS
MOST_HEADER = 64 * MEGABYTE
"""Bytes of a file's header, which lists its tensors; that of a large supernet has 200 kB."""
DTYPE = "F32"
"""Of all tensors: weights, averages and what optimisers remember are 32-bit floats."""
PREFIXES = ("weights.", "average.", "optimizer.")

Facts = dict[str, Any]
"""The metadata: plain JSON values."""

_INDEX = re.compile("0|[1-9][0-9]{0,8}")
_STATE: dict[type[torch.optim.Optimizer], set[str]] = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.RMSprop: {"step", "square_avg", "momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}
"""What each optimiser stores of a parameter; momentum only where there is some."""


@dataclass(frozen=True)
class Progress:
    """How far the training is: steps done, of how many, and the guard's state there."""

    step: int
    steps: int
    guard: dict[str, Any] = field(default_factory=dict)


def encode(
    network: Network,
    supernet: Supernet,
    at: Progress,
    optimizer: torch.optim.Optimizer | None = None,
    average: Average | None = None,
    *,
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """The content of a checkpoint.

    Args:
        network: What the weights are of.
        supernet: The weights.
        at: How far the training is.
        optimizer: Its state is stored, too.
        average: It is stored, too.
        about: What else is worth knowing of it, as JSON values.
    """
    tensors = {f"weights.{name}": tensor for name, tensor in supernet.state_dict().items()}
    state = {} if optimizer is None else optimizer.state_dict()["state"]
    for index, entry in state.items():
        for key, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.tensors.items()}
    flat = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    facts = {
        "schema": SCHEMA,
        "space": network.space_name,
        "identity": network.identity,
        "classes": network.classes,
        "versions": versions(),
        "commit": commit(),
        **(about or {}),
        **asdict(at),
    }
    digest = _Digest(facts)
    for name, tensor in flat.items():
        digest.update(name, tensor)
    facts["sha256"] = digest.text()
    checked(Header, facts, _unwritable)
    return save(flat, {"elastic_nas": json.dumps(facts)})


def _unwritable(reason: str) -> CheckpointError:
    return CheckpointError(f"this training cannot be written into a checkpoint ({reason}).")


def save_checkpoint(
    path: Path,
    network: Network,
    supernet: Supernet,
    at: Progress,
    optimizer: torch.optim.Optimizer | None = None,
    average: Average | None = None,
) -> None:
    """Write weights, optimiser state and what they belong to, atomically.

    Raises:
        RunFolderError: The file cannot be written; the previous one is untouched.
    """
    write_atomic(path, encode(network, supernet, at, optimizer, average))


class _Digest:
    """SHA-256 over metadata, and names, types, shapes and values of tensors sorted by name."""

    def __init__(self, facts: Facts) -> None:
        hashed = {key: value for key, value in facts.items() if key != "sha256"}
        self._sha = sha256(json.dumps(hashed, sort_keys=True).encode())

    def update(self, name: str, tensor: Tensor) -> None:
        self._sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        self._sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)

    def text(self) -> str:
        return self._sha.hexdigest()


def read_facts(path: Path) -> Facts:
    """What a checkpoint says of itself, without its tensors, and therefore unchecked.

    Raises:
        CheckpointError: The file is missing, damaged or no checkpoint.
    """
    with _opened(path) as file:
        return file.facts


def read_progress(path: Path, network: Network) -> Progress:
    """How far the training that wrote this checkpoint was; the whole file is checked.

    Raises:
        CheckpointError: See `load_checkpoint`.
    """
    with _opened(path) as file:
        at = file.progress(network)
        for _ in file.tensors():
            pass
        return at


def load_checkpoint(
    path: Path,
    network: Network,
    supernet: Supernet,
    optimizer: torch.optim.Optimizer | None = None,
    average: Average | None = None,
) -> Progress:
    """Fill supernet, optimiser and average from a checkpoint.

    Without an optimiser the supernet is to be judged: it gets the average of the weights, where
    the checkpoint has one. An average that the checkpoint lacks begins with the weights.

    Raises:
        DamagedCheckpoint: The file is damaged, no safetensors file, or holds NaN or infinity.
        CheckpointError: The file is missing, or belongs to another space, number of classes or
            optimiser.
    """
    with _opened(path) as file:
        at = file.progress(network)
        file.check_weights(supernet)
        if optimizer is not None:
            file.check_optimizer(optimizer)
        tensors = dict(file.tensors())
    weights, averaged = _part(tensors, "weights."), _part(tensors, "average.")
    supernet.load_state_dict(averaged if averaged and optimizer is None else weights)
    if optimizer is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if average is not None:
        for name, tensor in average.tensors.items():
            tensor.copy_(averaged.get(name, weights[name]))
    return at


def _part(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


@contextmanager
def _opened(path: Path) -> Iterator["_File"]:
    if not path.is_file():
        raise CheckpointError(
            f"there is no checkpoint {path}; train first: elastic-nas train --data DIR --out RUN."
        )
    try:
        _check_length(path)
        with safe_open(path, framework="pt") as file:
            yield _File(path, file)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _check_length(path: Path) -> None:
    """Refuse a header that is longer than its file, or than any supernet's."""
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 0 < length <= min(MOST_HEADER, os.fstat(file.fileno()).st_size - 8):
            raise ValueError("its header has an impossible length")


def _damaged(path: Path, reason: str) -> DamagedCheckpoint:
    return DamagedCheckpoint(
        f"{path} is damaged or no checkpoint of elastic_nas ({reason}); nothing of it was used.",
        "Go back to the newest sound checkpoint of its run, if there is one, with elastic-nas "
        "train --out RUN --resume; or restore it from a copy, or train anew with another --out.",
    )


class _File:
    """An open safetensors file that says that it is a checkpoint.

    safetensors has checked that types, shapes and offsets are those of a file of its length, so
    that nothing larger than the file is ever allocated.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        self.facts: Facts = parse_json((file.metadata() or {}).get("elastic_nas", "null"))
        schema = self.facts.get("schema") if isinstance(self.facts, dict) else None
        if schema not in (SCHEMA, WITHOUT_HASH):
            raise _damaged(path, f"it is not of schema {SCHEMA}")
        model: type[Header | FirstHeader] = Header if schema == SCHEMA else FirstHeader
        self._header = checked(model, self.facts, lambda reason: _damaged(path, reason))
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        for name, piece in slices.items():
            if piece.get_dtype() != DTYPE or not name.startswith(PREFIXES):
                raise _damaged(path, f"{name[:100]} is none of the 32-bit floats it may hold")
        self._shapes = {name: tuple(piece.get_shape()) for name, piece in slices.items()}

    def progress(self, network: Network) -> Progress:
        """How far the training was; refuses another network's."""
        header = self._header
        if (header.identity, header.classes) != (network.identity, network.classes):
            raise CheckpointError(
                f"{self._path} was trained for space {header.space!r} with "
                f"{header.classes} classes, not for {network.space_name!r} with "
                f"{network.classes}; use the space that it was trained with, or train anew."
            )
        return Progress(header.step, header.steps, header.guard.model_dump(exclude_unset=True))

    def check_weights(self, supernet: Supernet) -> None:
        """Refuse weights and averages that are not all of the supernet's."""
        expected = {name: tuple(tensor.shape) for name, tensor in supernet.state_dict().items()}
        weights, averaged = _part(self._shapes, "weights."), _part(self._shapes, "average.")
        if weights != expected or averaged not in ({}, expected):
            raise _damaged(self._path, "it holds other weights than its space needs")

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse what is not the state of such an optimiser of such parameters."""
        if not self._fits(optimizer):
            raise CheckpointError(
                f"{self._path} holds the state of another optimiser, or of one without momentum; "
                "train anew with another --out."
            )

    def _fits(self, optimizer: torch.optim.Optimizer) -> bool:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        found: dict[int, set[str]] = {}
        for name, shape in _part(self._shapes, "optimizer.").items():
            index, _, key = name.partition(".")
            number = int(index) if _INDEX.fullmatch(index) else len(parameters)
            like = parameters[number : number + 1]
            if not like or shape != (() if key == "step" else tuple(like[0].shape)):
                return False
            found.setdefault(number, set()).add(key)
        known = _STATE[type(optimizer)]
        moving = optimizer.param_groups[0].get("momentum", 0) > 0
        needed = known if moving else known - {"momentum_buffer"}
        return all(needed <= keys <= known for keys in found.values())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Copies of all tensors, by name; raises at the end if they are not what was written.

        What safetensors gives are windows on the file, which change with it.
        """
        digest = _Digest(self.facts)
        for name in self._shapes:
            tensor = self._file.get_tensor(name).clone()
            if not name.startswith("optimizer.") and not bool(tensor.isfinite().all()):
                raise _damaged(self._path, f"{name} holds NaN or infinity")
            digest.update(name, tensor)
            yield name, tensor
        if isinstance(self._header, FirstHeader):
            _say_unchecked(self._path)
        elif digest.text() != self._header.sha256:
            raise _damaged(self._path, "its hash is not that of its contents")


@cache
def _say_unchecked(path: Path) -> None:
    """Once a file."""
    say(
        f"note: {path} was written by version 0.1.0 and has no hash, so that whether it is as it "
        "was written cannot be checked."
    )
