"""Rows: one number each, and what it is the number of. What every table and figure is made from.

Identity is data: each part of it is a field. What people call a combination of fields, `tpv.reporting.about` says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tpv.files import atomic_write, read_parquet

ORDINARY = "ordinary"  # the mode of vectors that are a tuned prompt minus its initialization


@dataclass(frozen=True)
class Row:
    """One number, and what it is the number of.

    Attributes:
        experiment: the experiment, such as `sources` or `transfer`.
        task: the task that was scored.
        method: what was done, such as `tuned`, `moved`, `sum` or `spot`.
        sources: the tasks whose vectors or prompts were used.
        init_seed: seed of the initialization.
        shots: training examples in total; in the experiment `cost` the size of the pool.
        scale: factor of the vectors.
        metric: the metric, a name from `tpv registry metric`; or a measurement of an experiment, such as `cosine`.
        value: the number.
        n: how many examples (or values) went into it.
        vector_seed: seed of the initialization that the vectors were trained from, where it is not the one they are
            added to.
        split: the split that was scored.
        job: key of the job whose artifact the number was calculated from.
        mode: how the vectors were trained: `ordinary`, or a method from `tpv registry method`.
        home: whether the vectors were added to the initialization they were trained from, where that is not clear from
            the other columns.
        merge: how the vectors were merged, where they were not added: a name from `tpv registry merge`.
        parameters: parameters of the merge, or of a registered method, that the config sets, as JSON; empty if there
            are none.
    """

    experiment: str
    task: str
    method: str
    sources: tuple[str, ...]
    init_seed: int
    shots: int | None
    scale: float | None
    metric: str
    value: float
    n: int
    vector_seed: int | None = None
    split: str = "test"
    job: str = ""
    mode: str = ORDINARY
    home: bool = False
    merge: str = ""
    parameters: str = ""


SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("task", pa.string()),
        ("method", pa.string()),
        ("sources", pa.list_(pa.string())),
        ("init_seed", pa.int64()),
        ("shots", pa.int64()),
        ("scale", pa.float64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("n", pa.int64()),
        ("vector_seed", pa.int64()),
        ("split", pa.string()),
        ("job", pa.string()),
        ("mode", pa.string()),
        ("home", pa.bool_()),
        ("merge", pa.string()),
        ("parameters", pa.string()),
    ]
)


def as_json(parameters: Sequence[tuple[str, Any]]) -> str:
    """Parameters as the field of a row holds them."""
    return json.dumps(dict(parameters), sort_keys=True) if parameters else ""


def table_of(rows: Sequence[Row]) -> pa.Table:
    """The rows as a table of `SCHEMA`.

    Raises:
        pyarrow.ArrowException: a value that is not of its column's type.
    """
    return pa.Table.from_pylist([vars(row) for row in rows], SCHEMA)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """The rows as a Parquet file, written atomically."""
    with atomic_write(path) as part:
        pq.write_table(table_of(rows), part)


def read_rows(path: Path) -> list[Row]:
    """The rows in a Parquet file that `write_rows` wrote.

    Raises:
        OSError, pyarrow.ArrowException, TypeError: it does not read.
    """
    return [Row(**(values | {"sources": tuple(values["sources"])})) for values in read_parquet(path).to_pylist()]
