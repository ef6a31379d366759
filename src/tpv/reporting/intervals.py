"""How far each score hangs on which test examples there are: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tpv import metrics
from tpv.reporting.about import TaskInfo
from tpv.reporting.page import Section
from tpv.reporting.records import Row
from tpv.reporting.results import Predictions, Results, value
from tpv.reporting.significance import outputs_of, values_of
from tpv.reporting.stats import RESAMPLED, Interval, bootstrap_interval, bootstrap_mean
from tpv.reporting.tables import MISSING, Cell, Table


@dataclass(frozen=True)
class Group:
    """Runs of one method on one task."""

    what: str
    task: str
    method: str
    metric: str
    rows: list[Row]


def _interval(group: Group, info: TaskInfo, predictions: Predictions) -> tuple[Interval, int, int] | None:
    """The interval of a group's score, with its number of runs and examples."""
    jobs = [row.job for row in group.rows]
    if not info.labels:
        values = values_of(info, jobs, group.metric, predictions)
        return None if values is None else (bootstrap_mean(values), *values.shape)
    found = outputs_of(info, jobs, predictions) if group.metric in RESAMPLED else None
    if found is None:
        return None
    gold, outputs = found
    return bootstrap_interval(gold, outputs, group.metric, positive=info.positive), len(outputs), len(gold)


def section(results: Results, groups: Iterable[Group]) -> Section:
    """Every mean score of the tables above, with its interval."""
    heading = "Intervals"
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        info = results.study.tasks.get(group.task)
        if not group.rows or info is None or results.predictions is None:
            continue
        found = _interval(group, info, results.predictions)
        if found is None:
            continue  # correlations are not resampled, as in `significance.resample`
        interval, runs, examples = found
        rows.append(
            (
                group.what,
                results.study.short(group.task),
                group.method,
                metrics.title(group.metric),
                value([row.value for row in group.rows]) or MISSING,
                f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
                str(runs),
                str(examples),
            )
        )
    if not rows:
        return Section(heading, "There are no predictions to resample.")
    table = Table(
        "Scores with 95 % intervals over test examples",
        ("what", "task", "method", "metric", "mean", "95 % interval", "runs", "examples"),
        rows,
        note="Percent; mean and standard deviation over runs (initializations, and for moved vectors pairs of them). "
        "The interval resamples the test examples 2,000 times and keeps the runs: it covers the choice of examples, "
        "the deviation that of initializations. Sums: the smallest and the largest; plain ones, the largest. "
        "Transfer at the shots of Tables 2 and 4. Rows of results.parquet: "
        'experiments "sources", "cross_initialization", "combination" and "transfer".',
        name="intervals",
    )
    text = "The scores of the sections above once more, with what the size of the test sets leaves open."
    return Section(heading, text, tables=[table])
