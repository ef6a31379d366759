"""How long a plan will take, from a few measured steps."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from tpv.evaluation import evaluate
from tpv.experiments.jobs import Job, Start, tasks_of
from tpv.recipe import Recipe
from tpv.runs.plan import Sizes, work
from tpv.runs.steps import Lab
from tpv.training import fit

PROMPTS, STEPS, ROWS = 4, 2, 32


@dataclass(frozen=True)
class Speed:
    """Rows a second on one task."""

    train: float
    score: float


def measure(lab: Lab) -> dict[str, Speed]:
    """The speed on one task of each family, by every task of that family; a few seconds on a small model.

    Raises:
        TpvError: the model or the data are not on this machine.
    """
    result: dict[str, Speed] = {}
    for family in lab.config.families:
        task = lab.task(family.sources[0]).limited({"train": ROWS, "test": ROWS}, 0)
        starts = [lab.prompt(Start(seed)) for seed in range(PROMPTS)]
        recipe = Recipe(
            steps=STEPS, batch_size=ROWS // PROMPTS, select="last", max_input_length=lab.config.model.max_input_length
        )
        evaluate(lab.backbone, task, starts[:1])  # wake everything up
        begun = time.perf_counter()
        fit(lab.backbone, task, starts, recipe, callback=lambda _: None)
        trained = time.perf_counter()
        evaluate(lab.backbone, task, starts)
        scored = time.perf_counter()
        rows = len(task.examples("test")) * PROMPTS
        speed = Speed(STEPS * PROMPTS * recipe.batch_size / (trained - begun), rows / (scored - trained))
        result |= dict.fromkeys((*family.sources, *family.targets), speed)
    return result


def seconds(jobs: Iterable[Job], sizes: Sizes, speeds: dict[str, Speed]) -> float:
    """What these jobs take one after the other."""
    total = 0.0
    for job in jobs:
        amount, tasks = work(job, sizes), tasks_of(job)
        if tasks:
            speed = speeds[tasks[0]]
            total += amount.train_rows / speed.train + amount.score_rows / speed.score
    return total
