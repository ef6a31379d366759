"""How long a plan will take, from a few measured steps: with one worker or several."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from tpv.evaluation.score import evaluate
from tpv.execution.plan import WorkUnit, unit_needs
from tpv.execution.workplace import threads
from tpv.studies.expressions import Initial
from tpv.studies.jobs.base import Job, Sizes
from tpv.studies.lab import Lab
from tpv.training.fit import fit
from tpv.training.recipe import Recipe

PROMPTS, STEPS, ROWS = 4, 2, 32
SECONDS = 30.0  # for measuring: what then is not measured is taken to be like another task of its family


@dataclass(frozen=True)
class Speed:
    """Rows a second on one task."""

    train: float
    score: float


@dataclass(frozen=True)
class Measured:
    """What was found out about this machine.

    Attributes:
        speeds: by task.
        start: seconds of a processor until a process has Python, libraries and model; whatever else is at work.
    """

    speeds: dict[str, Speed]
    start: float

    def costs(self, every: Iterable[WorkUnit], sizes: Sizes) -> list[float]:
        """Seconds that each of these units takes one worker."""
        return [_seconds(unit.jobs, sizes, self.speeds) for unit in every]

    def wall(self, every: Sequence[WorkUnit], costs: Sequence[float], workers: int) -> float:
        """Seconds that `tpv run` takes from its start to its end.

        One worker is the process itself. Several start side by side, on cores of their own; the process that waits for
        them loads its libraries when it makes tables of what they left.
        """
        return self.start * (1 if workers == 1 else 2) + makespan(every, costs, workers)


def measure(lab: Lab) -> Measured:
    """Start and speed on every task, at the number of threads that a worker has; half a minute on a small model.

    Raises:
        TpvError: the model or the data are not on this machine.
    """
    result = dict[str, Speed]()
    families = [(*family.sources, *family.targets) for family in lab.config.families]
    with threads(lab.config):
        lab.backbone  # noqa: B018, load it
        start, begun = time.process_time(), time.perf_counter()
        for family in families:
            for name in family:
                late = time.perf_counter() - begun > SECONDS and name != family[0]
                result[name] = result[family[0]] if late else _measure(lab, name)
    return Measured(result, start)


def _measure(lab: Lab, name: str) -> Speed:
    task = lab.task(name).limited({"train": ROWS, "test": ROWS}, 0)
    starts = [lab.prompt(Initial(seed)) for seed in range(PROMPTS)]
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
    return Speed(STEPS * PROMPTS * recipe.batch_size / (trained - begun), rows / (scored - trained))


def _seconds(jobs: Iterable[Job], sizes: Sizes, speeds: dict[str, Speed]) -> float:
    """What these jobs take one after the other."""
    total = 0.0
    for job in jobs:
        amount, tasks = job.work(sizes), job.reads
        if tasks:
            speed = speeds[tasks[0]]
            total += amount.train_rows / speed.train + amount.score_rows / speed.score
    return total


def makespan(every: Sequence[WorkUnit], costs: Sequence[float], workers: int) -> float:
    """Seconds until the last of these units is done, each begun as `tpv run` begins it.

    Args:
        every: units in their order; what a unit needs and is not among them is there.
        costs: seconds that each takes one worker.
    """
    waits_for, waiting, settled = unit_needs(every), dict.fromkeys(range(len(every))), set[int]()
    running: list[tuple[float, int]] = []
    now = 0.0
    while waiting or running:
        for number in list(waiting):
            if len(running) == workers:
                break
            if waits_for[number] <= settled:
                del waiting[number]
                heappush(running, (now + costs[number], number))
        now, number = heappop(running)
        settled.add(number)
    return now
