"""What a report shows of an experiment or a metric that it knows nothing about."""

from __future__ import annotations

from collections.abc import Iterable

from tpv import metrics
from tpv.registry import register
from tpv.reporting.about import kind
from tpv.reporting.page import Section
from tpv.reporting.records import Row
from tpv.reporting.results import Results, made_from, not_run, unique, value
from tpv.reporting.tables import MISSING, Cell, Table

HEAD = ("task", "sources", "method", "shots", "scale", "metric", "mean", "n")


def _lines(results: Results, rows: Iterable[Row]) -> list[tuple[Cell, ...]]:
    """A line for each distinct thing that was scored: mean and standard deviation over seeds."""
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = (row.task, row.sources, kind(row), row.shots, row.scale, row.metric)
        found.setdefault(key, []).append(row)
    study = results.study
    return [
        (
            study.short(first.task) or MISSING,
            study.joined(first.sources) or MISSING,
            study.named(kind(first)),
            MISSING if first.shots is None else str(first.shots),
            MISSING if first.scale is None else f"{first.scale:g}",
            metrics.title(first.metric) if first.metric in register.metric else first.metric.replace("_", " "),
            value([row.value for row in mine], unit=1, digits=3) or MISSING,
            ", ".join(map(str, unique(row.n for row in mine))),
        )
        for mine in found.values()
        for first in mine[:1]
    ]


def plain_section(results: Results, experiment: str, heading: str) -> Section:
    """All test scores of an experiment in one table: for one that has no section of its own."""
    rows = results.all_of(experiment)
    if not rows:
        return Section(heading, not_run(experiment))
    note = f"Mean and deviation over seeds. {made_from(experiment)}"
    table = Table(heading, HEAD, _lines(results, rows), note=note, name=experiment)
    return Section(heading, f'All scores of experiment "{experiment}".', tables=[table])


def plugin_metrics(results: Results) -> Section | None:
    """The metrics that plugins registered, experiment by experiment; None where there are no scores of any."""
    own = {entry.name for entry in register.metric if not entry.builtin}
    tables = []
    for experiment in results.experiments:
        rows = [row for row in results.all_of(experiment) if row.metric in own]
        if rows:
            note = f"Mean and deviation over seeds. {made_from(experiment)}"
            title = f"Further metrics: {experiment.replace('_', ' ')}"
            tables.append(Table(title, HEAD, _lines(results, rows), note=note, name=f"metrics_{experiment}"))
    return Section("Further metrics", "Metrics that plugins define.", tables=tables) if tables else None
