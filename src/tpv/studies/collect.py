"""From artifacts to rows: the only way a number gets into `results.parquet`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tpv.errors import DamagedFileError
from tpv.evaluation.score import score_predictions
from tpv.files import read_parquet
from tpv.studies.cells import Cell
from tpv.studies.jobs import Compare, Measure, Member, Score, Search, Vector, task_of
from tpv.studies.records import METRICS, Row, table_of


def rows_of_cell(cell: Cell, folder: Path, key: str, labels: Mapping[str, Sequence[str]]) -> list[Row]:
    """The rows of one finished cell.

    Args:
        folder: of the job's artifact.
        key: of the job.
        labels: the label words of every task.

    Raises:
        DamagedFileError: its files are whole, and still are not what such a job leaves.
    """
    job = cell.job
    by_kind: dict[type, Callable[..., Iterator[Row]]] = {
        Score: _of_score,
        Search: _of_search,
        Compare: _of_compare,
        Measure: _of_measure,
    }
    try:
        rows = list(by_kind[type(job)](cell, job, folder, key, labels))
        table_of(rows)  # a record may say a word where a number belongs
    except (OSError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, pa.ArrowException) as error:
        raise DamagedFileError(
            f"artifact {folder} does not hold what a job leaves",
            got=f"{type(error).__name__}: {error}",
            fix="delete it: `tpv run` makes it again",
        ) from None
    return rows


def _row(cell: Cell, key: str, **fields: Any) -> Row:
    own: dict[str, Any] = {
        "experiment": cell.experiment,
        "task": cell.task,
        "method": cell.method,
        "sources": "+".join(cell.sources),
        "init_seed": cell.init_seed,
        "shots": cell.shots,
        "scale": cell.scale,
        "vector_seed": cell.vector_seed,
        "job": key,
    }
    return Row(**(own | fields))


def _metrics(cell: Cell, key: str, file: Path, **fields: Any) -> Iterator[Row]:
    scores = score_predictions(read_parquet(file))
    for metric in METRICS:
        if scores.defined(metric):
            yield _row(cell, key, metric=metric, value=scores.metric(metric), n=scores.n, **fields)


def _of_score(cell: Cell, job: Score, folder: Path, key: str, labels: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    yield from _metrics(cell, key, folder / "predictions.parquet")
    if cell.experiment == "transfer":
        said = {word for source in cell.sources for word in labels[source]}
        words = labels[cell.task]
        covered = sum(word in said for word in words) / len(words)
        yield _row(cell, key, metric="label_coverage", value=covered, n=len(words))


def _of_search(cell: Cell, job: Search, folder: Path, key: str, _: object) -> Iterator[Row]:
    grid = read_parquet(folder / "grid.parquet")
    hit = pc.fill_null(pc.equal(grid["gold"], grid["predicted"]), False).cast("float64")
    parts = grid.append_column("hit", hit).group_by(["task", "scale"], use_threads=False)
    for part in parts.aggregate([("hit", "mean"), ("hit", "count")]).to_pylist():
        yield _row(
            cell,
            key,
            task=part["task"],
            scale=part["scale"],
            split="validation",
            metric="exact_match",
            value=part["hit_mean"],
            n=part["hit_count"],
        )
    best = json.loads((folder / "record.json").read_text())["scale"]  # what the test predictions were made at
    for i, vector in enumerate(job.vectors):
        yield from _metrics(cell, key, folder / f"test-{i}.parquet", task=task_of(vector), scale=best)


def _of_compare(cell: Cell, job: Compare, folder: Path, key: str, _: object) -> Iterator[Row]:
    for row in read_parquet(folder / "cosines.parquet").to_pylist():
        a, b = job.prompts[row["a"]], job.prompts[row["b"]]
        names = (task_of(a), task_of(b))
        method = cell.method if isinstance(a, Member) else row["kind"]
        yield _row(
            cell,
            key,
            task=names[0],
            method=method,
            sources="+".join(names),
            init_seed=_seed(a),
            vector_seed=_seed(b),
            metric="cosine",
            value=row["cosine"],
            n=row["values"],
        )
    for row in read_parquet(folder / "norms.parquet").to_pylist():
        vector = job.prompts[row["prompt"]]
        method = cell.method if isinstance(vector, Member) else "vectors"
        yield _row(
            cell,
            key,
            task=task_of(vector),
            method=method,
            sources=task_of(vector),
            init_seed=_seed(vector),
            metric="norm_ratio",
            value=row["vector"] / row["start"],
            n=1,
        )


def _seed(vector: Vector) -> int:
    seed: int = vector.of.seed if isinstance(vector, Member) else vector.start.seed  # type: ignore[union-attr]
    return seed


def _of_measure(cell: Cell, job: Measure, folder: Path, key: str, _: object) -> Iterator[Row]:
    trainings = json.loads((folder / "trainings.json").read_text())
    steps = sum(training["steps"] for training in trainings)
    seconds = sum(training["steps"] * training["seconds_per_step"] for training in trainings)
    yield _row(cell, key, metric="steps", value=float(steps), n=len(trainings))
    yield _row(cell, key, metric="seconds", value=seconds, n=job.steps)
