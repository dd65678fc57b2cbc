"""The picture of a training: losses, accuracies, learning rate and gradient norm over the steps."""

import logging
import math
import time
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from elastic_nas.files import write_atomic
from elastic_nas.palette import BLUE, GREEN, GREY, GRID, INK, ORANGE, PURPLE, RED
from elastic_nas.progress import say
from elastic_nas.training.journal import FILE_NAME, ROLLED_BACK, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = "training.png"
COLOURS = {"largest": BLUE, "random": GREEN, "smallest": ORANGE}
MOST_SHARE = 0.01
"""Of the training's time that drawing may take; the last picture is drawn in any case."""
SMOOTHING = 30
"""A point of a smooth line is the mean of about one so-manieth of all rows."""
CLOSEST = 0.06
"""Least distance of two labels at the right edge, as a share of its height."""
LEAST_NORM = 1e-9
"""Gradient norms below, such as 0, are drawn as this: the scale is logarithmic."""

Floats = NDArray[np.float64]


class Curves:
    """Draws ``training.png`` in the run folder, not more often than it is worth.

    Args:
        folder: The run folder, with the log.
        steps: Of the whole training.
        classes: Of the network: chance is a loss of their logarithm.
    """

    def __init__(self, folder: Path, steps: int, classes: int) -> None:
        self._folder, self._steps, self._classes = folder, steps, classes
        self._next = 0.0

    def draw(self, *, at_once: bool) -> None:
        """Draw what the log holds; a failure is said and costs nothing but the picture.

        Args:
            at_once: Even if the last picture is young.
        """
        began = time.monotonic()
        if not at_once and began < self._next:
            return
        try:
            draw_curves(self._folder, self._steps, self._classes)
        except Exception as error:  # a training must not end for want of a picture
            say(f"note: the picture of the training cannot be drawn ({error}); it goes on.")
        now = time.monotonic()
        self._next = now + (now - began) / MOST_SHARE


def draw_curves(folder: Path, steps: int, classes: int) -> None:
    """Write ``training.png``, atomically; nothing before the log holds two rows of losses.

    Raises:
        RunFolderError: The file cannot be written.
    """
    rows = read_log(folder / FILE_NAME)
    if sum("gradient_norm" in row for row in rows) < 2:
        return
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False, "font.size": 10, "axes.edgecolor": GREY}):
        buffer = BytesIO()
        _figure(rows, steps, classes).savefig(buffer, dpi=120, metadata={"Software": None})
    write_atomic(folder / PICTURE, buffer.getvalue())


def _figure(rows: Sequence[dict[str, Any]], steps: int, classes: int) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 7), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharex=True, height_ratios=(2.2, 1), width_ratios=(1.2, 1))
    trained = [row for row in rows if "gradient_norm" in row]
    judged = [row for row in rows if "largest_accuracy" in row]
    for axes in panels.flat:
        _dress(axes)
    _draw_losses(panels[0, 0], trained, classes)
    _draw_accuracies(panels[0, 1], judged)
    _draw_gap(panels[1, 0], trained)
    _draw_rate(panels[1, 1], trained)
    for axes in panels.flat:
        _mark_roll_backs(axes, rows, named=axes is panels[0, 0])
    last = trained[-1]["step"]
    panels[0, 0].set_xlim(0, last)
    for axes in panels[1]:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("step", color=INK)
    figure.suptitle(
        f"Training: step {last:,} of {steps:,}", x=0.008, ha="left", color=INK, fontsize=15
    )
    return figure


def _dress(axes: "Axes") -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _title(axes: "Axes", text: str, loc: Literal["left", "right"] = "left", **style: Any) -> None:
    axes.set_title(text, loc=loc, fontsize=11.5, pad=8, **{"color": INK, **style})


def _draw_losses(axes: "Axes", rows: Sequence[dict[str, Any]], classes: int) -> None:
    """Each kind's loss: every row faintly, their running mean boldly and named at its end."""
    kinds = [kind for kind in COLOURS if kind in rows[-1]]
    steps = _column(rows, "step")
    smooth = {kind: smoothed(_column(rows, kind)) for kind in kinds}
    for kind in kinds:
        axes.plot(steps, _column(rows, kind), color=COLOURS[kind], linewidth=0.8, alpha=0.2)
        axes.plot(steps, smooth[kind], color=COLOURS[kind], linewidth=2.2, zorder=3)
    everything = np.concatenate([*smooth.values(), *(_column(rows, kind) for kind in kinds)])
    low, high = np.quantile(everything, (0.005, 0.995))  # a spike must not flatten the rest
    chance = math.log(classes)
    margin = 0.05 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)
    if low < chance < high:
        axes.axhline(chance, color=GREY, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
        axes.annotate("guessing", (1, chance), (-4, 3), xycoords=axes.get_yaxis_transform(),
                      textcoords="offset points", ha="right", color=GREY)  # fmt: skip
    _title(axes, "Loss of each kind of child")
    _name_ends(axes, [(smooth[k][-1], f"{k} {smooth[k][-1]:.2f}", COLOURS[k]) for k in kinds])


def _draw_accuracies(axes: "Axes", rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        _title(axes, "Search-validation accuracy: not looked at", color=GREY)
        axes.set_yticks([])
        return
    steps, ends = _column(rows, "step"), []
    for kind in ("largest", "smallest"):
        percent, colour = 100 * _column(rows, f"{kind}_accuracy"), COLOURS[kind]
        axes.plot(steps, percent, color=colour, linewidth=2.2, marker="o", markersize=5.5,
                  markeredgecolor="white", clip_on=False, zorder=3)  # fmt: skip
        ends.append((percent[-1], f"{kind} {percent[-1]:.1f} %", colour))
    axes.yaxis.set_major_formatter("{x:g} %")
    images = f" on {rows[-1]['images']:,} images" if "images" in rows[-1] else ""
    _title(axes, f"Search-validation accuracy{images}")
    _name_ends(axes, ends)


def _draw_gap(axes: "Axes", rows: Sequence[dict[str, Any]]) -> None:
    """What the smallest child's loss is above the largest's."""
    _title(axes, "Sandwich gap: loss of smallest \N{MINUS SIGN} largest")
    if not {"largest", "smallest"} <= rows[-1].keys():
        return
    gap, steps = _column(rows, "smallest") - _column(rows, "largest"), _column(rows, "step")
    smooth = smoothed(gap)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.plot(steps, gap, color=INK, linewidth=0.8, alpha=0.25)
    axes.plot(steps, smooth, color=INK, linewidth=1.8)
    _name_ends(axes, [(smooth[-1], f"{smooth[-1]:+.2f}", INK)])


def _draw_rate(axes: "Axes", rows: Sequence[dict[str, Any]]) -> None:
    """Learning rate against the left scale, gradient norm against the right, logarithmic one."""
    from matplotlib.ticker import LogLocator, NullLocator

    steps, norm = _column(rows, "step"), np.maximum(_column(rows, "gradient_norm"), LEAST_NORM)
    axes.plot(steps, _column(rows, "learning_rate"), color=PURPLE, linewidth=1.8, zorder=3)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="y", colors=PURPLE)
    other = axes.twinx()
    other.set_frame_on(False)
    other.set_yscale("log")
    other.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    other.yaxis.set_major_formatter("{x:g}")
    other.yaxis.set_minor_locator(NullLocator())
    other.plot(steps, norm, color=GREY, linewidth=0.8, alpha=0.35)
    other.plot(steps, smoothed(norm), color=GREY, linewidth=1.8)
    other.tick_params(axis="y", colors=GREY, length=0)
    _title(axes, "Learning rate", color=PURPLE)
    _title(axes, "gradient norm (log)", "right", color=GREY)


def _mark_roll_backs(axes: "Axes", rows: Sequence[dict[str, Any]], *, named: bool) -> None:
    for row in rows:
        if row.get("event") == ROLLED_BACK:
            axes.axvline(row["step"], color=RED, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
            if named:
                text = f" rolled back,\n rate \N{MULTIPLICATION SIGN} {row['rate_factor']:.3g}"
                axes.annotate(text, (row["step"], 1), xycoords=axes.get_xaxis_transform(),
                              va="top", color=RED, fontsize=9)  # fmt: skip


def _name_ends(axes: "Axes", ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each line's name beside its end (value, text, colour), apart from each other."""
    low, high = axes.get_ylim()
    shares = [min(1.0, max(0.0, (value - low) / (high - low))) for value, _, _ in ends]
    for place, (_, text, colour) in zip(apart(shares, CLOSEST), ends, strict=True):
        axes.annotate(text, (1, place), (6, 0), xycoords="axes fraction", va="center",
                      textcoords="offset points", color=colour, fontsize=10.5)  # fmt: skip


def apart(places: Sequence[float], least: float) -> list[float]:
    """The places, moved up where they lie closer than `least`, in the same order."""
    moved = list(places)
    for before, index in pairwise(sorted(range(len(places)), key=places.__getitem__)):
        moved[index] = max(moved[index], moved[before] + least)
    return moved


def smoothed(values_N: Floats) -> Floats:
    """Centred running mean (N,); shorter spans at both ends."""
    width = 2 * (len(values_N) // (2 * SMOOTHING)) + 1
    kernel = np.ones(width)
    counts = np.convolve(np.ones(len(values_N)), kernel, mode="same")
    return np.convolve(values_N, kernel, mode="same") / counts


def _column(rows: Sequence[dict[str, Any]], key: str) -> Floats:
    return np.array([row[key] for row in rows], dtype=np.float64)
