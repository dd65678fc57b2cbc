"""Where a training computes."""

import torch

from elastic_nas.errors import ConfigError


def device_of(name: str) -> torch.device:
    """``cpu``, ``cuda``, or with ``auto`` a GPU if there is one.

    Raises:
        ConfigError: There is no CUDA GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA GPU here; set train.device=auto or cpu.")
    return torch.device(name)


def set_threads(threads: int | None) -> None:
    """Torch's threads on the CPU; None leaves torch's own choice."""
    if threads is not None:
        torch.set_num_threads(threads)
