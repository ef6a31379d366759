"""Scores as rows, and rows on disk: what every table and figure is made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tpv.evaluation.score import Scores
from tpv.files import atomic_write
from tpv.tasks import Task

METRICS = ("exact_match", "macro_f1", "f1", "pearson", "spearman", "invalid_rate", "majority", "loss")


@dataclass(frozen=True)
class Row:
    """One number, and what it is the number of.

    Attributes:
        sources: the tasks whose vectors or prompts were used, joined by `+`.
        init_seed: of the start.
        n: how many examples (or values) went into it.
        vector_seed: of the start that the vectors come from, where it is not the one they are put on.
        split: of the task, where one was scored.
        job: key of the job whose artifact it was calculated from.
    """

    experiment: str
    task: str
    method: str
    sources: str
    init_seed: int
    shots: int | None
    scale: float | None
    metric: str
    value: float
    n: int
    vector_seed: int | None = None
    split: str = "test"
    job: str = ""


SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("task", pa.string()),
        ("method", pa.string()),
        ("sources", pa.string()),
        ("init_seed", pa.int64()),
        ("shots", pa.int64()),
        ("scale", pa.float64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("n", pa.int64()),
        ("vector_seed", pa.int64()),
        ("split", pa.string()),
        ("job", pa.string()),
    ]
)


def rows_of(
    scores: Scores,
    *,
    experiment: str,
    task: Task,
    method: str,
    sources: Sequence[str],
    init_seed: int,
    shots: int | None = None,
    scale: float | None = None,
    **more: Any,
) -> list[Row]:
    """Every metric of one scoring as rows; `more` are the other fields of a `Row`."""
    return [
        Row(
            experiment,
            task.name,
            method,
            "+".join(sources),
            init_seed,
            shots,
            scale,
            metric,
            scores.metric(metric),
            scores.n,
            **more,
        )
        for metric in METRICS
        if scores.defined(metric)
    ]


def table_of(rows: Sequence[Row]) -> pa.Table:
    """The rows as a table of `SCHEMA`.

    Raises:
        pyarrow.ArrowException: a value that is not of its column's type.
    """
    return pa.Table.from_pylist([vars(row) for row in rows], SCHEMA)


def write_results(rows: Sequence[Row], path: Path) -> None:
    """The rows as a Parquet file, written atomically."""
    with atomic_write(path) as part:
        pq.write_table(table_of(rows), part)
