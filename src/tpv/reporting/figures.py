"""Figures as SVG and PNG, legible without colour."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tpv.plot.draw import COLORS, Line, cells, diagram, fitted, lines, square, style
from tpv.reporting.tables import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def _new(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element, no date or metadata in it, so equal input gives equal text."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    # Groups are numbered from 1 in every figure, and a page holds many: ids that nothing refers to go.
    return re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :])


def png(figure: Figure) -> bytes:
    """The figure at 150 dots per inch."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def intervals(rows: Sequence[tuple[str, float, float, float]], label: str, *, line: float | None = None) -> Figure:
    """A point with its interval for each row, from the top down; each is a name, a value, and the ends (low, high)."""
    with style():
        figure, (axes,) = _new(7.2, 1.0 + 0.3 * len(rows))
        places = np.arange(len(rows))
        values = np.array([value for _, value, _, _ in rows])
        ends = np.array([[value - low, high - value] for _, value, low, high in rows]).T.reshape(2, -1)
        axes.errorbar(values, places, xerr=np.maximum(ends, 0), fmt="o", color=COLORS[0], capsize=3)
        axes.set_yticks(places, [fitted(name, 44) for name, *_ in rows])
        axes.invert_yaxis()
        axes.set_xlabel(label)
        if line is not None:
            axes.axvline(line, color=COLORS[1], linestyle=":")
        return figure


def _legend(figure: Figure, handles: Mapping[str, Any], width: float) -> None:
    """One legend above all axes, in as many columns as its longest name leaves room for."""
    names = [fitted(name, 40) for name in handles]
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
    with style():
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
        names = list(map(fitted, groups))
        longest = max((len(line) for name in names for line in name.split("\n")), default=1)
        crowded = longest * len(names) * 0.085 > width - 1.2
        axes.set_xticks(range(len(groups)), names, rotation=90 if crowded else 0)
        axes.set_ylim(0, 1.05 * top or 1)
        axes.set_ylabel(label)
        _legend(figure, handles, width)
        return figure


def heatmap(
    names: Sequence[str],
    matrix: np.ndarray,
    *,
    limits: tuple[float, float] = (-1, 1),
    cmap: str = "RdBu_r",
    digits: int = 2,
) -> Figure:
    """A square matrix with every value written in its cell; nan leaves the cell blank."""
    with style():
        labels = list(map(fitted, names))
        size = 0.5 + 0.08 * max(map(len, labels), default=1) + (0.5 + 0.08 * (digits - 2)) * len(names)
        figure, (axes,) = _new(size, size)
        square(axes, names, matrix, limits, cmap, digits)
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
    with style():
        rows = -(-len(panels) // columns)
        numbers = len(ticks) <= 6
        figure, axes = _new(0.6 + 1.75 * columns, 0.3 + 1.9 * rows, rows, columns)
        image = None
        for place, panel in zip(axes, panels, strict=False):
            image = cells(place, panel.matrix, limits, "cividis", digits, numbers=numbers, size=5.5)
            for axis, name in ((place.xaxis, panel.columns), (place.yaxis, panel.rows)):
                turned = 90 if axis is place.xaxis and max(map(len, ticks)) > 3 else 0
                axis.set_ticks(range(len(ticks)), ticks, fontsize=6, rotation=turned)
                axis.set_label_text(fitted(name, 22), fontsize=8)
        for place in axes[len(panels) :]:
            place.set_axis_off()
        if image is not None:
            figure.colorbar(image, ax=axes, location="right", shrink=0.6 if rows > 1 else 0.9, aspect=30, pad=0.02)
        return figure


def line_through(points: Sequence[tuple[float, Value | str]]) -> Line:
    """Cells of a table at their x; those without a value are left out."""
    known = [(x, of) for x, of in points if isinstance(of, Value)]
    return Line([x for x, _ in known], [of.mean for _, of in known], [of.std or 0.0 for _, of in known])


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
    with style():
        columns = max(1, min(columns, len(panels)))
        rows = -(-len(panels) // columns)
        names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
        figure, axes = _new(size[0] * columns, size[1] * rows + 0.2, rows, columns)
        handles: dict[str, Any] = {}
        for place, panel in zip(axes, panels, strict=False):
            handles |= lines(place, panel.lines, names, mark=panel.mark)
            if panel.ticks is not None:
                place.set_xticks(range(len(panel.ticks)), panel.ticks)
            if limits is not None:
                place.set_ylim(*limits)
            place.set_title(fitted(panel.title, int(12 * size[0])), fontsize=9)
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
    with style():
        columns = max(1, min(columns, len(panels)))
        rows = -(-len(panels) // columns)
        figure, axes = _new(2.6 * columns, 2.6 * rows + 0.2, rows, columns)
        for place, (name, (count, confidence, accuracy)) in zip(axes, panels.items(), strict=False):
            diagram(place, count, confidence, accuracy)
            place.set_title(fitted(name, 30), fontsize=9)
        for place in axes[len(panels) :]:
            place.set_axis_off()
        figure.supxlabel("confidence", fontsize=10)
        figure.supylabel("accuracy", fontsize=10)
        return figure
