"""A machine's speed, told by nine anchor children: what drifts is common to all models.

A shared, warm or throttled machine changes its speed by several per cent within minutes, and every
model with it: see `docs/lab_notes.md`. Figures that were taken minutes or days apart are therefore
brought to one speed by the anchors that were timed between them, and `profile --check` times the
anchors alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from elastic_nas.errors import MeasurementRefused, SpeedMoved
from elastic_nas.measure import Timing

LEAST_ANCHORS = 3
MAX_MOVE = 0.15
"""How far the speed may have moved for new figures to be brought to that of the old ones."""


@dataclass(frozen=True)
class Speed:
    """How long things take now, in multiples of what they took then.

    Attributes:
        factor: The mean over the anchors in logarithms, without the least and the largest.
        low: The least of the anchors.
        high: The largest.
        n: Number of anchors.
    """

    factor: float
    low: float
    high: float
    n: int


def speed_of(now_ms: Mapping[str, float], then_ms: Mapping[str, float], anchors: int) -> Speed:
    """The speed now against that of then, by the anchors that both know.

    Args:
        now_ms: What anchors take now, by name.
        then_ms: What they took then.
        anchors: How many there are; a space of fewer than three children has fewer.

    Raises:
        MeasurementRefused: Fewer than three, or than there are, were timed both times.
    """
    ratios = [now_ms[name] / then_ms[name] for name in then_ms if name in now_ms]
    if len(ratios) < min(LEAST_ANCHORS, anchors) or not ratios:
        raise MeasurementRefused(
            f"only {len(ratios)} of the {anchors} anchor children could be timed undisturbed, "
            "so the machine's speed is unknown. Close other programs, or try later."
        )
    ratios.sort()
    trimmed = ratios[1:-1] if len(ratios) > LEAST_ANCHORS else ratios
    factor = float(np.exp(np.log(trimmed).mean()))
    return Speed(factor, ratios[0], ratios[-1], len(ratios))


def check_move(speed: Speed) -> None:
    """Refuse to bring figures to another speed that is too far away.

    Raises:
        SpeedMoved: It moved by more than `MAX_MOVE`.
    """
    if abs(speed.factor - 1) > MAX_MOVE:
        raise SpeedMoved(
            f"what was measured before now takes {speed.factor:.2f} times as long, so new figures "
            "cannot stand beside the old ones.\nTry again when the machine is as quiet, cool and "
            "unthrottled as then, or remove the table to measure afresh."
        )


def at_speed(timing: Timing, factor: float) -> Timing:
    """The timing as it would have been at the speed of then: all milliseconds over `factor`."""
    return replace(
        timing,
        **{
            name: getattr(timing, name) / factor
            for name in ("ms", "p10", "p50", "p90", "contended_p90")
        },
        round_ms=[ms / factor for ms in timing.round_ms],
    )
