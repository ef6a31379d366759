"""Two runs side by side: settings that differ, and every score of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tpv import metrics
from tpv.files import staged_folder
from tpv.registry import register
from tpv.reporting.about import Study, kind
from tpv.reporting.page import Section, write_page
from tpv.reporting.records import Row
from tpv.reporting.results import Results, made_from, unique, value
from tpv.reporting.tables import MISSING, Cell, Table, Value

Key = tuple[str, str, str, str, str]  # experiment, task, method, shots, metric
Scores = dict[Key, Value]
HEAD = ("task", "method", "shots", "metric")


def _scores(study: Study, rows: Sequence[Row]) -> Scores:
    """Mean and deviation over runs of every cell: the reported metric in transfer, exact match elsewhere."""
    results = Results(study, rows)
    found: dict[Key, list[float]] = {}
    compared = [entry.name for entry in register.experiment if getattr(entry.thing, "compared", True)]
    for experiment in compared:
        for metric in metrics.names():
            for row in results.of(experiment, metric):
                info = study.tasks.get(row.task) if row.shots is not None else None
                if metric == (info.metric if info else "exact_match"):
                    method = study.named(kind(row))
                    if len(row.sources) > 1 and row.shots is None:
                        method += f" of {study.joined(row.sources)}"
                    shots = "" if row.shots is None else str(row.shots)
                    found.setdefault((experiment, row.task, method, shots, metric), []).append(row.value)
    return {key: cell for key, numbers in found.items() if (cell := value(numbers)) is not None}


def _facts(study: Study) -> dict[str, str]:
    """Every setting as text."""
    return {
        "name": study.name,
        "model": study.model,
        "authors' quirks": "on" if study.compat else "off",
        "tasks": ", ".join(study.tasks),
        "families": "; ".join(
            f"{family.name}: {', '.join(family.sources)} to {', '.join(family.targets)}" for family in study.families
        ),
        "shots": ", ".join(map(str, study.shots)),
        **dict(study.facts),
        "made with": study.made_with,
    }


def _settings(a: Study, b: Study) -> Table:
    one, two = _facts(a), _facts(b)
    names = unique([*one, *two])
    rows = [(name, one.get(name, MISSING), two.get(name, MISSING)) for name in names if one.get(name) != two.get(name)]
    note = f"{len(names) - len(rows)} other settings are the same."
    return Table("Settings that differ", ("setting", "A", "B"), rows, note=note, name="settings")


def _row(key: Key, a: Value | None, b: Value | None) -> tuple[Cell, ...]:
    """A cell of both runs and B minus A."""
    _, task, method, shots, metric = key
    difference = Value(b.mean - a.mean, signed=True) if a and b else MISSING
    return task, method, shots, metrics.title(metric), a or MISSING, b or MISSING, difference


def _title(experiment: str) -> str:
    return str(getattr(register.experiment[experiment].thing, "title", experiment))


def _section(experiment: str, a: Scores, b: Scores) -> Section:
    """Shared cells with their difference, then the others."""
    keys = [key for key in unique([*a, *b]) if key[0] == experiment]
    shared = [key for key in keys if key in a and key in b]
    alone = [key for key in keys if not (key in a and key in b)]
    tables = []
    if shared:
        differences = [b[key].mean - a[key].mean for key in shared]
        note = (
            "Percent; mean and standard deviation over runs. Mean difference "
            f"{Value(sum(differences) / len(differences), signed=True)}, largest "
            f"{Value(max(differences, key=abs), signed=True)}. {made_from(experiment)}"
        )
        rows = [_row(key, a[key], b[key]) for key in shared]
        tables.append(Table(f"{_title(experiment)}: in both", (*HEAD, "A", "B", "B − A"), rows, note=note))
    if alone:
        rows = [_row(key, a.get(key), b.get(key))[:-1] for key in alone]
        note = f"Percent. {made_from(experiment)}"
        tables.append(Table(f"{_title(experiment)}: in one run only", (*HEAD, "A", "B"), rows, note=note))
    text = f"{len(shared)} scores are in both runs, {len(alone)} in one only." if keys else "In neither run."
    return Section(_title(experiment), text, tables=tables)


def write_comparison(out: Path, a: tuple[Study, Sequence[Row]], b: tuple[Study, Sequence[Row]]) -> list[Table]:
    """Write `comparison.html` and `comparison.csv` into folder `out`; returns the tables of the page.

    Raises:
        TpvError: `out` cannot be written.
    """
    (one, rows_a), (two, rows_b) = a, b
    scores_a, scores_b = _scores(one, rows_a), _scores(two, rows_b)
    settings = _settings(one, two)
    shared_or_not = unique(key[0] for key in [*scores_a, *scores_b])
    sections = [
        Section("Settings", f"A: {one.name}. B: {two.name}.", tables=[settings])
        if settings.rows
        else Section("Settings", "All settings are the same."),
        *(_section(experiment, scores_a, scores_b) for experiment in shared_or_not),
    ]
    keys = unique([*scores_a, *scores_b])
    every = Table(
        "",
        ("experiment", *HEAD, "A", "B", "B − A"),
        [(key[0], *_row(key, scores_a.get(key), scores_b.get(key))) for key in keys],
    )
    intro = [f"Two runs side by side: A is “{one.name}” on {one.model}, B is “{two.name}” on {two.model}."]
    with staged_folder(out) as stage:
        (stage / "comparison.csv").write_text(every.csv(), encoding="utf-8")
        footer = f"A made by {one.made_with}; B by {two.made_with}."
        write_page(stage / "comparison.html", f"tpv: {one.name} and {two.name}", intro, sections, footer)
    return [table for section in sections for table in section.tables]
