"""Subtracting a task's vector: what it costs that task, and what a control."""

from __future__ import annotations

from collections.abc import Sequence

from tpv.reporting import figures
from tpv.reporting.page import Figure, Section
from tpv.reporting.results import Results, cell, made_from, not_run, present, unique, value, where
from tpv.reporting.tables import MISSING, Cell, Table
from tpv.studies.records import Row

EXPERIMENT = "negation"


def _run(row: Row) -> tuple[int, int | None]:
    return row.init_seed, row.vector_seed


def _scales(rows: Sequence[Row]) -> list[float]:
    return sorted({row.scale for row in rows if row.scale is not None})


def _drops(rows: Sequence[Row], scale: float) -> list[float]:
    """Score at factor 0 minus score at `scale`, per run that has both."""
    whole = {_run(row): row.value for row in where(rows, scale=0.0)}
    return [whole[_run(row)] - row.value for row in where(rows, scale=scale) if _run(row) in whole]


def _tables(results: Results, rows: Sequence[Row]) -> list[Table]:
    """Drops, and the scores themselves: a row a pair of tasks, method and task scored; a column a factor."""
    study = results.study
    scales = _scales(rows)
    lost_scales = [scale for scale in scales if scale != 0]
    scores: list[tuple[Cell, ...]] = []
    drops: list[tuple[Cell, ...]] = []
    expected = 0
    for method in unique(row.method for row in rows):
        of_method = where(rows, method=method)
        for sources in unique(row.sources for row in of_method):
            for task, role in zip(sources.split("+"), ("forgotten", "control"), strict=False):
                mine = where(of_method, sources=sources, task=task)
                head = (study.joined(sources), study.method(method), study.short(task), role)
                scores.append((*head, *(cell(where(mine, scale=scale)) for scale in scales)))
                lost = (value(_drops(mine, scale), signed=True) or MISSING for scale in lost_scales)
                drops.append((*head, *lost))
                expected += len(_scales(of_method)) * len({_run(row) for row in of_method})
    head = ("forget + control", "method", "scored on", "which is")
    note = (
        "Columns: factor of the subtracted vector. Mean and deviation over runs (a start, and the start that the "
        f"vector comes from). {present(len(rows), expected)} {made_from(EXPERIMENT)}"
    )
    return [
        Table(
            "Drop on the forgotten task and on the control",
            (*head, *(f"{scale:g}" for scale in lost_scales)),
            drops,
            note=f"Exact match at factor 0 minus at the factor, in points, within each run. {note}",
            name="negation_drop",
        ),
        Table(
            "Exact match after subtracting",
            (*head, *(f"{scale:g}" for scale in scales)),
            scores,
            note=f"Percent. {note}",
            name="negation",
        ),
    ]


def _figure(results: Results, rows: Sequence[Row]) -> Figure:
    """Scores by factor, a panel a method and task to forget."""
    panels = []
    for method in unique(row.method for row in rows):
        mine = where(rows, method=method)
        for task in results.in_order(row.sources.split("+")[0] for row in mine):
            pair = [row for row in mine if row.sources.split("+")[0] == task]
            lines = {}
            for role, part in (
                ("the task whose vector is subtracted", [row for row in pair if row.task == task]),
                ("controls", [row for row in pair if row.task != task]),
            ):
                points = [(scale, cell(where(part, scale=scale), unit=1)) for scale in _scales(part)]
                lines[role] = figures.Line.through(points)
            title = f"{results.study.short(task)}: {results.study.method(method)}"
            panels.append(figures.LinePanel(title, lines))
    size = (3.8, 2.3) if len(panels) > 1 else (7.2, 3.2)
    drawing = figures.line_panels(panels, "factor of the subtracted vector", "exact match", columns=2, size=size)
    caption = (
        "A panel is a task that is to be forgotten and a method; mean and bars of one deviation over runs, for "
        f"controls over control tasks too. {made_from(EXPERIMENT)}"
    )
    return Figure(drawing, caption, "negation")


def section(results: Results) -> Section:
    """Drops by factor of the subtracted vector, and the curves."""
    heading = "Subtracting a vector"
    rows = results.of(EXPERIMENT, "exact_match")
    if not rows:
        return Section(heading, not_run(EXPERIMENT))
    text = "A vector is negated and added; the same on a control task shows what any disturbance of that size costs."
    return Section(heading, text, [_figure(results, rows)], _tables(results, rows))
