"""Time a few optimizer steps of a training."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tpv.errors import TpvError
from tpv.registry import register
from tpv.reporting.records import Row
from tpv.studies.cells import Cell, row
from tpv.studies.jobs.base import Job, Output, Sizes, Work

if TYPE_CHECKING:
    from tpv.progress import Callback
    from tpv.studies.lab import Lab


@register.job("measure", order=7)
@dataclass(frozen=True)
class Measure(Job):
    """Time a few optimizer steps of one training: the cost of a step, and the number of steps of the whole training."""

    kind: ClassVar[str] = "measure"
    title: ClassVar[str] = "trainings to time"
    doing: ClassVar[str] = "timing"
    trainings: tuple[Any, ...]
    steps: int

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(task for training in self.trainings for task in training.reads)

    def needs(self) -> tuple[Job, ...]:
        """What its trainings read: it trains them itself."""
        return tuple(dict.fromkeys(need for training in self.trainings for need in training.needs()))

    def work(self, sizes: Sizes) -> Work:
        recipes = [training.recipe for training in self.trainings if training.recipe]
        rows = sum(self.steps * recipe.batch_size for recipe in recipes)
        return Work(steps=self.steps * len(recipes), train_rows=rows)

    @classmethod
    def run(cls, lab: Lab, jobs: Sequence[Self], callback: Callback, checkpoint: Path | None) -> list[Output]:
        return [job._measure(lab) for job in jobs]

    def _measure(self, lab: Lab) -> Output:
        """Each training alone for a few steps, without validation."""
        from tpv.progress import silent

        found: list[dict[str, Any]] = []
        for training in self.trainings:
            if training.recipe is None:
                raise TpvError("a training to measure", expected="one with a recipe", got="none")
            needed = training.work(lab.sizes(training.reads)).steps
            short = replace(training.recipe, steps=self.steps, epochs=None, select="last")
            training.load(lab)
            begun = time.perf_counter()
            type(training).run(lab, [replace(training, recipe=short)], silent, None)
            found.append({"steps": needed, "seconds_per_step": (time.perf_counter() - begun) / self.steps})
        return Output(lambda folder: (folder / "trainings.json").write_text(json.dumps(found)))

    def rows(self, cell: Cell, folder: Path, key: str, labels: Mapping[str, Sequence[str]]) -> Iterator[Row]:
        trainings = json.loads((folder / "trainings.json").read_text())
        steps = sum(training["steps"] for training in trainings)
        seconds = sum(training["steps"] * training["seconds_per_step"] for training in trainings)
        yield row(cell, key, metric="steps", value=float(steps), n=len(trainings))
        yield row(cell, key, metric="seconds", value=seconds, n=self.steps)
