"""What a config comes to: jobs in order, which of them share a bank, how much work they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from tpv.errors import TpvError
from tpv.studies.cells import Cell
from tpv.studies.jobs import Attend, Compare, Job, Measure, Score, Search, Train, Vectors, in_order, needs, task_of
from tpv.studies.settings import Config
from tpv.training.recipe import Recipe

SCORE_BANK = 16  # prompts scored together
TRAIN_ROW = 3.0  # a training row costs about so many scored ones: forward, and backward for activations only
Sizes = Mapping[str, Mapping[str, int]]  # rows by task and split


@dataclass(frozen=True)
class Unit:
    """Jobs that are calculated together, in a fixed composition: one bank, one set of last bits."""

    jobs: tuple[Job, ...]

    @property
    def kind(self) -> str:
        return self.jobs[0].kind


def units(config: Config, jobs: Sequence[Job]) -> list[Unit]:
    """The jobs of a whole config as units, those that are needed first.

    Composition depends on the config only, never on what is done already, so that a resumed run makes the same
    banks as an undisturbed one.

    Args:
        jobs: all of them, needs before what needs them.
    """
    level: dict[Job, int] = {}
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        level[job] = max((level[need] + 1 for need in needs(job)), default=0)
        groups.setdefault((level[job], *_bank_of(job)), []).append(job)
    result: list[Unit] = []
    for _, members in sorted(groups.items(), key=lambda item: item[0][0]):  # type: ignore[arg-type, return-value]
        size = {"train": config.run.bank, "attempt": config.run.bank, "score": SCORE_BANK}.get(members[0].kind, 1)
        result += [Unit(tuple(members[i : i + size])) for i in range(0, len(members), size)]
    return result


def _bank_of(job: Job) -> tuple[object, ...]:
    """Jobs of one level that agree in this can share forward passes."""
    if isinstance(job, Train):
        return ("train", job.recipe)
    if isinstance(job, Attend):
        return ("attempt", job.recipe)
    if isinstance(job, Score):
        return ("score", job.task)
    return (job,)


def chosen(all_units: Sequence[Unit], cells: Iterable[Cell]) -> list[Unit]:
    """The units that these cells and all they need are in, in order."""
    wanted = set(in_order(cell.job for cell in cells))
    kept: list[Unit] = []
    for unit in reversed(all_units):  # a unit runs whole, so all its members' needs are needed too
        if wanted.intersection(unit.jobs):
            kept.append(unit)
            wanted.update(need for job in unit.jobs for need in needs(job))
    return kept[::-1]


def unit_needs(every: Sequence[Unit]) -> list[set[int]]:
    """For each unit, the places of those among them whose artifacts it reads."""
    place = {job: number for number, unit in enumerate(every) for job in unit.jobs}
    return [{place[need] for job in unit.jobs for need in needs(job) if need in place} for unit in every]


@dataclass(frozen=True)
class Work:
    """How much a job is: optimiser steps, rows trained on and rows scored."""

    steps: int = 0
    train_rows: int = 0
    score_rows: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    @property
    def weight(self) -> float:
        """In scored rows."""
        return TRAIN_ROW * self.train_rows + self.score_rows


def work(job: Job, sizes: Sizes) -> Work:
    """The work of a job alone, from the sizes of its tasks."""
    if isinstance(job, Train):
        mine = [sizes[task] for task in job.data.tasks]
        validation = _cut(sum(size["validation"] for size in mine), job.data.validation_rows)
        return _training(job.recipe, job.data.shots or sum(size["train"] for size in mine), validation)
    if isinstance(job, Vectors):
        each = [_training(job.recipe, sizes[task]["train"], sizes[task]["validation"]) for task in job.tasks]
        return sum(each, Work())
    if isinstance(job, Attend):
        if job.recipe is None:
            return Work()
        train = sum(data.shots or sizes[data.tasks[0]]["train"] for data in job.targets)
        validation = sum(_cut(sizes[data.tasks[0]]["validation"], data.validation_rows) for data in job.targets)
        return _training(job.recipe, train, validation)
    if isinstance(job, Score):
        return Work(score_rows=sizes[job.task]["test"])
    if isinstance(job, Search):
        tasks = [sizes[task_of(vector)] for vector in job.vectors]
        grid = len(job.scales) * sum(size["validation"] for size in tasks)
        return Work(score_rows=grid + sum(size["test"] for size in tasks))
    if isinstance(job, Measure):
        recipes = [training.recipe for training in job.trainings if training.recipe]
        rows = sum(job.steps * recipe.batch_size for recipe in recipes)
        return Work(steps=job.steps * len(recipes), train_rows=rows)
    assert isinstance(job, Compare)
    return Work()


def _cut(rows: int, most: int | None) -> int:
    return rows if most is None else min(rows, most)


def _training(recipe: Recipe, rows: int, validation: int) -> Work:
    steps = recipe.total_steps(rows)
    times = 0 if recipe.select == "last" else math.ceil(steps / recipe.eval_every)
    return Work(steps, steps * recipe.batch_size, times * validation)


def check_sizes(config: Config, sizes: Sizes) -> None:
    """Refuse shots that there are no examples for.

    Raises:
        TpvError: naming the target, the shots and the rows.
    """
    for family in config.families if "transfer" in config.experiments else ():
        for target in family.targets:
            most, rows = max(config.shots_of(family), default=0), sizes[target]["train"]
            if most > rows:
                raise TpvError(
                    f"transfer.shots: target {target!r} has too few training examples",
                    expected=f"at most {rows}",
                    got=most,
                    fix="lower transfer.shots, or raise limits.train",
                )


@dataclass
class Line:
    """One line of a plan: jobs of an experiment that are alike."""

    experiment: str
    what: str
    method: str
    shots: int | None
    jobs: int = 0
    done: int = 0
    work: Work = Work()


WHAT = {
    "train": "prompts to tune",
    "attempt": "ATTEMPT models",
    "score": "evaluations",
    "compare": "comparisons",
    "measure": "trainings to time",
    "vectors": "sets of vectors to train",
}
SEARCHES = {2: "pair searches"}


def lines(cells: Sequence[Cell], done: Callable[[Job], bool], sizes: Sizes) -> list[Line]:
    """The plan of these cells: every job once, under the first experiment that asks for it.

    Evaluations are counted in every experiment that asks for them, since each of them reports them.
    """
    found: dict[tuple[object, ...], Line] = {}
    seen: set[Job] = set()

    def count(cell: Cell, job: Job, what: str) -> None:
        split = cell.experiment in ("transfer", "cost", "sources", "cross_initialisation", "negation")
        key = (
            cell.experiment,
            what,
            cell.method if split else "",
            cell.shots if cell.experiment == "transfer" else None,
        )
        line = found.setdefault(key, Line(*key))
        line.jobs += 1
        line.done += done(job)
        if job not in seen:
            line.work += work(job, sizes)
        seen.add(job)

    for cell in cells:
        for job in in_order([cell.job]):
            if job == cell.job:
                what = WHAT.get(job.kind, "")
                if isinstance(job, Search):
                    what = SEARCHES.get(len(job.vectors), f"searches for {len(job.vectors)} vectors")
                count(cell, job, what)
            elif job not in seen:
                own = "source prompts" if cell.experiment == "sources" else WHAT[job.kind]
                count(cell, job, own)
    return list(found.values())
