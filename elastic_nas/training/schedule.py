"""The learning rate of each step."""

import math

from elastic_nas.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then the config's schedule, never below `final_rate` of the peak.

    The constant ending keeps small children learning (BigNAS, sec. 3.3).

    Args:
        config: `schedule` and what belongs to it.
        step: Number of the step, from 0.
        steps: Of the whole training.
        steps_per_epoch: What the exponential schedule's epochs are.
    """
    warmup = config.warmup * steps
    if step < warmup:
        return config.learning_rate * (step + 1) / (math.ceil(warmup) + 1)
    share = (step - warmup) / max(steps - warmup, 1)
    match config.schedule:
        case "cosine":
            factor = (1 + math.cos(math.pi * share)) / 2
        case "exponential":
            factor = config.decay_rate ** (step // (config.decay_epochs * steps_per_epoch))
        case "constant":
            factor = 1.0
    return config.learning_rate * max(config.final_rate, factor)
