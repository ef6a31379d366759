"""Plots of what tpv gives, on axes of yours or new ones: what the reports draw, for a notebook.

Every function takes `ax=None` and returns the matplotlib axes it drew on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tpv import metrics
from tpv.errors import TpvError
from tpv.evaluation.search import ScaleSearch
from tpv.metrics.probability import bins
from tpv.outputs.scores import LabelTable, Scores
from tpv.plot import draw
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.matrix import PromptMatrix, cosine_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion", "cosine", "lambda_curve", "loss", "reliability"]

NUMBERED = 20  # rows of a matrix whose values are still written into it


def cosine(
    vectors: Sequence[PromptMatrix] | Mapping[str, PromptMatrix],
    names: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """The cosine of every two vectors, or prompts.

    Args:
        vectors: a list, a mapping by name, or a `tpv.Library`.
        names: of the vectors in a list; by default what is in each.
        ax: where to draw; by default on new axes.

    Raises:
        TpvError: no vectors, vectors of different models or shapes, names that do not fit.
    """
    if isinstance(vectors, Mapping):
        names, vectors = names or list(vectors), list(vectors.values())
    items = list(vectors)
    if not items or not all(isinstance(item, PromptMatrix) for item in items):
        got = "none" if not items else next(type(item).__name__ for item in items if not isinstance(item, PromptMatrix))
        raise TpvError("vectors to plot", expected="task prompt vectors or prompts, at least one", got=got)
    shown = [item.expression for item in items] if names is None else list(names)
    if len(shown) != len(items):
        raise TpvError("names of the vectors", expected=len(items), got=len(shown))
    matrix = cosine_matrix(items).numpy()
    with draw.style():
        axes = _axes(ax)
        draw.square(axes, shown, matrix, (-1, 1), "RdBu_r", 2, numbers=len(items) <= NUMBERED)
        axes.set_title("cosine", fontsize=9)
    return axes


def loss(history: object, *, ax: Axes | None = None) -> Axes:
    """Training loss by step, and what was validated.

    Args:
        history: of a training, `prompt.history`; or the tuned prompt itself; or a mapping of names to either.
        ax: where to draw; by default on new axes.

    Raises:
        TpvError: a prompt without a history, such as one read from a file, or something else.
    """
    tables = {name: _history(one) for name, one in (history if isinstance(history, Mapping) else {"": history}).items()}
    if not tables:
        raise TpvError("histories to plot", expected="at least one", got="none")
    with draw.style():
        axes = _axes(ax)
        other: Axes | None = None
        for k, (name, table) in enumerate(tables.items()):
            color = draw.COLORS[k % len(draw.COLORS)]
            steps, losses = table["step"].to_numpy(), table["loss"].to_numpy()
            axes.plot(steps, losses, color=color, linewidth=1.0, alpha=0.8, label=f"{name} training loss".strip())
            select = (table.schema.metadata or {}).get(b"select", b"loss").decode()
            judged = [(row["step"], row["score"]) for row in table.to_pylist() if row["score"] is not None]
            if not judged:
                continue
            title = "loss" if select == "loss" else metrics.title(select)
            if select != "loss" and other is None:
                other = axes.twinx()
                other.spines["right"].set_visible(True)
                other.set_ylabel(f"{title}, validation")
            place = axes if select == "loss" or other is None else other
            said = f"{name} validation {title}".strip()
            place.plot(*zip(*judged, strict=True), color=color, linestyle="--", marker="o", markersize=4, label=said)
        axes.set_xlabel("step")
        axes.set_ylabel("loss, nats per token")
        handles = [line for part in (axes, other) if part is not None for line in part.get_lines()]
        axes.legend(handles, [str(line.get_label()) for line in handles], frameon=False, fontsize=8)
    return axes


def lambda_curve(search: ScaleSearch | Mapping[str, ScaleSearch], *, ax: Axes | None = None) -> Axes:
    """Validation exact match by scale, the chosen scale marked.

    Args:
        search: what `tpv.search_scale` gave, or several by name.
        ax: where to draw; by default on new axes.

    Raises:
        TpvError: something else.
    """
    found = dict(search) if isinstance(search, Mapping) else {"": search}
    wrong = next((one for one in found.values() if not isinstance(one, ScaleSearch)), None)
    if wrong is not None or not found:
        got = "none" if not found else type(wrong).__name__
        raise TpvError("searches to plot", expected="what tpv.search_scale gives", got=got)
    with draw.style():
        axes = _axes(ax)
        curves = {name: draw.Line(one.scales, one.exact_match) for name, one in found.items()}
        draw.lines(axes, curves, mark=next(iter(found.values())).scale if len(found) == 1 else None)
        axes.set_xlabel("λ")
        axes.set_ylabel("exact match, validation")
        axes.set_ylim(0, 1.05)
        if len(found) > 1:
            axes.legend(list(map(draw.fitted, found)), frameon=False, fontsize=8)
    return axes


def confusion(scores: Scores, *, ax: Axes | None = None) -> Axes:
    """How many examples of each label (rows) were given each label (columns), the likeliest one.

    Raises:
        TpvError: scores of a text task, or none.
    """
    table = _labelled(scores)
    count = len(table.labels)
    matrix = np.zeros((count, count), int)
    np.add.at(matrix, (table.gold, table.probabilities.argmax(1)), 1)
    with draw.style():
        axes = _axes(ax)
        limits = (0.0, float(max(1, matrix.max())))
        draw.square(axes, table.labels, matrix, limits, "Blues", 0, numbers=count <= NUMBERED)
        axes.set_xlabel("predicted")
        axes.set_ylabel("gold")
    return axes


def reliability(scores: Scores, *, ax: Axes | None = None) -> Axes:
    """Accuracy by confidence: on the diagonal probabilities mean what they say; larger marks have more examples.

    Raises:
        TpvError: scores of a text task, or none.
    """
    table = _labelled(scores)
    with draw.style():
        axes = _axes(ax)
        draw.diagram(axes, *bins(table.gold, table.probabilities))
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
    return axes


def _axes(ax: Axes | None) -> Axes:
    """The axes given, or new ones, which a notebook shows."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    made: Any = pyplot.subplots()[1]
    axes: Axes = made
    return axes


def _history(one: object) -> pa.Table:
    table = one.history if isinstance(one, SoftPrompt) else one
    if table is None:
        raise TpvError("this prompt has no history", expected="a prompt that tpv.fit gave", fix="files do not keep it")
    if not isinstance(table, pa.Table) or not {"step", "loss", "score"} <= set(table.column_names):
        raise TpvError("history to plot", expected="prompt.history", got=type(table).__name__)
    return table


def _labelled(scores: Scores) -> LabelTable:
    if not isinstance(scores, Scores):
        raise TpvError("scores to plot", expected="what tpv.evaluate gives", got=type(scores).__name__)
    if "log_probs" not in scores.predictions.column_names:
        raise TpvError("scores to plot", expected="those of a task with labels", got="those of a text task")
    return LabelTable.of(scores.predictions)
