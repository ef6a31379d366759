"""The rows of a run, found by what they are the score of, and how they become cells."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tpv.reporting.about import Kind, Study, kind
from tpv.reporting.records import ORDINARY, Row
from tpv.reporting.stats import summarise
from tpv.reporting.tables import MISSING, Value

Predictions = Callable[[str, str], Any]  # key of a job, task -> pyarrow table: example, gold, said
Thing = TypeVar("Thing", bound=Hashable)


class Results:
    """Rows by experiment, metric and split. A value that is not finite counts as missing."""

    def __init__(
        self, study: Study, rows: Iterable[Row], timings: Iterable[Row] = (), predictions: Predictions | None = None
    ) -> None:
        self.study = study
        self.predictions = predictions
        self._found: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        for row in (*rows, *timings):
            if math.isfinite(row.value):
                self._found[row.experiment, row.metric, row.split].append(row)

    def of(self, experiment: str, metric: str, split: str = "test") -> list[Row]:
        """The rows of one experiment with this metric."""
        return self._found.get((experiment, metric, split), [])

    def tuned(self) -> list[Row]:
        """Exact match of the source tasks' own prompts, from whichever experiment scored them."""
        for experiment in ("sources", "cross_initialization"):
            rows = where(self.of(experiment, "exact_match"), method="tuned", mode=ORDINARY)
            if rows:
                return rows
        return []

    @property
    def experiments(self) -> list[str]:
        """The experiments that have rows."""
        return unique(experiment for experiment, _, _ in self._found)

    def all_of(self, experiment: str, split: str = "test") -> list[Row]:
        """The rows of one experiment, whatever their metric."""
        return [row for key, rows in self._found.items() if (key[0], key[2]) == (experiment, split) for row in rows]

    def in_order(self, tasks: Iterable[str]) -> list[str]:
        """Tasks in the study's order, sources before targets, others after."""
        known = [*(task for family in self.study.families for task in family.sources)]
        known += [task for family in self.study.families for task in family.targets]
        tasks = unique(tasks)
        return [task for task in unique([*known, *self.study.tasks, *tasks]) if task in tasks]


def of_kind(rows: Iterable[Row], wanted: Kind) -> list[Row]:
    """The rows of one kind."""
    return [row for row in rows if kind(row) == wanted]


def kinds(rows: Iterable[Row]) -> list[Kind]:
    """The kinds of rows, in order of first appearance."""
    return unique(map(kind, rows))


def where(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """The rows whose fields are these."""
    return [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]


def unique(values: Iterable[Thing]) -> list[Thing]:
    """Each once, in order of first appearance."""
    return list(dict.fromkeys(values))


def starts(rows: Iterable[Row]) -> list[int]:
    """Seeds of the initializations, sorted."""
    return sorted({row.init_seed for row in rows})


def value(numbers: Sequence[float], *, unit: float = 100, digits: int = 1, signed: bool = False) -> Value | None:
    """Mean and deviation as a cell, in percent unless `unit` says otherwise; None of nothing."""
    if not numbers:
        return None
    summary = summarise([unit * number for number in numbers])
    return Value(summary.mean, summary.std if summary.n > 1 else None, summary.n, digits, signed=signed)


def cell(rows: Sequence[Row], **how: Any) -> Value | str:
    """`value` of the rows' values; a dash where there are none."""
    return value([row.value for row in rows], **how) or MISSING


def starred(content: Value | str, star: bool) -> Value | str:
    """The cell with a star, where it is to have one."""
    return replace(content, star=True) if star and isinstance(content, Value) else content


def present(have: int, of: int) -> str:
    """The sentence that says whether anything is missing."""
    return f"{have} of {of} scores present."


def made_from(experiment: str) -> str:
    """The sentence that says which rows a table or figure shows."""
    return f'Rows of results.parquet: experiment "{experiment}".'


def not_run(experiment: str) -> str:
    """The text of a section without rows."""
    return f'Not run: results.parquet has no scores of experiment "{experiment}".'


def slug(text: str) -> str:
    """Text as part of a file name, which no file system finds too long."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower())[:60].strip("_") or "unnamed"
