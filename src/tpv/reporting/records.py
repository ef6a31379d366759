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
        method: what was done: `tuned`, `moved`, `sum`, `spot`, ... (identifiers; see the experiment).
        sources: the tasks whose vectors or prompts were used.
        init_seed: of the initialization.
        shots: training examples in total; in the cost experiment the size of the pool.
        scale: the factor of the vectors.
        n: how many examples (or values) went into it.
        vector_seed: of the initialization that the vectors were trained from, where it is not the one they are added
            to.
        split: of the task, where one was scored.
        job: key of the job whose artifact it was calculated from.
        mode: how the vectors were trained: `ordinary`, or a method from `tpv.register.method`.
        home: whether they were added to the initialization they were trained from, where that has to be told.
        merge: how the vectors were merged, where they were not added: a method from `tpv.register.merge`.
        parameters: of the merge, or of a registered method, those that the config sets, as JSON; empty without any.
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
