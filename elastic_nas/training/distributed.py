"""The processes that train one supernet together: what they tell each other, and how they end.

No wrapper stands around the network: a step sums the gradients of its children, and one collective
averages them over the processes.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.training.device import device_of

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: longer than reading a large data set may differ."""

_SIGNS_OF_LOSS = ("by peer", "broken pipe", "connection was", "remote process", "socket closed")
"""How gloo and NCCL word it that another process has ended."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train together, and its ways to talk to the others.

    Alone, a process is the first of one: nothing is sent, nothing is copied.

    Attributes:
        rank: Which one this is, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @contextmanager
    def together(self) -> Iterator[None]:
        """All processes run the block; an error in any of them ends all, told by one of them.

        The block must not talk to the others.

        Raises:
            SystemExit: Another process failed, and tells why.
        """
        if self.alone:
            yield
            return
        try:
            yield
        except Exception:
            if self._failed(True)[0] == self.rank:
                raise
            raise SystemExit(1) from None
        if self._failed(False):
            raise SystemExit(1)

    def _failed(self, here: bool) -> list[int]:
        """The ranks of those that failed."""
        return [rank for rank, failed in enumerate(self.values(here)) if failed]

    def told(self, make: Callable[[], T]) -> T:
        """The plain value that the first process makes, in all of them."""
        with self.together():
            value = make() if self.first else None
        found: T = self.values(value)[0]
        return found

    def sent(self, make: Callable[[], bytes]) -> bytes:
        """The bytes that the first process makes, in all of them: fit for many, unlike `told`."""
        with self.together():
            content = make() if self.first else b""
        size: int = self.values(len(content))[0]
        if self.alone or not size:
            return content
        bytes_N = torch.zeros(size, dtype=torch.uint8)
        if self.first:
            bytes_N = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        self.share_([bytes_N])
        return bytes_N.numpy().tobytes()

    def values(self, value: Any) -> list[Any]:
        """The plain values of all processes, in the order of their ranks."""
        if self.alone:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        return [json.loads(bytes(found.tolist())) for found in self.gather(text)]

    def gather(self, vector_N: Tensor) -> list[Tensor]:
        """The vectors of all processes on the CPU, (N of that rank,) each, in order of ranks."""
        if self.alone:
            return [vector_N]
        lengths = self.stack(torch.tensor([len(vector_N)])).flatten().tolist()
        padded_M = torch.zeros(max(lengths), dtype=vector_N.dtype)
        padded_M[: len(vector_N)] = vector_N
        rows = self.stack(padded_M)
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]

    def stack(self, vector_N: Tensor) -> Tensor:
        """The vectors of all processes, all of one length, on their device: (ranks, N)."""
        if self.alone:
            return vector_N[None]
        rows = vector_N.new_empty(self.size, len(vector_N))
        with _others_may_end():
            dist.all_gather(list(rows), vector_N.contiguous())
        return rows

    def sum_(self, tensor: Tensor) -> None:
        """Add up a tensor over all processes, in place."""
        if not self.alone:
            with _others_may_end():
                dist.all_reduce(tensor)

    def share_(self, tensors: Sequence[Tensor]) -> None:
        """Copy the first process's tensors into those of the others, in place."""
        if not self.alone:
            with torch.no_grad(), _others_may_end():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def average(self, parameters: Sequence[nn.Parameter], figures_N: Tensor) -> Tensor:
        """Average all gradients over the processes, in place, in one collective.

        A parameter without a gradient counts as zeros and is left without one: all processes train
        the same children, so that it has none anywhere.

        Args:
            parameters: Of one type and device, in the same order everywhere.
            figures_N: Sent along.

        Returns:
            The averages of the figures, on their device.
        """
        if self.alone:
            return figures_N
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        parts = [figures_N.to(parameters[0].dtype), *(g.reshape(-1) for g in gradients)]
        flat = torch.cat(parts)
        self.sum_(flat)
        figures, *averages = torch.split(flat.div_(self.size), list(map(len, parts)))
        for parameter, average in zip(parameters, averages, strict=True):
            if parameter.grad is not None:
                parameter.grad = average.view_as(parameter)
        return figures


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes that torchrun started for one training; one process without it.

    Args:
        device: As in the run file; each process of a machine takes a GPU of its own.

    Raises:
        ConfigError: The processes cannot find each other, or a machine has fewer GPUs than
            processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    ranks = Ranks(int(os.environ.get("RANK", "0")), size)
    cuda = torch.cuda.is_available() and device != "cpu"
    try:
        _meet("cpu:gloo,cuda:nccl" if cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the {size} processes of this training cannot find each other: {error}. Start them "
            "with torchrun, see docs/distributed.md."
        ) from error
    try:
        with ranks.together():
            _take_gpu(device)
        yield ranks
    finally:
        dist.destroy_process_group()


def _meet(backend: str) -> None:
    """Join the others; each start of torchrun by a name of its own.

    It keeps one store for all starts, in which a process might find the address of a lost one.
    """
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    own = PrefixStore(f"start {start}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=TIMEOUT)


def _take_gpu(device: str) -> None:
    if device_of(device).type != "cuda":
        return
    local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= here:
        raise ConfigError(
            f"this machine has {here} GPUs for {os.environ.get('LOCAL_WORLD_SIZE', local + 1)} "
            f"processes; start at most one a GPU: torchrun --nproc-per-node {here}."
        )
    torch.cuda.set_device(local)


@contextmanager
def _others_may_end() -> Iterator[None]:
    """End without a word where another process has ended: it tells why, or torchrun does."""
    try:
        yield
    except RuntimeError as error:
        words = str(error).lower()
        if "timed out" in words or "timeout" in words:
            raise ElasticNasError(
                f"another process of this training did not answer within {TIMEOUT}; see whether "
                "one hangs or is far slower than the rest, then go on with --resume."
            ) from error
        if any(sign in words for sign in _SIGNS_OF_LOSS):
            raise SystemExit(1) from None
        raise
