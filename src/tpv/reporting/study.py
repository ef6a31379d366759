"""The report of an experiment run: one page, and its tables and figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tpv.files import staged_folder
from tpv.registry import Entry, register
from tpv.reporting import calibration, figures, intervals
from tpv.reporting.about import FamilyInfo, Study, TaskInfo
from tpv.reporting.generic import plain_section, plugin_metrics
from tpv.reporting.page import Chapter, Section, write_markdown, write_page
from tpv.reporting.records import Row
from tpv.reporting.results import Predictions, Results
from tpv.reporting.significance import resample, significance_table
from tpv.reporting.tables import Table

__all__ = ["FamilyInfo", "Study", "TaskInfo", "write_report"]

OWNED = {"tables": (".csv", ".tex"), "figures": (".png", ".svg")}  # what of `out` a report replaces


def _sections(results: Results) -> list[Section]:
    """Every section, in the order of the experiments; the tests behind stars after the last that has any."""
    shown = [entry for entry in register.experiment if entry.builtin or entry.name in results.experiments]
    chapters = [(entry.thing, _chapter(entry, results)) for entry in shown]
    tested = [chapter for _, chapter in chapters if chapter.verdicts or chapter.further]
    verdicts = [verdict for chapter in tested for verdict in chapter.verdicts]
    further = [verdict for chapter in tested for verdict in chapter.further]
    resampled = [*(resample(verdict, results.predictions) for verdict in verdicts), *[None] * len(further)]
    tables = [significance_table([*verdicts, *further], resampled)] if verdicts else []
    text = "The tests behind the stars." if tables else "No two methods to compare."
    sections = [Section("Settings", "What was run.", tables=[_settings(results.study)])]
    for _, chapter in chapters:
        sections += chapter.sections
        if tested and chapter is tested[-1]:
            sections.append(Section("Significance", text, tables=tables))
    if not tested:
        sections.append(Section("Significance", text))
    groups = [group for thing, _ in chapters if hasattr(thing, "groups") for group in thing.groups(results)]
    further_metrics = plugin_metrics(results)
    trusted = calibration.section(results)
    more = [found for found in (trusted, further_metrics) if found]
    return [*sections, intervals.section(results, groups), *more]


def _chapter(entry: Entry[Any], results: Results) -> Chapter:
    """An experiment's part of the report; a table of all its scores where it has no section of its own."""
    if hasattr(entry.thing, "section"):
        chapter: Chapter = entry.thing.section(results)
        return chapter
    return Chapter([plain_section(results, entry.name, str(getattr(entry.thing, "title", entry.name)))])


def _settings(study: Study) -> Table:
    facts = {"model": study.model, "authors' quirks": "on" if study.compat else "off"} | dict(study.facts)
    return Table("Settings", ("setting", "value"), list(facts.items()), name="settings")


def write_report(
    out: Path, study: Study, rows: Sequence[Row], timings: Sequence[Row], predictions: Predictions
) -> list[Table]:
    """Write `report.html`, `report.md`, `tables/` and `figures/` into `out`, an older report's replaced.

    Args:
        rows: of results.parquet; an experiment without rows is said to be not run.
        timings: rows of metric `seconds`.
        predictions: the predictions of a job by its key and the task: `example`, `gold`, `said` (null: invalid).

    Returns:
        The tables.

    Raises:
        TpvError: `out` cannot be written, or two runs of one comparison were scored on different examples.
    """
    sections = _sections(Results(study, rows, timings, predictions))
    tables = [table for section in sections for table in section.tables]
    written = set()
    with staged_folder(out) as stage:
        for folder in OWNED:
            (stage / folder).mkdir()
        files: dict[str, bytes] = {}
        for table in tables:
            files[f"tables/{table.name}.csv"] = table.csv().encode()
            files[f"tables/{table.name}.tex"] = table.tex().encode()
        for figure in (figure for section in sections for figure in section.figures):
            files[f"figures/{figure.name}.svg"] = figure.svg.encode()
            files[f"figures/{figure.name}.png"] = figures.png(figure.drawing)
        for name, content in files.items():
            (stage / name).write_bytes(content)
            written.add(out / name)
        intro = [
            f"{len(rows)} scores of the run “{study.name}” on {study.model}, each a row of results.parquet. Every "
            "number here is calculated from them; every table is also in tables/ as CSV and LaTeX, every figure in "
            "figures/ as PNG and SVG."
        ]
        if study.missing:
            intro.append(
                f"This run is not finished: {study.missing} jobs are still to do, and counts of scores below do not "
                "include what they will add."
            )
        for write, name in ((write_page, "report.html"), (write_markdown, "report.md")):
            write(stage / name, f"tpv: {study.name}", intro, sections, f"Made by {study.made_with}.")
    for folder, suffixes in OWNED.items():
        for file in (out / folder).glob("*"):
            if file.suffix in suffixes and file not in written:
                file.unlink()
    return tables
