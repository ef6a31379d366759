"""Sums of vectors as tables and drawings (figures 4 and 8), and the search for lambda."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tpv.plot.draw import Line
from tpv.reporting import figures
from tpv.reporting.about import Kind
from tpv.reporting.page import Figure, Section
from tpv.reporting.records import Row
from tpv.reporting.results import (
    Results,
    cell,
    kinds,
    made_from,
    not_run,
    of_kind,
    present,
    starts,
    unique,
    value,
    where,
)
from tpv.reporting.tables import MISSING, Cell, Table

if TYPE_CHECKING:
    import matplotlib.figure

NAME = "combination"
KEPT = 0.5  # of the tuned prompt's score, on every task of the sum: what the paper highlights


@dataclass(frozen=True)
class Sum:
    """One combination: its scores by task, and those of each task's own prompt."""

    tasks: tuple[str, ...]
    scores: tuple[list[Row], ...]
    tuned: tuple[list[Row], ...]

    def relative(self) -> list[float]:
        """Mean of the sum over mean of tuning, per task; nan where either is unknown."""
        return [
            _mean(summed) / _mean(own) if summed and own and _mean(own) else math.nan
            for summed, own in zip(self.scores, self.tuned, strict=True)
        ]

    @property
    def kept(self) -> bool:
        """Every task stays above `KEPT`."""
        return all(share > KEPT for share in self.relative())


def _mean(rows: Sequence[Row]) -> float:
    return sum(row.value for row in rows) / len(rows)


def _ordinal(k: int) -> str:
    return f"{('first', 'second', 'third')[k]} task" if k < 3 else f"task {k + 1}"


def sums(results: Results) -> list[Sum]:
    """All combinations, in the order of the rows."""
    rows = where(results.of(NAME, "exact_match"), method="sum")
    found = []
    for sources in unique(row.sources for row in rows):
        scores = tuple(where(rows, sources=sources, task=task) for task in sources)
        found.append(Sum(sources, scores, tuple(where(results.tuned(), task=task) for task in sources)))
    return found


def _table(found: Sequence[Sum], results: Results) -> Table:
    short = results.study.short
    rows: list[tuple[Cell, ...]] = []
    best = set()
    for each in found:
        scales = {row.init_seed: row.scale for rows_ in each.scores for row in rows_ if row.scale is not None}
        scale = value([scales[seed] for seed in sorted(scales)], unit=1, digits=2) or MISSING
        for task, summed, own, share in zip(each.tasks, each.scores, each.tuned, each.relative(), strict=True):
            if each.kept:
                best |= {(len(rows), 0), (len(rows), 5)}
            rows.append(
                (
                    results.study.joined(each.tasks),
                    short(task),
                    scale,
                    value([row.value for row in summed]) or MISSING,
                    value([row.value for row in own]) or MISSING,
                    (value([share], unit=1, digits=2) if math.isfinite(share) else None) or MISSING,
                    "yes" if each.kept else "no",
                )
            )
    scored = [row for each in found for rows_ in each.scores for row in rows_]
    n = len(starts(scored))
    return Table(
        "Sums of vectors, scored on each of their tasks",
        ("sum of", "scored on", "λ", "exact match", "tuned alone", "relative", "all kept"),
        rows,
        note=f"Initialization + λ · sum (eq. 4); mean and standard deviation over {n} initializations, λ chosen for "
        "each on validation data. "
        f"relative: mean of the sum over mean of tuning; bold: above {KEPT} on every task of the sum. "
        f"{present(len(scored), n * sum(len(each.tasks) for each in found))} {made_from(NAME)}",
        best=best,
        name="combination",
    )


def summed(row: Row) -> int:
    """How many vectors the sum is of that a row is the score of."""
    return len(row.sources)


def plain_rows(results: Results) -> dict[Kind, list[Row]]:
    """Rows of the sums and merges that nothing was searched for, by their kind."""
    rows = [row for row in results.of(NAME, "exact_match") if row.method in ("plain_sum", "merge")]
    return {kind: of_kind(rows, kind) for kind in kinds(rows)}


def plain_name(kind: Kind) -> str:
    """What tables call vectors that are added, or merged, without a search."""
    return f"{kind.merged}, " * bool(kind.merge) + kind.mode + ", at home" * kind.home


def _plain_table(results: Results) -> Table | None:
    """Plain sums by their number of vectors: mean over sums, tasks and initializations, and the worst task's mean."""
    found = plain_rows(results)
    if not found:
        return None
    own = {task: _mean(where(results.tuned(), task=task)) for task in {row.task for row in results.tuned()}}
    rows: list[tuple[Cell, ...]] = []
    for size in sorted({summed(row) for of in found.values() for row in of}):
        for mode, every in found.items():
            mine = [row for row in every if summed(row) == size]
            shares = {
                task: [row.value / own[task] for row in where(mine, task=task)]
                for task in results.in_order(row.task for row in mine)
                if own.get(task)
            }
            worst = min(shares, key=lambda task: sum(shares[task]) / len(shares[task]), default=None)
            least = value(shares[worst], unit=1, digits=2) if worst else None
            rows.append(
                (
                    f"{size} vectors",
                    plain_name(mode),
                    value([row.value for row in mine]) or MISSING,
                    value([share for of in shares.values() for share in of], unit=1, digits=2) or MISSING,
                    least or MISSING,
                    results.study.short(worst) if worst else MISSING,
                )
            )
    return Table(
        "Plain sums: initialization + sum of vectors, no scale, no search",
        ("sum of", "vectors", "exact match", "relative", "worst task", "which"),
        rows,
        note="Mean and deviation over all sums of so many vectors, their tasks and initializations; relative: to the "
        "tuned prompts' mean on the task; worst task: the one whose mean is lowest. ordinary: vectors of tuned "
        "prompts, "
        "added to the initialization they were all trained from (at home) and to another; portable and composable ones "
        "to one they did not see; fixed ones to zeros. A merge's name says how vectors were merged instead of added. "
        f"{made_from(NAME)}",
        name="plain_sums",
    )


def _largest_table(results: Results) -> Table | None:
    """The plain sum of the most vectors, task by task: one prompt for all of them."""
    found = plain_rows(results)
    most = max((summed(row) for of in found.values() for row in of), default=0)
    found = {mode: [row for row in of if summed(row) == most] for mode, of in found.items()}
    tasks = results.in_order(row.task for of in found.values() for row in of)
    if not tasks:
        return None
    rows: list[tuple[Cell, ...]] = [("tuned alone", *(cell(where(results.tuned(), task=task)) for task in tasks))]
    rows += [(plain_name(mode), *(cell(where(of, task=task)) for task in tasks)) for mode, of in found.items()]
    return Table(
        f"Plain sums of {most} vectors, task by task",
        ("vectors", *map(results.study.short, tasks)),
        rows,
        note="Percent exact match of initialization + sum, factor 1, nothing searched for; mean and deviation "
        "over seeds of the "
        f"vectors{'' if most == len(tasks) else ' and over the sums that a task is in'}. {made_from(NAME)}",
        name="plain_sums_largest",
    )


def _interference(results: Results) -> Figure | None:
    """What vectors do to each other, two by two: a panel a mode."""
    alone = results.of("cross_initialization", "exact_match")
    panels, ticks = [], list[str]()
    for kind, rows in plain_rows(results).items():
        pairs = [row for row in rows if summed(row) == 2]
        tasks = results.in_order(row.task for row in pairs)
        if not tasks:
            continue
        ticks = list(map(results.study.short, tasks))
        matrix = np.full((len(tasks), len(tasks)), math.nan)
        short = plain_name(kind)
        for i, task in enumerate(tasks):
            own = [row for row in where(alone, task=task, mode=kind.mode) if (row.method == "tuned") == kind.home]
            matrix[i, i] = _mean(own) if own else math.nan
            for j, other in enumerate(tasks):
                mine = [row for row in pairs if row.task == task and other in row.sources]
                if j != i and mine:
                    matrix[i, j] = _mean(mine)
        panels.append(figures.HeatPanel("scored on", f"beside ({short})", matrix))
    if not panels:
        return None
    return Figure(
        figures.heat_panels(panels, ticks, limits=(0, 1), columns=min(3, len(panels)), digits=2),
        "Interference: exact match of a row's task under the plain sum of its vector and a column's; on the diagonal "
        f"its vector alone. Mean over seeds. {made_from(NAME)}",
        "interference",
    )


def _bars(found: Sequence[Sum], results: Results) -> matplotlib.figure.Figure:
    size = max(len(each.tasks) for each in found)
    shares = [each.relative() for each in found]
    series = {_ordinal(k): [share[k] if k < len(share) else math.nan for share in shares] for k in range(size)}
    names = ["\n".join(map(results.study.short, each.tasks)) for each in found]
    return figures.grouped_bars(names, series, "exact match / tuned alone", line=KEPT)


def _lambda_figure(results: Results) -> Figure | None:
    """Validation scores by lambda, a panel a combination."""
    rows = results.of(NAME, "exact_match", split="validation")
    if not rows:
        return None
    panels = []
    for sources in unique(row.sources for row in rows):
        mine = where(rows, sources=sources)
        scales = sorted({row.scale for row in mine if row.scale is not None})
        every = [(scale, where(mine, scale=scale)) for scale in scales]
        lines = {"mean of the tasks": Line(scales, [_mean(of) for _, of in every])}
        for k, task in enumerate(sources):
            known = [(scale, where(mine, task=task, scale=scale)) for scale in scales]
            known = [(scale, of) for scale, of in known if of]
            lines[_ordinal(k)] = Line([scale for scale, _ in known], [_mean(of) for _, of in known])
        tested = where(results.of(NAME, "exact_match"), sources=sources, method="sum")
        chosen = [row.scale for row in tested if row.scale is not None]
        mark = sum(chosen) / len(chosen) if chosen else None
        panels.append(figures.LinePanel(results.study.joined(sources), lines, mark=mark))
    drawing = figures.line_panels(
        panels, "λ", "exact match, validation", columns=3, size=(2.6, 2.0) if len(panels) > 1 else (7.2, 3.2)
    )
    n = len(starts(rows))
    caption = (
        f"The search for λ: mean over {n} initializations of validation exact match on each task of the sum, by "
        "λ; dotted "
        f"upright: mean of the λ chosen. {made_from(NAME)}"
    )
    return Figure(drawing, caption, "lambda")


def section(results: Results, heading: str) -> Section:
    """All sums as bars and table, and those that keep all their tasks."""
    found = sums(results)
    search = _lambda_figure(results)
    drawings = [search] if search else []
    if not found:
        return Section(heading, not_run(NAME), drawings)
    kept = [each for each in found if each.kept]
    n = len(starts(row for each in found for rows in each.scores for row in rows))
    over = f"mean over {n} initializations, relative to tuning on the task alone (1.0); dashed: {KEPT}"
    for size in unique(len(each.tasks) for each in found):  # sums of unlike size would leave gaps among the bars
        what, mark = ("pairs", "") if size == 2 else (f"sums of {size} vectors", f"_{size}")
        for drawn, name, title in (
            (
                [each for each in kept if len(each.tasks) == size],
                "kept",
                f"{what} that stay above {KEPT} on all their tasks",
            ),
            ([each for each in found if len(each.tasks) == size], "all", f"all {what}"),
        ):
            if drawn:
                figure = " As figure 4." if name == "kept" else " As figure 8."
                caption = f"{title[0].upper()}{title[1:]}: {over}.{figure if size == 2 else ''} {made_from(NAME)}"
                drawings.append(Figure(_bars(drawn, results), caption, f"combination_{name}{mark}"))
    interference = _interference(results)
    drawings += [interference] if interference else []
    plain = [table for table in (_plain_table(results), _largest_table(results)) if table]
    text = f"{len(kept)} of {len(found)} sums keep more than half of the tuned score on every one of their tasks."
    return Section(heading, text, drawings, [_table(found, results), *plain])
