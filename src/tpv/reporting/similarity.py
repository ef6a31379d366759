"""Cosines of prompts and of vectors, by task and by start (figures 2, 3, 6, 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

import numpy as np

from tpv.reporting import figures
from tpv.reporting.page import Figure, Section
from tpv.reporting.results import Results, made_from, not_run, present, slug, unique, value
from tpv.reporting.tables import MISSING, Cell, Table
from tpv.studies.records import Row

EXPERIMENT = "similarity"
PAPER = {"prompts": (2, 6), "vectors": (3, 7)}  # figures over tasks, over starts
Point = tuple[str, int]  # a task and a start
Cosines = dict[tuple[Point, Point], float]


def _cosines(rows: Sequence[Row]) -> Cosines:
    """Every pair's cosine, to be looked up either way round."""
    found: Cosines = {}
    for row in rows:
        one, two = row.sources.split("+")
        start = row.init_seed if row.vector_seed is None else row.vector_seed
        if (one, row.init_seed) != (two, start):
            found[(one, row.init_seed), (two, start)] = found[(two, start), (one, row.init_seed)] = row.value
    return found


def _between(cosines: Cosines, one: str, two: str) -> list[float]:
    """Cosines of all pairs of starts of two tasks, each pair once."""
    if one != two:
        return [cosine for ((a, _), (b, _)), cosine in cosines.items() if (a, b) == (one, two)]
    return [cosine for ((a, i), (b, j)), cosine in cosines.items() if a == b == one and i < j]


def _limits(values: Sequence[float]) -> tuple[tuple[float, float], int]:
    """A colour range that fits, and how many digits tell its values apart."""
    low, high = min(values), max(values)
    return (low, high if high > low else low + 1e-3), 2 if high - low > 0.5 else 3


def _table(kind: str, cosines: Cosines, tasks: Sequence[str], seeds: Sequence[int], results: Results) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for i, one in enumerate(tasks):
        cells = [value(_between(cosines, one, two), unit=1, digits=3) or MISSING for two in tasks[: i + 1]]
        rows.append((results.study.short(one), *cells, *[""] * (len(tasks) - len(cells))))
    k, n = len(tasks), len(seeds)
    points = k * n
    return Table(
        f"Cosine similarity of {kind}",
        ("task", *map(results.study.short, tasks)),
        rows,
        note=f"Mean and deviation over all pairs of {n} starts; what is identical to itself is left out, so the "
        f"diagonal is one task from different starts. {present(len(cosines) // 2, points * (points - 1) // 2)} "
        f"{made_from(EXPERIMENT)}",
        name=f"similarity_{slug(kind)}",
    )


def _kinds_table(kinds: Mapping[str, Cosines]) -> Table:
    """What the start has to do with it: quirk 1 makes prompts of one start look alike."""
    rows: list[tuple[Cell, ...]] = []
    for kind, cosines in kinds.items():
        groups: dict[tuple[bool, bool], list[float]] = {}
        for ((a, i), (b, j)), cosine in cosines.items():
            if (a, i) < (b, j):
                groups.setdefault((a == b, i == j), []).append(cosine)
        cells = [
            value(groups.get(key, []), unit=1, digits=3) or MISSING
            for key in ((True, False), (False, True), (False, False))
        ]
        rows.append((kind, *cells))
    return Table(
        "What is alike: the task or the start",
        ("of", "same task, other start", "other task, same start", "other task, other start"),
        rows,
        note=f"Mean and deviation over pairs. {made_from(EXPERIMENT)}",
        name="similarity_starts",
    )


def section(results: Results) -> Section:
    """Matrices over tasks, and over starts for each pair of tasks."""
    heading = "Similarity of prompts and vectors (figures 2, 3, 6, 7)"
    rows = results.of(EXPERIMENT, "cosine")
    if not rows:
        return Section(heading, not_run(EXPERIMENT))
    kinds = {
        kind: _cosines([row for row in rows if row.method == kind])
        for kind in sorted(unique(row.method for row in rows), key=lambda kind: (kind not in PAPER, kind))
    }
    tasks = results.in_order(point[0] for cosines in kinds.values() for pair in cosines for point in pair)
    short = results.study.short
    drawings, tables = [], [_kinds_table(kinds)]
    for kind, cosines in kinds.items():
        seeds = sorted({point[1] for pair in cosines for point in pair})  # vectors may have been trained with fewer
        tables.append(_table(kind, cosines, tasks, seeds, results))
        means = np.full((len(tasks), len(tasks)), math.nan)
        for i, one in enumerate(tasks):
            for j, two in enumerate(tasks[: i + 1]):
                values = _between(cosines, one, two)
                means[i, j] = sum(values) / len(values) if values else math.nan
        limits, digits = _limits(means[np.isfinite(means)].tolist())
        drawing = figures.heatmap(list(map(short, tasks)), means, limits=limits, cmap="cividis", digits=digits)
        like, like_starts = (f" As figure {number}." for number in PAPER[kind]) if kind in PAPER else ("", "")
        drawings.append(
            Figure(
                drawing,
                f"Cosine of {kind}: mean over all pairs of {len(seeds)} starts, identical pairs left out; colours span "
                f"the values shown.{like} {made_from(EXPERIMENT)}",
                f"similarity_{slug(kind)}",
            )
        )
        panels = [
            figures.HeatPanel(
                short(two),
                short(one),
                np.array([[cosines.get(((two, i), (one, j)), math.nan) for j in seeds] for i in seeds]),
            )
            for one, two in combinations_with_replacement(tasks, 2)
        ]
        limits, digits = _limits(list(cosines.values()))
        grid = figures.heat_panels(panels, list(map(str, seeds)), limits=limits, columns=min(4, len(panels)), digits=2)
        drawings.append(
            Figure(
                grid,
                f"Cosine of {kind}, start by start: a panel is a pair of tasks, its axes the seeds of their starts; no "
                f"averages. Blank: identical, or not scored.{like_starts} {made_from(EXPERIMENT)}",
                f"similarity_by_start_{slug(kind)}",
            )
        )
    text = "Every two prompts, and every two vectors, of all tasks and starts: one cosine of all their numbers."
    return Section(heading, text, drawings, tables)
