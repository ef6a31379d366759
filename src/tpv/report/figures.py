"""Figures as inline SVG, legible without colour."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none",
    "svg.hashsalt": "tpv", "figure.constrained_layout.use": True, "font.family": "sans-serif",
}  # fmt: skip
FILLS = (("#d8dee9", ""), ("#2b5c8a", ""), ("#e8a33d", "//"), ("#7aa874", ".."), ("#8a4f7d", "xx"))
MARKERS = "osD^vP*X"


def _new(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element, no date or metadata in it, so equal input gives equal text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def grouped_bars(groups: Sequence[str], series: Mapping[str, Sequence[float]], label: str) -> str:
    """Bars side by side: one group per name, one bar per series, all in [0, 1]."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _new(7.2, 3.2)
        width = 0.8 / len(series)
        for k, (name, values) in enumerate(series.items()):
            color, hatch = FILLS[k % len(FILLS)]
            at = np.arange(len(groups)) + (k - (len(series) - 1) / 2) * width
            axes.bar(at, values, width * 0.92, color=color, hatch=hatch, edgecolor="#333333", linewidth=0.6, label=name)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylim(0, 1.05)
        axes.set_ylabel(label)
        figure.legend(loc="outside upper center", ncols=len(series), frameon=False)
        return svg(figure)


def heatmap(names: Sequence[str], matrix: np.ndarray) -> str:
    """A square matrix of cosines with every value written in its cell."""
    with matplotlib.rc_context(STYLE):
        size = 1.6 + 0.5 * len(names)
        figure, axes = _new(size, size)
        axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.spines[:].set_visible(False)
        for i, j in np.ndindex(matrix.shape):
            color = "white" if abs(matrix[i, j]) > 0.6 else "black"
            axes.text(
                j, i, f"{round(float(matrix[i, j]), 2) + 0.0:.2f}", ha="center", va="center", fontsize=7, color=color
            )
        return svg(figure)


def curves(x: Sequence[float], series: Mapping[str, Sequence[float]], x_label: str, y_label: str) -> str:
    """Lines with a marker each over a shared x axis."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _new(7.2, 3.2)
        styles = ("-", "--", ":", "-.")
        for k, (name, values) in enumerate(series.items()):
            axes.plot(
                x, values, styles[k % 4], marker=MARKERS[k % 8], markersize=4, label=name, color=FILLS[1:][k % 4][0]
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(0, 1.05)
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
        return svg(figure)
