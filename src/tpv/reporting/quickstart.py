"""The quickstart's page: every number is looked up in its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tpv.plot.draw import Line
from tpv.reporting import figures
from tpv.reporting.about import Kind
from tpv.reporting.page import Figure, Section, made_with, write_page
from tpv.reporting.records import Row
from tpv.reporting.results import kinds, of_kind, unique, where
from tpv.reporting.tables import Table, mean_and_spread


def _values(rows: Sequence[Row], **wanted: object) -> list[float]:
    """Values of the rows that match, in their order; asking for what is missing is an error."""
    wanted = {"metric": "exact_match"} | wanted
    found = [row.value for row in where(rows, **wanted)]
    if not found:
        raise KeyError(f"no row with {wanted}")
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _short(task: str) -> str:
    return task.removeprefix("mini/")


def _named(how: Kind) -> str:
    return " ".join([how.plain, *map(_short, how.sources)]) + how.suffix


def cross_table(rows: Sequence[Row]) -> Table:
    """Untuned, tuned, and the vector on another initialization: mean and standard deviation over initializations."""
    part = [row for row in rows if row.experiment in ("sources", "cross_initialization")]
    part = [row for row in part if (row.experiment, row.method) != ("cross_initialization", "tuned")]  # scored twice
    cells = []
    for task in unique([row.task for row in part]):
        scores = [_values(part, task=task, method=method) for method in ("untuned", "tuned", "moved")]
        majority = _mean(_values(part, task=task, method="tuned", metric="majority"))
        cells.append((_short(task), *map(mean_and_spread, scores), f"{majority:.2f}"))
    return Table(
        "Exact match on test, per source task",
        ("task", "untuned", "tuned", "moved", "majority"),
        cells,
        note="moved: the vector on another initialization. Mean ± deviation over initializations; "
        f"{part[0].n} test examples each.",
    )


def combination_table(rows: Sequence[Row]) -> Table:
    """Each pair's sum on both tasks, beside single-task tuning."""
    part = where(rows, experiment="combination", metric="exact_match", split="test")
    cells = []
    for sources in unique([row.sources for row in part]):
        for task in unique([row.task for row in part if row.sources == sources]):
            mine = where(part, sources=sources, task=task)
            tuned = _values(rows, experiment="sources", task=task, method="tuned")
            summed = [row.value for row in mine]
            cells.append(
                (
                    " + ".join(map(_short, sources)),
                    _short(task),
                    ", ".join(f"{row.scale:g}" for row in mine),
                    mean_and_spread(summed),
                    mean_and_spread(tuned),
                    f"{_mean(summed) / _mean(tuned):.0%}" if _mean(tuned) else "",
                )
            )
    return Table(
        "Exact match on test of init + lambda · (vector + vector)",
        ("pair", "scored on", "lambda (per init)", "sum", "tuned alone", "kept"),
        cells,
    )


def transfer_table(rows: Sequence[Row]) -> Table:
    """Targets by method at zero and few shots; the best mean of each column in bold."""
    part = where(rows, experiment="transfer", metric="exact_match")
    cells: list[tuple[str, ...]] = []
    best: set[tuple[int, int]] = set()
    shots = sorted({row.shots for row in part if row.shots is not None})
    for task in unique([row.task for row in part]):
        first, means = len(cells), []
        for how in kinds(where(part, task=task)):
            mine = of_kind(part, how)
            values = [_values(mine, task=task, shots=shot) for shot in shots]
            means.append([_mean(v) for v in values])
            cells.append((_short(task), _named(how), *map(mean_and_spread, values)))
        for column in range(len(shots)):
            top = max(row[column] for row in means)
            best |= {(first + i, 2 + column) for i, row in enumerate(means) if row[column] == top}
    return Table(
        "Exact match on test of new tasks, by their initialization",
        ("target", "initialization", *(f"{shot} shots" for shot in shots)),
        cells,
        best=best,
        note="random: an untrained prompt. SPoT: a source task's tuned prompt. sum: an untrained prompt plus "
        "both source vectors. Shots are training examples in total; 0 shots is the initialization itself.",
    )


def similarity_matrix(rows: Sequence[Row]) -> tuple[list[str], np.ndarray]:
    """Names `task·seed` and the symmetric matrix of the vectors' cosines."""
    values: dict[tuple[str, str], float] = {}
    names: list[str] = []
    for row in rows:
        if (row.experiment, row.method, row.metric) == ("similarity", "vectors", "cosine"):
            one, two = row.sources
            other = row.init_seed if row.vector_seed is None else row.vector_seed
            key = (f"{_short(one)}·{row.init_seed}", f"{_short(two)}·{other}")
            names = unique([*names, *key])
            values[key] = values[key[::-1]] = row.value
    return names, np.array([[1.0 if a == b else values[a, b] for b in names] for a in names])


def _similarity_sentence(names: list[str], matrix: np.ndarray) -> str:
    tasks = np.array([name.split("·")[0] for name in names])
    off = ~np.eye(len(names), dtype=bool)
    same = tasks[:, None] == tasks[None, :]
    return (
        f"Mean cosine of two vectors of the same task from different initializations: {matrix[same & off].mean():.2f}; "
        f"of different tasks: {matrix[~same].mean():.2f}."
    )


def _bars(rows: Sequence[Row]) -> Figure:
    """Every source task before and after tuning, and with its vector on the other initialization."""
    part = [row for row in rows if row.experiment in ("sources", "cross_initialization")]
    tasks = unique([row.task for row in part])
    named = (("untuned", "untuned"), ("tuned", "tuned"), ("vector on another initialization", "moved"))
    series = {name: [_mean(_values(part, task=task, method=method)) for task in tasks] for name, method in named}
    drawing = figures.grouped_bars([_short(task) for task in tasks], series, "exact match")
    return Figure(drawing, "Mean exact match over initializations.")


def _curves(rows: Sequence[Row]) -> Figure:
    """Validation scores by lambda, a line for each pair."""
    search = where(rows, experiment="combination", split="validation")
    scales = sorted({row.scale for row in search if row.scale is not None})
    lines = {
        " + ".join(map(_short, sources)): Line(
            scales, [_mean(_values(search, sources=sources, scale=scale)) for scale in scales]
        )
        for sources in unique([row.sources for row in search])
    }
    drawing = figures.line_panels([figures.LinePanel("", lines)], "lambda", "mean exact match, validation")
    return Figure(drawing, "The search for lambda.")


def _transfer_figures(rows: Sequence[Row]) -> list[Figure]:
    """The targets one by one: every initialization at zero and at few shots."""
    few = where(rows, experiment="transfer")
    shots = max(row.shots for row in few if row.shots is not None)
    drawn = []
    for task in unique([row.task for row in few]):
        mine = where(few, task=task)
        hows = kinds(mine)
        series = {
            f"{shot} shots": [_mean(_values(of_kind(mine, how), shots=shot)) for how in hows] for shot in (0, shots)
        }
        drawing = figures.grouped_bars(list(map(_named, hows)), series, "exact match")
        drawn.append(Figure(drawing, f"{_short(task)}: by initialization, before and after {shots} examples."))
    return drawn


def write(rows: Sequence[Row], path: Path, *, seconds: float) -> list[Table]:
    """Write `report.html`; returns its tables, for the terminal."""
    cross, pairs, new = cross_table(rows), combination_table(rows), transfer_table(rows)
    names, matrix = similarity_matrix(rows)
    cosines = figures.heatmap(names, matrix)
    sections = [
        Section(
            "1. Tune, subtract, move",
            "A soft prompt is tuned on each source task. The tuned prompt minus its initialization is the task prompt "
            "vector (eq. 2). The vector is then added to an initialization that it was not trained on (eq. 3).",
            [_bars(rows)],
            [cross],
        ),
        Section(
            "2. Are vectors alike?",
            _similarity_sentence(names, matrix),
            [Figure(cosines, "Cosine of task prompt vectors; ·0 and ·1 are the seeds of the initializations.")],
        ),
        Section(
            "3. Add two vectors",
            "One pair per family, added (eq. 4) with one factor lambda for both, chosen by mean exact match on the "
            "two validation sets; scored on both test sets.",
            [_curves(rows)],
            [pairs],
        ),
        Section(
            "4. Start a new task from them",
            "Two tasks that no prompt was tuned on, with no examples and with a few.",
            _transfer_figures(rows),
            [new],
        ),
    ]
    intro = [
        "What tpv does, on the model and the generated tasks that come with it. The tasks are miniatures: the "
        "numbers show how the method behaves, not how well any real model does.",
        f"{len(rows)} scores, each a row of results.parquet beside this page.",
    ]
    write_page(path, "tpv quickstart", intro, sections, f"Made in {seconds:.0f} s by {made_with()}.")
    return [cross, pairs, new]
