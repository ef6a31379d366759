"""What figures are drawn with, on axes that somebody else made; legible without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tpv.errors import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "tpv",
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "text.parse_math": False,  # a task's name may hold a dollar sign
}
COLORS = ("#2b5c8a", "#c1666b", "#4d7c47", "#8a4f7d", "#b07d1b", "#1d2733", "#3f8f8b")
DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X"
BLANK = "#f2f4f8"  # a cell without a value


def style() -> AbstractContextManager[None]:
    """The look of all figures."""
    import matplotlib  # a third of a second to import

    return matplotlib.rc_context(STYLE)


def fitted(name: str, most: int = 24) -> str:
    """A name of at most so many characters a line: a label must leave room for what it labels."""
    lines = [plain(line) for line in name.split("\n")[:3]]
    return "\n".join(line if len(line) <= most else line[: most - 1] + "…" for line in lines)


def cells(
    axes: Axes, matrix: np.ndarray, limits: tuple[float, float], cmap: str, digits: int, *, numbers: bool, size: float
) -> AxesImage:
    """Coloured cells, with the value in each; a cell without one stays blank."""
    axes.set_facecolor(BLANK)
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="none")
    axes.spines[:].set_visible(False)
    for i, j in np.argwhere(np.isfinite(matrix)) if numbers else ():
        red, green, blue, _ = image.to_rgba(matrix[i, j])
        color = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        text = f"{round(float(matrix[i, j]), digits) + 0.0:.{digits}f}"
        axes.text(j, i, text, ha="center", va="center", fontsize=size, color=color)
    return image


def square(
    axes: Axes,
    names: Sequence[str],
    matrix: np.ndarray,
    limits: tuple[float, float],
    cmap: str,
    digits: int,
    *,
    numbers: bool = True,
) -> None:
    """A square matrix whose rows and columns have the same names."""
    labels = list(map(fitted, names))
    cells(axes, matrix, limits, cmap, digits, numbers=numbers, size=7)
    axes.set_xticks(range(len(names)), labels, rotation=90)
    axes.set_yticks(range(len(names)), labels)


@dataclass(frozen=True)
class Line:
    """Points of one line; `error` is drawn up and down from each."""

    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None


def lines(
    axes: Axes, drawn: Mapping[str, Line], order: Sequence[str] | None = None, *, mark: float | None = None
) -> dict[str, Any]:
    """Lines over one pair of axes, each with the marker, dash and colour of its place in `order`; their handles.

    Args:
        mark: drawn upright.
    """
    names = list(drawn) if order is None else list(order)
    handles: dict[str, Any] = {}
    for name, line in drawn.items():
        k = names.index(name)
        handles[name] = axes.errorbar(
            line.x,
            line.y,
            line.error,
            linestyle=DASHES[k % 4],
            marker=MARKERS[k % 8],
            markersize=4,
            color=COLORS[k % 7],
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
        )
    if mark is not None:
        axes.axvline(mark, color="#333333", linewidth=0.8, linestyle=":")
    return handles


def diagram(axes: Axes, count: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> None:
    """A reliability diagram of the bins of `tpv.metrics.probability`; the size of a mark is the number of rows."""
    filled = count > 0
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle=":")
    axes.plot(confidence[filled], accuracy[filled], color=COLORS[0], linewidth=1.0)
    size = 8 + 80 * count[filled] / count.sum()
    axes.scatter(confidence[filled], accuracy[filled], s=size, color=COLORS[0], zorder=3)
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.05)
