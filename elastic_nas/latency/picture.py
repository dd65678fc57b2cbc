"""Predicted against measured, one glance: how far from the line, and what keeps the bound."""

import logging
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elastic_nas.files import write_atomic
from elastic_nas.latency.fitting import features_of, rows_of
from elastic_nas.latency.table import LatencyTable
from elastic_nas.palette import BLUE, GREY, GRID, INK, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elastic_nas.network import Network

Floats = NDArray[np.float64]
WIDE = 4.0
"""From this ratio of the latencies on, the axes are logarithmic."""


def picture_of(table: Path, network: "Network") -> Path:
    """Where the picture of a network lies: beside the table's file."""
    name = re.sub(r"[^\w=,.-]+", "-", Path(network.space_name).name).replace(":", "-")
    return table.with_name(f"{table.stem}-{name}.png")


def plot_profile(path: Path, table: LatencyTable, network: "Network") -> bool:
    """Draw the children that the model was not fitted on; writes a PNG.

    Returns:
        Whether there were any.

    Raises:
        KeyError: The table has no model of this network.
        RunFolderError: The file cannot be written.
    """
    model = table.models[network.identity]
    rows = rows_of(network, table, "calibrate")
    if not rows:
        return False
    predicted = model.predict_ms(features_of(network, table, rows))
    measured = np.array([row.ms for row in rows])
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False, "font.size": 10, "axes.edgecolor": GREY}):
        buffer = BytesIO()
        figure = _figure(table, network, predicted, measured)
        figure.savefig(buffer, dpi=130, metadata={"Software": None})
    write_atomic(path, buffer.getvalue())
    return True


def _figure(
    table: LatencyTable, network: "Network", predicted: Floats, measured: Floats
) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    model = table.models[network.identity]
    figure = Figure(figsize=(6.4, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ends = np.array([predicted.min(), max(predicted.max(), measured.max())]) * (0.95, 1.05)
    axes.plot(ends, ends, color=GREY, linewidth=1, label="measured = predicted")
    factor = model.bound_factor()
    over = np.zeros(len(measured), bool) if factor is None else measured > factor * predicted
    if factor is not None:
        axes.plot(ends, factor * ends, color=INK, linewidth=1.2, linestyle=(0, (4, 3)),
                  label=f"95 % bound, prediction times {factor:.3f}")  # fmt: skip
    axes.scatter(predicted[~over], measured[~over], 26, color=BLUE, linewidth=0,
                 label=f"{(~over).sum()} children within the bound")  # fmt: skip
    if over.any():
        axes.scatter(predicted[over], measured[over], 34, color=ORANGE, marker="D", linewidth=0,
                     label=f"{over.sum()} beyond it")  # fmt: skip
    _dress(axes, ends)
    axes.set_title(_title(table, network), loc="left", fontsize=11, color=INK, pad=10)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    return figure


def _title(table: LatencyTable, network: "Network") -> str:
    model = table.models[network.identity]
    floor = "unknown" if model.noise_floor is None else f"{model.noise_floor:.1%}"
    return (
        f"{network.space_name} on {table.device['name']}\n"
        f"{model.n_calibrate} children that the model was not fitted on: error {model.mape:.1%} "
        f"(noise {floor}),\n{model.within_5:.0%} within 5 %, {model.within_10:.0%} within 10 %, "
        f"Kendall's tau {model.kendall_tau:.3f}"
    )


def _dress(axes: "Axes", ends: Any) -> None:
    axes.set_xlabel("predicted latency, ms", color=INK)
    axes.set_ylabel("measured latency, ms", color=INK)
    if ends[1] / ends[0] > WIDE:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter("{x:g}")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
