"""Checkpoints: weights and optimiser state in one safetensors file with JSON metadata.

No pickle anywhere: a file that is not safetensors is refused before anything of it is used.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from elastic_nas._version import __version__
from elastic_nas.errors import CheckpointError
from elastic_nas.files import write_atomic
from elastic_nas.network import Network
from elastic_nas.nn.supernet import Supernet
from elastic_nas.runs import WEIGHTS
from elastic_nas.training.optimiser import Average
from elastic_nas.training.trainer import Trainer

FILE_NAME = WEIGHTS
SCHEMA = "elastic-supernet/1"


@dataclass(frozen=True)
class Progress:
    """How far the training is: steps done, of how many, and the guard's state there."""

    step: int
    steps: int
    guard: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: The run folder.
        trainer: Whose supernet, optimiser and average are stored and filled.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self._path, self._trainer = folder / FILE_NAME, trainer

    def save(self, at: Progress, score: float | None = None) -> None:
        """Write weights, optimiser state and what they belong to, atomically.

        Args:
            at: How far the training is.
            score: Of the validation, where there was one; the best checkpoint is kept.

        Raises:
            RunFolderError: The file cannot be written; the previous one is untouched.
        """
        trainer = self._trainer
        save_checkpoint(
            self._path, trainer.network, trainer.supernet, at, trainer.optimizer, trainer.average
        )

    def load(self) -> Progress:
        """Fill supernet, optimiser and average from the newest good checkpoint.

        Raises:
            CheckpointError: See `load_checkpoint`.
        """
        trainer = self._trainer
        return load_checkpoint(
            self._path, trainer.network, trainer.supernet, trainer.optimizer, trainer.average
        )


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
    tensors = {f"weights.{name}": tensor for name, tensor in supernet.state_dict().items()}
    state = {} if optimizer is None else optimizer.state_dict()["state"]
    for index, entry in state.items():
        for key, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.tensors.items()}
    metadata = {
        "schema": SCHEMA,
        "space": network.space_name,
        "identity": network.identity,
        "classes": network.classes,
        "version": __version__,
        "torch": torch.__version__,
        **asdict(at),
    }
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(flat, {"elastic_nas": json.dumps(metadata)}))


def read_progress(path: Path, network: Network) -> Progress:
    """How far the training that wrote this checkpoint was.

    Raises:
        CheckpointError: See `load_checkpoint`.
    """
    return _read(path, network)[1]


def load_checkpoint(
    path: Path,
    network: Network,
    supernet: Supernet,
    optimizer: torch.optim.Optimizer | None = None,
    average: Average | None = None,
) -> Progress:
    """Fill supernet, optimiser and average from a checkpoint.

    Without an optimiser the supernet is to be judged: it gets the average of the weights, where
    the checkpoint has one.

    Raises:
        CheckpointError: The file is missing, damaged, no safetensors file, or belongs to another
            space or number of classes.
    """
    tensors, progress = _read(path, network)
    weights = _part(tensors, "weights.")
    averaged = _part(tensors, "average.")
    expected = supernet.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    for part in (weights, averaged) if averaged else (weights,):
        if {name: tuple(tensor.shape) for name, tensor in part.items()} != shapes:
            raise CheckpointError(
                f"{path} holds other weights than space {network.space_name!r} needs."
            )
    supernet.load_state_dict(averaged if averaged and optimizer is None else weights)
    if optimizer is not None:
        _load_optimizer(path, optimizer, _part(tensors, "optimizer."))
    if average is not None:
        for name, tensor in average.tensors.items():
            tensor.copy_(averaged.get(name, weights[name]))
    return progress


def _load_optimizer(
    path: Path, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        number = int(index) if index.isdecimal() else -1
        state.setdefault(number, {})[key] = tensor
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    expected = _STATE[type(optimizer)]
    for number, entry in state.items():
        fits = 0 <= number < len(parameters) and entry.keys() == expected
        if not fits or any(
            t.shape != parameters[number].shape for k, t in entry.items() if k != "step"
        ):
            raise CheckpointError(f"{path} holds another optimiser's state; train anew.")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


_STATE: dict[type[torch.optim.Optimizer], set[str]] = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.RMSprop: {"step", "square_avg", "momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}
"""What each optimiser stores of a parameter."""


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _read(path: Path, network: Network) -> tuple[dict[str, Tensor], Progress]:
    if not path.is_file():
        raise CheckpointError(
            f"there is no checkpoint {path}; train first: elastic-nas train --data DIR --out RUN."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("elastic_nas", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of elastic_nas ({error}); nothing of it was used. "
            "Restore it from a copy, or train anew with another --out."
        ) from error
    if not isinstance(metadata, dict) or metadata.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} is no checkpoint of elastic_nas (schema {SCHEMA}).")
    if (metadata.get("identity"), metadata.get("classes")) != (network.identity, network.classes):
        raise CheckpointError(
            f"{path} was trained for space {metadata.get('space')!r} with "
            f"{metadata.get('classes')} classes, not for {network.space_name!r} with "
            f"{network.classes}; use the space that it was trained with, or train anew."
        )
    step, steps = metadata.get("step"), metadata.get("steps")
    if type(step) is not int or type(steps) is not int or not 0 <= step <= steps:
        raise CheckpointError(f"{path} is damaged: it says step {step!r} of {steps!r}.")
    return tensors, Progress(step, steps, metadata.get("guard", {}))
