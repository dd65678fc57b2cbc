"""Guards: a training that goes wrong is noticed, and goes back or stops."""

import math
from collections.abc import Sequence
from typing import Any

from elastic_nas.config import GuardConfig


class Guard:
    """Watches the losses of each step.

    Attributes:
        rate: What the learning rate is multiplied by, 1 until a roll-back.

    Args:
        config: The run file's guard section.
        classes: Of the network: chance is a loss of their logarithm.
    """

    def __init__(self, config: GuardConfig, classes: int) -> None:
        self._config, self._classes = config, classes
        self.rate = 1.0

    def trouble(self, losses: Sequence[float], norm: float) -> str | None:
        """What is wrong with a step, or None.

        Args:
            losses: Of each child.
            norm: Of the summed gradient.
        """
        if not all(map(math.isfinite, (*losses, norm))):
            return f"the loss is {losses[0]}, the gradient's norm {norm}"
        return None

    @property
    def state(self) -> dict[str, Any]:
        """Plain values to store in a checkpoint."""
        return {"rate": self.rate}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        self.rate = state.get("rate", 1.0)
