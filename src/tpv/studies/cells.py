"""Cells: the jobs of an experiment, and what their numbers are the numbers of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpv.files import read_parquet
from tpv.registry import register
from tpv.reporting.records import ORDINARY, Row

if TYPE_CHECKING:
    from tpv.studies.jobs.base import Job
    from tpv.studies.settings import Config


TIMES = ("seconds", "seconds_before")  # metrics that no two runs have the same values of


@dataclass(frozen=True)
class Cell:
    """One job of an experiment; the fields that a `Row` has too become those of its rows.

    Attributes:
        coverage: also tell which of the task's label words the sources have said.
        costed: also tell what training cost.
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
    costed: bool = False


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


def cost_rows(cell: Cell, key: str, record: Callable[[Job], Mapping[str, Any]]) -> Iterator[Row]:
    """What the prompt of a cell that is scored cost to train, as far as the records of the artifacts know.

    `trained` is the number of parameters; `seconds` those of the trainings on the target, shares of their banks', and
    `seconds_before` those of all else that it was made from, trainings of the sources' prompts among it.

    Args:
        record: of the artifact of a job.
    """
    from tpv.studies.jobs.base import in_order

    for made in cell.job.needs() if cell.costed else ():
        about = record(made)
        if "trained" in about:
            yield row(cell, key, metric="trained", value=float(about["trained"]), n=1)
        own = getattr(made, "own", None)  # tuned on the target first
        times: dict[str, list[Mapping[str, Any]]] = {"seconds": [about], "seconds_before": []}
        for need in in_order(made.needs()):
            times["seconds" if need == own else "seconds_before"].append(record(need))
        for metric, records in times.items():
            if all("seconds" in one for one in records):
                yield row(cell, key, metric=metric, value=float(sum(one["seconds"] for one in records)), n=1)


def cells(config: Config) -> list[Cell]:
    """All cells of a config, experiment by experiment."""
    return [
        cell for entry in register.experiment if entry.name in config.experiments for cell in entry.thing.cells(config)
    ]
