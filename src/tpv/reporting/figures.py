"""Figures as SVG and PNG, legible without colour."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tpv.errors import plain
from tpv.reporting.tables import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
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
FILLS = (
    ("#d8dee9", ""),
    ("#2b5c8a", ""),
    ("#e8a33d", "//"),
    ("#7aa874", ".."),
    ("#8a4f7d", "xx"),
    ("#ffffff", "\\\\"),
    ("#c1666b", "--"),
    ("#1d2733", ""),
)
COLORS = ("#2b5c8a", "#c1666b", "#4d7c47", "#8a4f7d", "#b07d1b", "#1d2733", "#3f8f8b")
DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X"
BLANK = "#f2f4f8"  # a cell without a value


def _style() -> AbstractContextManager[None]:
    import matplotlib  # a third of a second to import

    matplotlib.use("Agg")
    return matplotlib.rc_context(STYLE)


def _new(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element, no date or metadata in it, so equal input gives equal text."""
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    # Groups are numbered from 1 in every figure, and a page holds many: ids that nothing refers to go.
    return re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :])


def png(figure: Figure) -> bytes:
    """The figure at 150 dots per inch."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def intervals(rows: Sequence[tuple[str, float, float, float]], label: str, *, line: float | None = None) -> Figure:
    """A point with its interval for each row, from the top down; each is a name, a value, and the ends (low, high)."""
    with _style():
        figure, (axes,) = _new(7.2, 1.0 + 0.3 * len(rows))
        places = np.arange(len(rows))
        values = np.array([value for _, value, _, _ in rows])
        ends = np.array([[value - low, high - value] for _, value, low, high in rows]).T.reshape(2, -1)
        axes.errorbar(values, places, xerr=np.maximum(ends, 0), fmt="o", color=COLORS[0], capsize=3)
        axes.set_yticks(places, [_fit(name, 44) for name, *_ in rows])
        axes.invert_yaxis()
        axes.set_xlabel(label)
        if line is not None:
            axes.axvline(line, color=COLORS[1], linestyle=":")
        return figure


def _fit(name: str, most: int = 24) -> str:
    """A name of at most so many characters a line: a label must leave room for what it labels."""
    lines = [plain(line) for line in name.split("\n")[:3]]
    return "\n".join(line if len(line) <= most else line[: most - 1] + "…" for line in lines)


def _legend(figure: Figure, handles: Mapping[str, Any], width: float) -> None:
    """One legend above all axes, in as many columns as its longest name leaves room for."""
    names = [_fit(name, 40) for name in handles]
    longest = max(map(len, names), default=1)
    columns = max(1, min(len(handles), int(width / (0.085 * longest + 0.6))))
    figure.legend(list(handles.values()), names, loc="outside upper center", ncols=columns, frameon=False)


def grouped_bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    label: str,
    *,
    errors: Mapping[str, Sequence[float]] | None = None,
    line: float | None = None,
    limit: float | None = 1.0,
) -> Figure:
    """Bars side by side: one group per name, one bar per series; nan leaves a gap, `line` is drawn across.

    The axis ends at `limit`, or where the highest bar does.
    """
    with _style():
        width = max(7.2, 1.2 + 0.16 * len(series) * len(groups), 1.2 + 0.45 * len(groups))
        figure, (axes,) = _new(width, 3.5)
        bar = 0.8 / max(1, len(series))
        handles = {}
        top = limit or 0.0
        for k, (name, values) in enumerate(series.items()):
            color, hatch = FILLS[k % len(FILLS)]
            at = np.arange(len(groups)) + (k - (len(series) - 1) / 2) * bar
            spread = None if errors is None else np.asarray(errors[name])
            handles[name] = axes.bar(
                at,
                values,
                bar * 0.92,
                color=color,
                hatch=hatch,
                edgecolor="#333333",
                linewidth=0.6,
                yerr=spread,
                error_kw={"elinewidth": 0.8, "capsize": 2},
            )
            reach = np.asarray(values, float) + (0 if spread is None else spread)
            top = max(top, *reach[np.isfinite(reach)], 0)
        if line is not None:
            axes.axhline(line, color="#333333", linewidth=0.8, linestyle="--")
        names = list(map(_fit, groups))
        longest = max((len(line) for name in names for line in name.split("\n")), default=1)
        crowded = longest * len(names) * 0.085 > width - 1.2
        axes.set_xticks(range(len(groups)), names, rotation=90 if crowded else 0)
        axes.set_ylim(0, 1.05 * top or 1)
        axes.set_ylabel(label)
        _legend(figure, handles, width)
        return figure


def _cells(
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


def heatmap(
    names: Sequence[str],
    matrix: np.ndarray,
    *,
    limits: tuple[float, float] = (-1, 1),
    cmap: str = "RdBu_r",
    digits: int = 2,
) -> Figure:
    """A square matrix with every value written in its cell; nan leaves the cell blank."""
    with _style():
        labels = list(map(_fit, names))
        size = 0.5 + 0.08 * max(map(len, labels), default=1) + (0.5 + 0.08 * (digits - 2)) * len(names)
        figure, (axes,) = _new(size, size)
        _cells(axes, matrix, limits, cmap, digits, numbers=True, size=7)
        axes.set_xticks(range(len(names)), labels, rotation=90)
        axes.set_yticks(range(len(names)), labels)
        return figure


@dataclass(frozen=True)
class HeatPanel:
    """One matrix of a grid of them, rows and columns named after two things."""

    rows: str
    columns: str
    matrix: np.ndarray


def heat_panels(
    panels: Sequence[HeatPanel], ticks: Sequence[str], *, limits: tuple[float, float], columns: int, digits: int
) -> Figure:
    """Matrices of one shape and one colour range; values are written where the cells are large enough."""
    with _style():
        rows = -(-len(panels) // columns)
        numbers = len(ticks) <= 6
        figure, axes = _new(0.6 + 1.75 * columns, 0.3 + 1.9 * rows, rows, columns)
        image = None
        for place, panel in zip(axes, panels, strict=False):
            image = _cells(place, panel.matrix, limits, "cividis", digits, numbers=numbers, size=5.5)
            for axis, name in ((place.xaxis, panel.columns), (place.yaxis, panel.rows)):
                turned = 90 if axis is place.xaxis and max(map(len, ticks)) > 3 else 0
                axis.set_ticks(range(len(ticks)), ticks, fontsize=6, rotation=turned)
                axis.set_label_text(_fit(name, 22), fontsize=8)
        for place in axes[len(panels) :]:
            place.set_axis_off()
        if image is not None:
            figure.colorbar(image, ax=axes, location="right", shrink=0.6 if rows > 1 else 0.9, aspect=30, pad=0.02)
        return figure


@dataclass(frozen=True)
class Line:
    """Points of one line; `error` is drawn up and down from each."""

    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None

    @classmethod
    def through(cls, points: Sequence[tuple[float, Value | str]]) -> Line:
        """Cells of a table at their x; those without a value are left out."""
        known = [(x, of) for x, of in points if isinstance(of, Value)]
        return cls([x for x, _ in known], [of.mean for _, of in known], [of.std or 0.0 for _, of in known])


@dataclass(frozen=True)
class LinePanel:
    """Lines over one pair of axes; `ticks` names the whole x positions 0, 1, 2 …, `mark` is drawn upright."""

    title: str
    lines: Mapping[str, Line]
    ticks: Sequence[str] | None = None
    mark: float | None = None


def line_panels(
    panels: Sequence[LinePanel],
    x_label: str,
    y_label: str,
    *,
    columns: int = 1,
    size: tuple[float, float] = (7.2, 3.2),
    limits: tuple[float, float] | None = (0, 1.05),
) -> Figure:
    """Panels of lines; a name has one marker, dash and colour in all of them. `size` is of one panel."""
    with _style():
        columns = max(1, min(columns, len(panels)))
        rows = -(-len(panels) // columns)
        names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
        figure, axes = _new(size[0] * columns, size[1] * rows + 0.2, rows, columns)
        handles: dict[str, Any] = {}
        for place, panel in zip(axes, panels, strict=False):
            for name, line in panel.lines.items():
                k = names.index(name)
                handles[name] = place.errorbar(
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
            if panel.mark is not None:
                place.axvline(panel.mark, color="#333333", linewidth=0.8, linestyle=":")
            if panel.ticks is not None:
                place.set_xticks(range(len(panel.ticks)), panel.ticks)
            if limits is not None:
                place.set_ylim(*limits)
            place.set_title(_fit(panel.title, int(12 * size[0])), fontsize=9)
        for place in axes[len(panels) :]:
            place.set_axis_off()
        if len(panels) > 1:
            figure.supxlabel(x_label, fontsize=10)
            figure.supylabel(y_label, fontsize=10)
        else:
            axes[0].set_xlabel(x_label)
            axes[0].set_ylabel(y_label)
        _legend(figure, {name: handles[name] for name in names}, size[0] * columns)
        return figure


def reliability(panels: Mapping[str, Sequence[np.ndarray]], columns: int = 3) -> Figure:
    """A reliability diagram for each task: rows, confidence and accuracy of the bins of `tpv.metrics.probability`."""
    with _style():
        columns = max(1, min(columns, len(panels)))
        rows = -(-len(panels) // columns)
        figure, axes = _new(2.6 * columns, 2.6 * rows + 0.2, rows, columns)
        for place, (name, (count, confidence, accuracy)) in zip(axes, panels.items(), strict=False):
            filled = count > 0
            place.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle=":")
            place.plot(confidence[filled], accuracy[filled], color=COLORS[0], linewidth=1.0)
            size = 8 + 80 * count[filled] / count.sum()
            place.scatter(confidence[filled], accuracy[filled], s=size, color=COLORS[0], zorder=3)
            place.set_xlim(0, 1.03)
            place.set_ylim(0, 1.05)
            place.set_title(_fit(name, 30), fontsize=9)
        for place in axes[len(panels) :]:
            place.set_axis_off()
        figure.supxlabel("confidence", fontsize=10)
        figure.supylabel("accuracy", fontsize=10)
        return figure
