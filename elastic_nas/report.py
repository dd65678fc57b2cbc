"""The picture that a person looks at: accuracy against latency."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_nas.files import write_atomic
from elastic_nas.palette import BLUE, GREEN, GREY, GRID, INK, ORANGE
from elastic_nas.search.front import pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 4.0
"""From this ratio of the latencies on, the axis is logarithmic."""

MANY = 5000
"""From so many children on, the SVG holds their dots as one image: it stays a small file."""


@dataclass(frozen=True)
class Point:
    """One evaluated child: latency bound in milliseconds, search-validation accuracy 0 to 1."""

    bound_ms: float
    accuracy: float


@dataclass(frozen=True)
class Chosen:
    """A child that was chosen, with all that is known of it.

    Attributes:
        label: What it is called in the legend.
        bound_ms: Latency bound, milliseconds.
        predicted_ms: Predicted latency, milliseconds.
        accuracy: On the search-validation split, 0 to 1.
        measured_ms: Measured latency, milliseconds, if it was measured.
        test: Accuracy on the test split with its 95 % interval, (value, low, high), if known.
    """

    label: str
    bound_ms: float
    predicted_ms: float
    accuracy: float
    measured_ms: float | None = None
    test: tuple[float, float, float] | None = None


def plot_front(
    path_stem: Path,
    *,
    device: str,
    n: int,
    points: Sequence[Point],
    chosen: Sequence[Chosen] = (),
    budget_ms: float | None = None,
    caption: str = "",
) -> list[Path]:
    """Draw all evaluated children, the front and the chosen ones; write a PNG and an SVG.

    Args:
        path_stem: Path of both files without ``.png`` and ``.svg``.
        device: Name of the hardware profile.
        n: Number of images behind each accuracy.
        points: All evaluated children, at least one; the front is found among them.
        chosen: Children to point out.
        budget_ms: The latency budget, milliseconds, if there is one.
        caption: What the images are, in a line or two below the title.

    Returns:
        The two paths.

    Raises:
        RunFolderError: A file cannot be written.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache
    import matplotlib as mpl

    # A fixed salt and no date: the same front gives the same bytes. Names are not formulas.
    with mpl.rc_context({"svg.hashsalt": "elastic-nas", "text.parse_math": False}):
        figure = _figure(device, n, points, chosen, budget_ms)
        if caption:
            _explain(figure, caption)
        paths = [path_stem.with_name(f"{path_stem.name}.{kind}") for kind in ("png", "svg")]
        for path in paths:
            write_atomic(path, _rendered(figure, path.suffix[1:]))
    return paths


def _rendered(figure: "Figure", kind: str) -> bytes:
    buffer = BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _figure(
    device: str,
    n: int,
    points: Sequence[Point],
    chosen: Sequence[Chosen],
    budget_ms: float | None,
) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_children(axes, points)
    for child in chosen:
        _draw_chosen(axes, child)
    if budget_ms is not None:
        axes.axvline(budget_ms, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        text = f"budget {budget_ms:.4g} ms "
        where = axes.get_xaxis_transform()
        axes.text(budget_ms, 0.015, text, transform=where, ha="right", color=INK, fontsize=9)
    _label(axes, device, n, [point.bound_ms for point in points])
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    return figure


def _explain(figure: "Figure", caption: str) -> None:
    """Put a caption between the title and the picture, where it is in nobody's way."""
    (axes,) = figure.axes
    lines = caption.count("\n") + 1
    axes.set_title(axes.get_title(loc="left"), loc="left", color=INK, pad=12 + 13 * lines)
    axes.annotate(
        caption,
        (0, 1),
        xytext=(0, 9),
        xycoords="axes fraction",
        textcoords="offset points",
        va="bottom",
        color=INK,
        alpha=0.75,
        fontsize=8.5,
        linespacing=1.3,
    )


def _draw_children(axes: "Axes", points: Sequence[Point]) -> None:
    best = pareto_front([p.accuracy for p in points], [p.bound_ms for p in points])
    front = [points[i] for i in best]
    axes.plot(
        [point.bound_ms for point in points],
        [100 * point.accuracy for point in points],
        linestyle="none",
        marker="o",
        markersize=4,
        markeredgewidth=0,
        color=GREY,
        alpha=0.45,
        rasterized=len(points) > MANY,
        label=f"evaluated children ({len(points)})",
    )
    # A step: until the next child of the front fits, the one before is the best there is.
    end_ms = max(point.bound_ms for point in points)
    axes.plot(
        [*(point.bound_ms for point in front), end_ms],
        [*(100 * point.accuracy for point in front), 100 * front[-1].accuracy],
        drawstyle="steps-post",
        color=BLUE,
        linewidth=1.8,
        zorder=3,
    )
    axes.plot(
        [point.bound_ms for point in front],
        [100 * point.accuracy for point in front],
        marker="o",
        markersize=5.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        color=BLUE,
        linestyle="none",
        zorder=4,
        label=f"Pareto front ({len(front)})",
    )


def _draw_chosen(axes: "Axes", child: Chosen) -> None:
    """A star at the bound with a bar back to the prediction; a diamond where it was measured."""
    percent = 100 * child.accuracy
    axes.plot([child.predicted_ms, child.bound_ms], [percent] * 2, color=ORANGE, lw=1.6, zorder=5)
    axes.plot([child.predicted_ms], [percent], marker="|", markersize=10, color=ORANGE, zorder=5)
    star: dict[str, Any] = {"marker": "*", "markersize": 15, "markeredgecolor": "white"}
    label = f"{child.label}: predicted to bound"
    axes.plot([child.bound_ms], [percent], color=ORANGE, ls="none", zorder=6, label=label, **star)
    if child.measured_ms is None:
        return
    value, low, high = child.test or (child.accuracy,) * 3
    axes.errorbar(
        [child.measured_ms],
        [100 * value],
        yerr=[[100 * (value - low)], [100 * (high - value)]],
        marker="D",
        markersize=6.5,
        markeredgecolor="white",
        color=GREEN,
        linestyle="none",
        capsize=4 if child.test else 0,
        zorder=7,
        label=f"{child.label}: measured" + (", on test with 95 % interval" if child.test else ""),
    )


def _label(axes: "Axes", device: str, n: int, latencies_ms: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if latencies_ms and max(latencies_ms) > WIDE * min(latencies_ms):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.set_xlabel("latency at batch 1 (ms); children stand at their bound")
    axes.set_ylabel("accuracy on search-validation (%)")
    axes.set_title(
        f"Children on {device}, each judged on {n:,} images", loc="left", color=INK, pad=12
    )
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
