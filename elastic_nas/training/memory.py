"""A step that does not fit into memory: how it has to be cut so that it does."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from elastic_nas.errors import ConfigError
from elastic_nas.training.sampling import Lesson
from elastic_nas.training.step import Teaching, sandwich_step
from elastic_nas.training.trainer import Trainer

SPARE = 1.25
"""Memory taken of what is known to be needed: gradients on their way, workspaces, gaps."""
PROBE = 2
"""Images that the need of one is measured with."""
GIB = 2**30

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch words it where it raises no error class of its own."""


@contextmanager
def explained(trainer: Trainer, x_NCHW: Tensor) -> Iterator[None]:
    """Turn a lack of memory in a step into an error that says what fits.

    Args:
        trainer: Whose step it is.
        x_NCHW: The images that this process takes in the step.

    Raises:
        ConfigError: Memory ran out.
    """
    try:
        yield
        return
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _tells_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold what the step had computed
    trainer.optimizer.zero_grad(set_to_none=True)
    raise ConfigError(_advice(trainer, x_NCHW)) from None


def _tells_of_memory(error: RuntimeError) -> bool:
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(sign in words for sign in _SIGNS)


def _advice(trainer: Trainer, x_NCHW: Tensor) -> str:
    config, images = trainer.config, len(x_NCHW)
    parts = config.accumulate
    had = f"a step of {images} images in {parts} part{'s' * (parts > 1)} needs more memory than"
    if trainer.device.type != "cuda" or (trainer.config.sync_norm and not trainer.ranks.alone):
        fitting, figures = images // parts // 2, f"{had} this machine has"
    else:
        try:
            total, fixed, each = _figures(trainer, x_NCHW)
        except torch.OutOfMemoryError:
            return f"{had} the GPU has. {_way_out(config.batch_size, 1, 1)}"
        most = int((total / SPARE - fixed) / each)
        fitting = min(most, images // parts - 1)  # what was tried did not fit
        figures = (
            f"{had} the {total / GIB:.1f} GiB of the GPU: weights and optimiser take "
            f"{fixed / GIB:.2g} GiB, each image {each / GIB:.2g} GiB"
        )
    return f"{figures}. {_way_out(config.batch_size, config.batch_size // images, fitting)}"


def _way_out(batch: int, processes: int, fitting: int) -> str:
    """What to set so that no part has more than `fitting` images."""
    images = batch // processes
    cuts = [n for n in range(2, images // 2 + 1) if images % n == 0 and images // n <= fitting]
    if fitting < 2:
        return "Not even 2 images fit: choose a smaller space or resolution, or a larger device."
    smaller = f"a smaller batch: --set train.batch_size={fitting * processes}"
    if not cuts:
        return f"Use {smaller} --set train.accumulate=1."
    return (
        f"Go on with the same batch in smaller parts: --resume --set train.accumulate={cuts[0]} "
        f"(batch norm then sees {images // cuts[0]} images at once), or with {smaller} "
        "--set train.accumulate=1."
    )


def _figures(trainer: Trainer, x_NCHW: Tensor) -> tuple[int, int, float]:
    """Bytes of the device that this process can have, that a step takes anyway, and an image's."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(trainer.device)
    total = free + torch.cuda.memory_allocated(trainer.device)
    return total, fixed_bytes(trainer), saved_bytes(trainer, x_NCHW[:PROBE]) / PROBE


def fixed_bytes(trainer: Trainer) -> int:
    """Bytes of weights, gradients, optimiser state and average, whatever the batch."""
    states = 1 if isinstance(trainer.optimizer, torch.optim.SGD) else 2
    copies = 2 + states + (trainer.average is not None)
    return copies * sum(p.numel() * p.element_size() for p in trainer.supernet.parameters())


def saved_bytes(trainer: Trainer, x_NCHW: Tensor) -> int:
    """Bytes that the largest child keeps of a batch for its backward pass, beside the weights.

    Counted by running it, with the precision of the training; the gradients are spoiled.
    """
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in trainer.supernet.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    network = trainer.network
    x = x_NCHW.to(trainer.device, torch.float32)
    labels = torch.zeros(len(x), dtype=torch.int64, device=trainer.device)
    lessons = [Lesson(network.largest, from_labels=True)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        sandwich_step(
            trainer.supernet, Teaching(network.task), x, labels, lessons, trainer._autocast()
        )
    return sum(kept.values())
