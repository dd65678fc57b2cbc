"""Guards: a training that goes wrong is noticed, and goes back or stops."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from elastic_nas.config import GuardConfig
from elastic_nas.training.header import GuardState

MEMORY = 0.95
"""Decay of the running means at each look: they span about 20 looks."""
GRACE = 20
"""Looks from the start in which nothing but NaN counts: the first means are of few batches."""
SINKING, LONGEST = 0.9, 100
"""Of the loss at chance: from there on, after it was learned, nothing is stored to go back to; for
so many looks at most, as a training may stay there."""
PATIENCE = 3
"""Looks in a row that a spike lasts: a single odd batch goes by, broken weights stay."""
FLOOR = 0.25
"""Of the loss at chance: smaller means count as this, as a few images make large factors of them
(and divergences fall to 0)."""
LEARNED, FORGOTTEN = 0.8, 0.97
"""Of the loss at chance: below the first a network knows something, above the second nothing."""


@dataclass
class _State:
    """All that the guard's decisions depend on; plain values.

    Attributes:
        rate: What the learning rate is multiplied by.
        rolled_back: How often the training went back.
        means: Running mean of the losses of each kind of child.
        looks: How many losses the means have seen.
        spikes: Looks in a row, up to the last one, in which a loss was a spike.
        sinking: Looks in a row in which the network was nearly back at chance.
        learned: Whether the largest child was clearly better than chance before.
    """

    rate: float = 1.0
    rolled_back: int = 0
    means: dict[str, float] = field(default_factory=dict)
    looks: int = 0
    spikes: int = 0
    sinking: int = 0
    learned: bool = False


class Guard:
    """Watches the losses of each step that is looked at.

    What it decides depends on these losses alone, so that a resumed training decides as one that
    was never interrupted.

    Args:
        config: The run file's guard section.
        classes: Of the network: chance is a loss of their logarithm.
    """

    def __init__(self, config: GuardConfig, classes: int) -> None:
        self._config, self._chance, self._at = config, math.log(classes), _State()

    @property
    def rate(self) -> float:
        """What the learning rate is multiplied by: 1 until a roll-back."""
        return self._at.rate

    @property
    def rolled_back(self) -> int:
        """How often the training went back."""
        return self._at.rolled_back

    @property
    def may_roll_back(self) -> bool:
        """Whether trouble leads back to a checkpoint, or else to an end."""
        return self._config.action == "roll_back" and self.rolled_back < self._config.most

    @property
    def calm(self) -> bool:
        """Whether nothing is suspected; only such weights are good enough to go back to."""
        return self._at.spikes == 0 and not 0 < self._at.sinking <= LONGEST

    def trouble(self, losses: Mapping[str, float], norm: float) -> str | None:
        """What is wrong with a step, or None.

        Args:
            losses: Mean of each kind of child, the largest first.
            norm: Of the summed gradient.
        """
        if not all(map(math.isfinite, (*losses.values(), norm))):
            told = ", ".join(f"{kind} {loss:.3g}" for kind, loss in losses.items())
            return f"NaN or infinity (loss {told}; gradient norm {norm:.3g})"
        return self._spike(losses) or self._collapse()

    def _spike(self, losses: Mapping[str, float]) -> str | None:
        at = self._at
        high = [kind for kind, loss in losses.items() if loss > self._limit(kind)]
        if not high:
            weight = max(1 - MEMORY, 1 / (at.looks + 1))
            before = {**losses, **at.means}
            at.means = {k: before[k] + weight * (loss - before[k]) for k, loss in losses.items()}
            at.looks, at.spikes = at.looks + 1, 0
            return None
        at.spikes += 1
        if at.spikes < PATIENCE:
            return None
        kind = high[0]
        return (
            f"the loss of the {kind} child jumped from {at.means[kind]:.3g} to {losses[kind]:.3g}"
        )

    def _limit(self, kind: str) -> float:
        """Loss of a kind of child from which it is a spike."""
        if self._at.looks < GRACE or kind not in self._at.means:
            return math.inf
        usual = max(self._at.means[kind], FLOOR * self._chance)
        return self._config.spike * min(usual, self._chance)  # worse than guessing is never usual

    def _collapse(self) -> str | None:
        at = self._at
        if at.looks < GRACE:
            return None
        mean = next(iter(at.means.values()))
        at.learned = at.learned or mean < LEARNED * self._chance
        at.sinking = at.sinking + 1 if at.learned and mean > SINKING * self._chance else 0
        if not at.learned or mean < FORGOTTEN * self._chance:
            return None
        return f"the network fell back to guessing (loss {mean:.3g}, chance {self._chance:.3g})"

    @property
    def state(self) -> dict[str, Any]:
        """Plain values to store in a checkpoint."""
        return asdict(self._at)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        self._at = _State(**GuardState.model_validate(state).model_dump())

    def roll_back(self, state: dict[str, Any]) -> None:
        """Go on from a stored state with a lower rate than ever before, also than there."""
        rate, rolled_back = self.rate, self.rolled_back
        self.restore(state)
        self._at.rate, self._at.rolled_back = rate * self._config.rate_factor, rolled_back + 1

    def way_out(self, learning_rate: float) -> str:
        """What a person does where the guard ends the training; the rate is the run file's."""
        lower = f"--set train.learning_rate={learning_rate * self.rate / 3:.2g}"
        if not self.rolled_back:
            return (
                "The last good checkpoint is kept. Go on from there with a lower rate: --resume "
                f"{lower}, or let it go back by itself: --resume --set train.guard.action=roll_back"
            )
        return (
            f"It went back {self.rolled_back} times, in the end with {self.rate:.3g} of the "
            "learning rate; the last good checkpoint is kept. Look at the log, then train anew "
            f"with another --out and {lower}, or let it go back more often: --resume --set "
            f"train.guard.most={self.rolled_back + 3}"
        )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether there is no NaN and no infinity; waits for the device."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
