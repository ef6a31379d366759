"""Race candidates for the best start from a few rows of a task, as `tpv transfer` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.registry import Entry, register
from tpv.reporting.records import Row
from tpv.studies.cells import Cell, metric_rows
from tpv.studies.expressions import Data
from tpv.studies.jobs.base import Job, Output, Sizes, Work, save_table

if TYPE_CHECKING:
    from tpv.progress import Callback
    from tpv.studies.lab import Lab

METHOD = "transfer"  # the choice; with a candidate's name behind it, that candidate's best entrant


def name_of(vector: Any) -> str:
    """What a race calls a vector of its library."""
    return " + ".join(vector.tasks_of)


def candidates_of(budget: str, given: Sequence[str]) -> tuple[str, ...]:
    """The candidates that race: those given, or those of the budget."""
    return tuple(given) or tuple(one.name for one in register.candidate if budget in one.about.get("budgets", ()))


@register.job("race", order=6)
@dataclass(frozen=True)
class Race(Job):
    """What `tpv.transfer` chooses from a few rows, and the best entrant of every candidate, on the test split.

    All of them answer with the likeliest label, so that exact match is accuracy. Validation rows are left alone.
    """

    kind: ClassVar[str] = "race"
    title: ClassVar[str] = "races"
    doing: ClassVar[str] = "racing"
    data: Data
    vectors: tuple[Any, ...]
    budget: str
    candidates: tuple[str, ...]
    seed: int

    @property
    def task(self) -> str:
        """The target."""
        return self.data.tasks[0]

    @property
    def reads(self) -> tuple[str, ...]:
        return self.data.tasks

    def uses(self) -> list[Entry[Any]]:
        return [*super().uses(), *(register.candidate[name] for name in self.candidates)]

    def work(self, sizes: Sizes) -> Work:
        from tpv.training.recipe import BATCH
        from tpv.transfers.problem import LEVELS

        level, rows = LEVELS[self.budget], self.data.shots or sizes[self.task]["train"]
        again = level.trained * level.steps(rows)[-1]  # every candidate's best entrant is fitted, not the winner alone
        steps, judged = level.trainings(rows) + again, 2 * level.sources + 6
        scored = level.scored(rows, len(self.vectors)) + sizes[self.task]["test"] * judged
        return Work(steps, steps * min(BATCH, rows), scored)

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        return [job.race(lab, callback) for job in jobs]

    def race(self, lab: Lab, callback: Callback) -> Output:
        """One race."""
        from tpv.outputs import output_of
        from tpv.transfers import problem_of
        from tpv.transfers.judging import judged
        from tpv.transfers.racing import race

        whole = lab.data(self.data)
        few = replace(whole, splits={"train": whole.examples("train")})
        problem, entrants = problem_of(
            lab.backbone,
            few,
            {name_of(vector): lab.vector(vector) for vector in self.vectors} or None,
            budget=self.budget,
            candidates=self.candidates,
            seed=self.seed,
            num_tokens=None if self.vectors else lab.config.prompt.tokens,
            max_input_length=lab.config.model.max_input_length,
            callback=callback,
        )
        standings = race(problem, entrants, None, lambda *_: None)
        best = {standing.entrant.candidate: standing for standing in reversed(standings)}
        told = {"predictions.parquet": standings[0]}
        told |= {file_of(name): best[name] for name in self.candidates if name in best}
        rows = lab.task(self.task).examples("test")
        answers = judged(problem, list(told.values()), rows)
        output = output_of(few.spec)
        tables = {file: output.predictions(said, few, rows) for file, said in zip(told, answers, strict=True)}

        def save(folder: Path) -> None:
            for file, table in tables.items():
                save_table(table, file, folder)

        return Output(save, {"chosen": standings[0].entrant.name, "standings": [one.row() for one in standings]})

    def predictions(self, folder: Path, task: str) -> Path:
        return folder / "predictions.parquet"

    def rows(self, cell: Cell, folder: Path, key: str, labels: Mapping[str, Sequence[str]]) -> Iterator[Row]:
        candidate = cell.method.removeprefix(METHOD).removeprefix("_")
        file = folder / file_of(candidate) if candidate else self.predictions(folder, self.task)
        if file.exists():  # a candidate that needs sources does not enter without
            yield from metric_rows(cell, key, file)


def file_of(candidate: str) -> str:
    """The file with the predictions of a candidate's best entrant."""
    return f"candidate_{candidate}.parquet"
