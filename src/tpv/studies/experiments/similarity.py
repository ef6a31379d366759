"""Cosines of all source prompts and vectors (RQ1b, figures 2, 3, 6, 7)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import ClassVar

import numpy as np

from tpv.registry import register
from tpv.reporting import figures
from tpv.reporting.about import Kind
from tpv.reporting.page import Chapter, Figure, Section
from tpv.reporting.records import ORDINARY, Row
from tpv.reporting.results import Results, kinds, made_from, not_run, of_kind, present, slug, value
from tpv.reporting.tables import MISSING, Cell, Table
from tpv.studies import cells
from tpv.studies.jobs.compare import Compare
from tpv.studies.settings import Config
from tpv.studies.vectors import source_prompt, trained_vector

NAME = "similarity"
PAPER = {"prompts": (2, 6), "vectors": (3, 7)}  # figures over tasks, over initializations
Point = tuple[str, int]  # a task and the seed of an initialization
Cosines = dict[tuple[Point, Point], float]


@register.experiment(NAME, order=30)
class Similarity:
    """Cosines of all source prompts, and of all vectors."""

    title: ClassVar[str] = "Similarity of prompts and vectors (figures 2, 3, 6, 7)"

    @staticmethod
    def cells(config: Config) -> Iterator[cells.Cell]:
        """One comparison of everything that is trained in one way."""
        prompts = tuple(
            source_prompt(config, task, seed) for task in config.source_tasks for seed in config.seeds.starts
        )
        if len(prompts) > 1:
            yield cells.Cell(NAME, Compare(prompts, prompts=True), "cosine")
            for mode in config.vectors.modes:
                vectors = tuple(
                    trained_vector(config, mode, task, seed)
                    for task in config.source_tasks
                    for seed in config.vector_starts
                )
                yield cells.Cell(NAME, Compare(vectors, prompts=False), "cosine", mode=mode)

    @staticmethod
    def section(results: Results) -> Chapter:
        """Matrices over tasks, and over initializations for each pair of tasks."""
        return Chapter([_section(results)])


def _cosines(rows: Sequence[Row]) -> Cosines:
    """Every pair's cosine, to be looked up either way round."""
    found: Cosines = {}
    for row in rows:
        one, two = row.sources
        start = row.init_seed if row.vector_seed is None else row.vector_seed
        if (one, row.init_seed) != (two, start):
            found[(one, row.init_seed), (two, start)] = found[(two, start), (one, row.init_seed)] = row.value
    return found


def _between(cosines: Cosines, one: str, two: str) -> list[float]:
    """Cosines of all pairs of initializations of two tasks, each pair once."""
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
        note=f"Mean and deviation over all pairs of {n} initializations; what is identical to itself is left out, "
        "so the "
        "diagonal is one task from different initializations. "
        f"{present(len(cosines) // 2, points * (points - 1) // 2)} "
        f"{made_from(NAME)}",
        name=f"similarity_{slug(kind)}",
    )


def _kinds_table(kinds: Mapping[str, Cosines]) -> Table:
    """What the initialization has to do with it: quirk 1 makes prompts of one look alike."""
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
        "What is alike: the task or the initialization",
        ("of", "same task, other seed", "other task, same seed", "other task, other seed"),
        rows,
        note=f"Mean and deviation over pairs. {made_from(NAME)}",
        name="similarity_starts",
    )


def _figures(kind: Kind) -> tuple[int, int] | None:
    """The paper's figures of a kind, over tasks and over initializations."""
    return PAPER.get(kind.method) if kind.mode == ORDINARY else None


def _section(results: Results) -> Section:
    """Matrices over tasks, and over initializations for each pair of tasks."""
    heading = Similarity.title
    rows = results.of(NAME, "cosine")
    if not rows:
        return Section(heading, not_run(NAME))
    found = {
        kind: _cosines(of_kind(rows, kind))
        for kind in sorted(kinds(rows), key=lambda kind: (_figures(kind) is None, kind))
    }
    tasks = results.in_order(point[0] for cosines in found.values() for pair in cosines for point in pair)
    short = results.study.short
    drawings, tables = [], [_kinds_table({results.study.named(kind): cosines for kind, cosines in found.items()})]
    for kind, cosines in found.items():
        named = results.study.named(kind)
        seeds = sorted({point[1] for pair in cosines for point in pair})  # vectors may have been trained with fewer
        tables.append(_table(named, cosines, tasks, seeds, results))
        means = np.full((len(tasks), len(tasks)), math.nan)
        for i, one in enumerate(tasks):
            for j, two in enumerate(tasks[: i + 1]):
                values = _between(cosines, one, two)
                means[i, j] = sum(values) / len(values) if values else math.nan
        limits, digits = _limits(means[np.isfinite(means)].tolist())
        drawing = figures.heatmap(list(map(short, tasks)), means, limits=limits, cmap="cividis", digits=digits)
        numbers = _figures(kind)
        like, like_starts = (f" As figure {number}." for number in numbers) if numbers else ("", "")
        drawings.append(
            Figure(
                drawing,
                f"Cosine of {named}: mean over all pairs of {len(seeds)} initializations, identical pairs left "
                "out; colours span "
                f"the values shown.{like} {made_from(NAME)}",
                f"similarity_{slug(named)}",
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
                f"Cosine of {named}, seed by seed: a panel is a pair of tasks, its axes the seeds of their "
                "initializations; no "
                f"averages. Blank: identical, or not scored.{like_starts} {made_from(NAME)}",
                f"similarity_by_start_{slug(named)}",
            )
        )
    text = (
        "Every two prompts, and every two vectors, of all tasks and initializations: one cosine of all their numbers."
    )
    return Section(heading, text, drawings, tables)
