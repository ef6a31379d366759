"""What every job kind is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import Entry, register
from tpv.studies.expressions import Expression, entries_in, jobs_in
from tpv.training.recipe import TRAIN_ROW, Recipe

if TYPE_CHECKING:
    from tpv.progress import Callback
    from tpv.reporting.records import Row
    from tpv.studies.cells import Cell
    from tpv.studies.lab import Lab
    from tpv.studies.settings import Config

SCORE_BANK = 16  # prompts scored together
Sizes = Mapping[str, Mapping[str, int]]  # rows by task and split
Save = Callable[[Path], object]


@dataclass
class Output:
    """What one job gave: how to write its files into a folder, and words for its record."""

    save: Save
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """How much a job is: optimizer steps, rows trained on and rows scored."""

    steps: int = 0
    train_rows: int = 0
    score_rows: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    @property
    def weight(self) -> float:
        """In scored rows."""
        return TRAIN_ROW * self.train_rows + self.score_rows


class Job(Expression):
    """One unit of computation, as plain data; subclasses are frozen dataclasses.

    Attributes:
        kind: its name in the registry.
        version: of its code: raise it when what it calculates changes.
        title: what a plan calls several of them.
        doing: what the progress of a run calls one in the works.
    """

    is_job: ClassVar[bool] = True
    kind: ClassVar[str]
    version: ClassVar[int] = 1
    title: ClassVar[str] = ""
    doing: ClassVar[str] = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """The tasks whose rows it reads itself."""
        return ()

    def _values(self) -> list[Any]:
        return list(vars(self).values())

    def needs(self) -> tuple[Job, ...]:
        """The jobs whose artifacts it reads."""
        return tuple(dict.fromkeys(need for value in self._values() for need in jobs_in(value)))

    def uses(self) -> list[Entry[Any]]:
        """Registered things that decide its value; the source of those from plugins is part of its key."""
        return [register.job[self.kind], *(entry for value in self._values() for entry in entries_in(value))]

    def bank_key(self) -> object:
        """Jobs of one level with equal keys can share forward passes; by default none can."""
        return self

    @classmethod
    def bank_size(cls, config: Config) -> int:
        """How many such jobs share them at most."""
        return 1

    def work(self, sizes: Sizes) -> Work:
        """How much it is, alone, from the sizes of its tasks."""
        return Work()

    def plan_title(self) -> str:
        """What a plan calls it, among others of its kind."""
        return self.title

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        """The outputs of jobs that share a bank, in order.

        Args:
            callback: told how far a training is.
            checkpoint: where a training keeps its state, to resume from after a kill.
        """
        raise NotImplementedError

    def load(self, lab: Lab) -> None:
        """Load what a run of it reads, so that a run that is timed does not."""

    def predictions(self, folder: Path, task: str) -> Path | None:
        """The file of its artifact with the predictions on a task's test split; None if it makes none."""
        return None

    def rows(self, cell: Cell, folder: Path, key: str, labels: Mapping[str, Sequence[str]]) -> Iterator[Row]:
        """The rows that its artifact gives for a cell.

        Args:
            folder: of the artifact.
            key: of the job.
            labels: the label words of every task.
        """
        return iter(())


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """These jobs and all they need, each once, needs first."""
    done: dict[Job, None] = {}

    def visit(job: Job) -> None:
        if job not in done:
            for need in job.needs():
                visit(need)
            done[job] = None

    for job in jobs:
        visit(job)
    return list(done)


def at_most(rows: int, most: int | None) -> int:
    """The number of rows, limited."""
    return rows if most is None else min(rows, most)


def training_work(recipe: Recipe, rows: int, validation: int) -> Work:
    """The work of one training, from the number of its rows."""
    steps = recipe.total_steps(rows)
    times = 0 if recipe.select == "last" else math.ceil(steps / recipe.eval_every)
    return Work(steps, steps * recipe.batch_size, times * validation)


def save_table(table: Any, name: str, folder: Path) -> None:
    """Write a table of an artifact."""
    import pyarrow.parquet as pq

    pq.write_table(table, folder / name, compression="zstd")
