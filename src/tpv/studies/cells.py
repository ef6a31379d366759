"""Cells: the jobs of an experiment, and what their numbers are the numbers of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpv.files import read_parquet
from tpv.registry import register
from tpv.reporting.records import ORDINARY, Row

if TYPE_CHECKING:
    from tpv.studies.jobs.base import Job
    from tpv.studies.settings import Config


@dataclass(frozen=True)
class Cell:
    """One job of an experiment; the fields that a `Row` has too become those of its rows.

    Attributes:
        coverage: also tell which of the task's label words the sources have said.
    """

    experiment: str
    job: Job
    method: str
    task: str = ""
    sources: tuple[str, ...] = ()
    init_seed: int = 0
    shots: int | None = None
    scale: float | None = None
    vector_seed: int | None = None
    mode: str = ORDINARY
    home: bool = False
    merge: str = ""
    parameters: str = ""
    coverage: bool = False


SHARED = {field.name for field in fields(Cell)} & {field.name for field in fields(Row)}


def row(cell: Cell, key: str, **values: Any) -> Row:
    """A row of a cell; `values` are the number and whatever differs from the cell."""
    return Row(**({name: getattr(cell, name) for name in SHARED} | {"job": key} | values))


def metric_rows(cell: Cell, key: str, file: Path, **values: Any) -> Iterator[Row]:
    """Every metric of the predictions in a file, as rows of a cell."""
    from tpv import metrics
    from tpv.outputs.scores import score_predictions

    scores = score_predictions(read_parquet(file))
    for metric in metrics.names():
        if scores.defined(metric):
            yield row(cell, key, metric=metric, value=scores.metric(metric), n=scores.n, **values)


def cells(config: Config) -> list[Cell]:
    """All cells of a config, experiment by experiment."""
    return [
        cell for entry in register.experiment if entry.name in config.experiments for cell in entry.thing.cells(config)
    ]
