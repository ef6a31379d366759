"""Every source task's prompt from every initialization (eq. 1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tpv import metrics
from tpv.registry import register
from tpv.reporting.intervals import Group
from tpv.reporting.page import Chapter, Section
from tpv.reporting.results import Results, cell, made_from, not_run, present, starts, unique, where
from tpv.reporting.tables import MISSING, Cell, Table
from tpv.studies import cells
from tpv.studies.expressions import Initial
from tpv.studies.jobs.score import Score
from tpv.studies.settings import Config
from tpv.studies.vectors import source_prompt

NAME = "sources"
SHOWN = (
    "exact_match",
    "macro_f1",
    "f1",
    "invalid_rate",
    "majority",
    "loss",
    "spearman",
    "accuracy",
    "log_loss",
    "ece",
)  # in a place of their own, or not


@register.experiment(NAME, order=10)
class Sources:
    """Every source task's prompt from every initialization, before and after tuning."""

    title: ClassVar[str] = "Source tasks"
    plan_split: ClassVar[tuple[str, ...]] = ("method",)

    @staticmethod
    def cells(config: Config) -> Iterator[cells.Cell]:
        """Tuned and untuned prompts of every source task and initialization."""
        for task in config.source_tasks:
            for seed in config.seeds.starts:
                tuned = source_prompt(config, task, seed)
                yield cells.Cell(NAME, Score(tuned, task), "tuned", task, (task,), seed)
                yield cells.Cell(NAME, Score(Initial(seed), task), "untuned", task, (), seed)

    @staticmethod
    def section(results: Results) -> Chapter:
        """What tuning a prompt for each source task gives."""
        return Chapter([_section(results)])

    @staticmethod
    def groups(results: Results) -> Iterator[Group]:
        """The scores that get an interval."""
        rows = results.of(NAME, "exact_match")
        for task in results.in_order(row.task for row in rows):
            for method in ("untuned", "tuned"):
                mine = where(rows, task=task, method=method)
                yield Group("source task", task, method, "exact_match", mine)


def _section(results: Results) -> Section:
    """What tuning a prompt for each source task gives."""
    heading = Sources.title
    scores = results.of(NAME, "exact_match")
    if not scores:
        return Section(heading, not_run(NAME))
    tasks = results.in_order(
        [*(row.task for row in scores), *(task for family in results.study.families for task in family.sources)]
    )
    columns = [
        ("untuned", "untuned", "exact_match"),
        ("exact match", "tuned", "exact_match"),
        ("macro-F1", "tuned", "macro_f1"),
        ("F1", "tuned", "f1"),
        ("invalid", "tuned", "invalid_rate"),
        ("majority", "tuned", "majority"),
    ]
    further = [name for name in metrics.names() if name not in SHOWN and results.of(NAME, name)]
    columns[3:3] = [(metrics.title(name), "tuned", name) for name in further]
    rows: list[tuple[Cell, ...]] = []
    for task in tasks:
        found = [where(results.of(NAME, metric), task=task, method=method) for _, method, metric in columns]
        examples = unique(row.n for row in where(scores, task=task))
        rows.append((results.study.short(task), *map(cell, found), ", ".join(map(str, examples)) or MISSING))
    seeds = starts(scores)
    note = (
        f"Percent of test examples; mean and standard deviation over {len(seeds)} initializations. invalid: outputs "
        "that are no label word of the task; majority: the score of always predicting the most frequent label; F1: of "
        f"the positive class, for two labels. {present(len(scores), 2 * len(tasks) * len(seeds))} {made_from(NAME)}"
    )
    head = ("task", *(name for name, *_ in columns), "examples")
    table = Table("Source tasks, before and after tuning", head, rows, note=note, name="sources")
    return Section(
        heading, "A soft prompt is tuned on each source task from each initialization (eq. 1).", tables=[table]
    )
