"""What the processes of one training must agree on before they begin."""

from dataclasses import replace

import torch
from torch import Tensor

from elastic_nas.config import TrainConfig
from elastic_nas.data.dataset import Dataset
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.errors import ConfigError, DataError
from elastic_nas.progress import say
from elastic_nas.training.distributed import Ranks


def check_batch(config: TrainConfig, ranks: Ranks) -> None:
    """Refuse a batch that cannot be cut into equal parts for all processes.

    Raises:
        ConfigError: It names the nearest sizes that can.
    """
    batch, parts = config.batch_size, ranks.size * config.accumulate
    if batch % parts == 0 and batch >= 2 * parts:
        return
    lower = batch // parts * parts
    sizes = [size for size in (lower, lower + parts) if size >= 2 * parts] or [2 * parts]
    among = "" if ranks.alone else f" ({ranks.size} processes x {config.accumulate})"
    raise ConfigError(
        f"a batch of {batch} images cannot be cut into {parts} equal parts of 2 images or "
        f"more{among}; the nearest that can: train.batch_size={' or '.join(map(str, sizes))}. Or "
        "change train.accumulate."
    )


def check_labels(ranks: Ranks, labels: tuple[str, ...]) -> None:
    """Refuse processes that see other classes.

    Raises:
        DataError: In all of them, told once.
    """
    everyone = ranks.values(labels)
    others = [rank for rank, other in enumerate(everyone) if tuple(other) != tuple(everyone[0])]
    with ranks.together():
        if others:
            raise DataError(
                f"processes 0 and {others[0]} of this training see images of other classes; give "
                "all of them the same data."
            )


def normalised_alike(ranks: Ranks, data: Dataset) -> Dataset:
    """The data set with the first process's preprocessing, should statistics differ."""
    described = ranks.told(data.preprocess.describe)
    return data if ranks.alone else replace(data, preprocess=Preprocess.from_description(described))


def least_steps(ranks: Ranks, steps: int) -> int:
    """Steps an epoch: those of the process with the fewest images; says so where they differ."""
    every: list[int] = ranks.values(steps)
    if min(every) < max(every):
        say(
            f"the processes have images for {min(every)} to {max(every)} steps an epoch; all do "
            f"{min(every)}."
        )
    return min(every)


def share_optimizer(ranks: Ranks, optimizer: torch.optim.Optimizer) -> None:
    """Copy the first process's optimiser state into those of the others, which need not have any.

    Args:
        ranks: The processes.
        optimizer: Of the same parameters everywhere.
    """
    if ranks.alone:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    own = [optimizer.state.get(p, {}) for p in parameters]
    held = [sorted(k for k, v in entry.items() if isinstance(v, Tensor)) for entry in own]
    keys = ranks.values(held)[0]
    if not ranks.first:
        state = {
            number: {k: torch.tensor(0.0) if k == "step" else torch.zeros_like(p) for k in names}
            for number, (p, names) in enumerate(zip(parameters, keys, strict=True))
            if names
        }
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    pairs = zip(parameters, keys, strict=True)
    ranks.share_([optimizer.state[p][key] for p, names in pairs for key in names])
