"""How far each score hangs on which test examples there are: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tpv.reporting import combination, cross, transfer
from tpv.reporting.page import Section
from tpv.reporting.results import Results, unique, value, where
from tpv.reporting.significance import outputs_of
from tpv.reporting.stats import bootstrap_interval
from tpv.reporting.tables import MISSING, Cell, Table
from tpv.studies.records import Row


@dataclass(frozen=True)
class _Group:
    """Runs of one method on one task."""

    what: str
    task: str
    method: str
    metric: str
    rows: list[Row]


def _groups(results: Results) -> Iterator[_Group]:
    study = results.study
    tuned = results.of("sources", "exact_match")
    moved = [row for row in results.of(cross.EXPERIMENT, "exact_match") if row.method != "tuned"]
    for task in results.in_order(row.task for row in (*tuned, *moved)):
        for what, rows in (("source task", tuned), ("on another start", moved)):
            mine = where(rows, task=task)
            for method in sorted(unique(row.method for row in mine), key=lambda name: name == "tuned"):
                name = cross.NAMES["moved"] if method == "moved" else method
                yield _Group(what, task, name, "exact_match", where(mine, method=method))
    sums, plain = combination.sums(results), combination.plain_rows(results)
    sizes = {len(each.tasks) for each in sums} | {combination.summed(row) for rows in plain.values() for row in rows}
    shown = {min(sizes), max(sizes)} if sizes else set()  # sums of every size would be hundreds
    for each in sums:
        if len(each.tasks) not in shown:
            continue
        for task, rows in zip(each.tasks, each.scores, strict=True):
            yield _Group("sum", task, study.joined(each.sources), "exact_match", rows)
    for mode, rows in plain.items():
        for sources in unique(row.sources for row in rows if combination.summed(row) == max(shown)):
            for task in sources.split("+"):
                mine = where(rows, sources=sources, task=task)
                yield _Group(mode, task, study.joined(sources), "exact_match", mine)
    every = results.of(transfer.EXPERIMENT, "exact_match")
    for shots in transfer.few(sorted({row.shots or 0 for row in every})):
        for task in results.in_order(row.task for row in where(every, shots=shots)):
            metric = study.tasks[task].metric
            rows = where(results.of(transfer.EXPERIMENT, metric), task=task, shots=shots)
            for method in unique(row.method for row in rows):
                mine = where(rows, method=method)
                yield _Group(f"target, {shots} shots", task, study.method(method), metric, mine)


def section(results: Results) -> Section:
    """Every mean score of the tables above, with its interval."""
    heading = "Intervals"
    rows: list[tuple[Cell, ...]] = []
    for group in _groups(results):
        info = results.study.tasks.get(group.task)
        if not group.rows or info is None or results.predictions is None or group.metric == "pearson":
            continue  # correlations are not resampled, as in `significance.resample`
        gold, outputs = outputs_of(info, [row.job for row in group.rows], results.predictions)
        interval = bootstrap_interval(gold, outputs, group.metric, positive=info.positive)
        rows.append(
            (
                group.what,
                results.study.short(group.task),
                group.method,
                transfer.METRICS[group.metric],
                value([row.value for row in group.rows]) or MISSING,
                f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
                str(len(outputs)),
                str(len(gold)),
            )
        )
    if not rows:
        return Section(heading, "There are no predictions to resample.")
    table = Table(
        "Scores with 95 % intervals over test examples",
        ("what", "task", "method", "metric", "mean", "95 % interval", "runs", "examples"),
        rows,
        note="Percent; mean and deviation over runs (starts, and for moved vectors pairs of starts). The interval "
        "resamples the test examples 2,000 times and keeps the runs: it says what other examples would have changed, "
        "the deviation what other starts did. Sums: the smallest and the largest; plain ones, the largest. "
        "Transfer at the shots of Tables 2 and 4. Rows of results.parquet: "
        'experiments "sources", "cross_initialisation", "combination" and "transfer".',
        name="intervals",
    )
    text = "The scores of the sections above once more, with what the size of the test sets leaves open."
    return Section(heading, text, tables=[table])
