"""What has to be trained when one source joins a pool of n (Table 3, made measurable)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from tpv.registry import register
from tpv.reporting import figures
from tpv.reporting.about import Kind
from tpv.reporting.page import Chapter, Figure, Section
from tpv.reporting.records import Row
from tpv.reporting.results import Results, made_from, not_run, unique, value, where
from tpv.reporting.tables import MISSING, Cell, Table
from tpv.studies import cells
from tpv.studies.experiments.transfer import Transfer, attempt_job
from tpv.studies.expressions import Data, Initial
from tpv.studies.jobs.attempt import Attend
from tpv.studies.jobs.base import Job
from tpv.studies.jobs.measure import Measure
from tpv.studies.jobs.train import Train
from tpv.studies.settings import Config
from tpv.studies.tables import Count, Distinct, Settings
from tpv.studies.vectors import source_prompt

NAME = "cost"
RETRAINED = {  # what each method has to train when a task is added to a pool
    "spot_multi": "one prompt, again, on the data of the pool and the new task",
    "attempt": "the new task's prompt; then attention and target prompts again",
    "vectors": "the new task's prompt; its vector is then added",
}
SAME = 1.1  # steps at the largest pool over steps at the smallest, up to which cost does not grow


class Cost(Settings):
    """The cost of adding one source to a pool: `steps` are trained and timed, the rest is extrapolated.

    Attributes:
        pools: sizes of the pool; by default 1 to all sources but one.
        steps: steps to train and time for each.
    """

    pools: Annotated[tuple[Count, ...], Distinct] = ()
    steps: Count = 20


@register.experiment(NAME, parameters=Cost, order=70)
class CostExperiment:
    """What has to be trained when one source joins a pool."""

    title: ClassVar[str] = "The cost of one more task (Table 3)"
    plan_split: ClassVar[tuple[str, ...]] = ("method",)

    @staticmethod
    def cells(config: Config) -> Iterator[cells.Cell]:
        """One timed training per pool size and method."""
        settings, transfer = config.table(Cost), config.table(Transfer)
        names, seed = config.source_tasks, config.seeds.starts[0]
        family = next((family for family in config.families if family.targets), None)
        for size in settings.pools or range(1, len(names)):
            if size >= len(names):
                continue
            pool, added = names[: size + 1], names[size]
            alone = source_prompt(config, added, seed)
            trainings: dict[str, tuple[Job, ...]] = {
                "vectors": (alone,),
                "spot_multi": (Train(Data(pool), Initial(seed), config.joint_recipe()),),
            }
            shots = max(transfer.shots)
            if family and shots:
                own = tuple(source_prompt(config, task, seed) for task in pool)
                targets = tuple(Data((target,)) for target in family.targets)
                untrained = Attend(targets, own, None, seed, transfer.temperature)
                trainings["attempt"] = (alone, attempt_job(config, family, untrained, shots, seed))
            for method, jobs in trainings.items():
                yield cells.Cell(NAME, Measure(jobs, settings.steps), method, added, pool, seed, shots=size)

    @staticmethod
    def section(results: Results) -> Chapter:
        """Steps and seconds by pool size, and whether they grow with it."""
        return Chapter([_section(results)])

    @staticmethod
    def left_out(config: Config) -> list[str]:
        """Pools of more tasks than there are."""
        return [f"cost at a pool of {size}" for size in config.table(Cost).pools if size >= len(config.source_tasks)]


def _sized(rows: Sequence[Row], size: int) -> list[float]:
    """Values by pool size; a row's field `shots` holds it."""
    return [row.value for row in where(rows, shots=size)]


def _section(results: Results) -> Section:
    """Steps and seconds by pool size, and whether they grow with it."""
    heading = CostExperiment.title
    steps, seconds = results.of(NAME, "steps"), results.of(NAME, "seconds")
    if not steps:
        return Section(heading, not_run(NAME))
    sizes = sorted({row.shots for row in (*steps, *seconds) if row.shots is not None})
    methods = unique([*RETRAINED, *(row.method for row in steps)])
    methods = [method for method in methods if where(steps, method=method)]
    measured: list[tuple[Cell, ...]] = []
    ticks: list[tuple[Cell, ...]] = []
    bars: dict[str, dict[str, list[float]]] = {"steps": {}, "seconds": {}}
    for method in methods:
        named = results.study.named(Kind(method))
        found = {"steps": where(steps, method=method), "seconds": where(seconds, method=method)}
        for metric, rows in found.items():
            of = [value(_sized(rows, size), unit=1, digits=0 if metric == "steps" else 1) for size in sizes]
            measured.append((named, metric, *(one or MISSING for one in of)))
            bars[metric][named] = [one.mean if one else math.nan for one in of]
        known = [mean for mean in bars["steps"][named] if math.isfinite(mean)]
        grows = known[-1] / known[0] if len(known) > 1 and known[0] else None
        ticks.append(
            (
                named,
                RETRAINED.get(method, MISSING),
                MISSING if grows is None else f"{grows:.2f}",
                MISSING if grows is None else "yes" if grows <= SAME else "no",
            )
        )
    tables = [
        Table(
            "Table 3, measured: training when one task is added to a pool",
            ("method", "of", *(f"pool of {size}" for size in sizes)),
            measured,
            note="Mean and deviation over runs. Optimizer steps, and seconds of the machine that ran it "
            f"(timings are kept apart from the results). {made_from(NAME)}",
            name="cost",
        ),
        Table(
            "What has to be trained when a task is added",
            ("method", "trained", "steps, largest pool / smallest", "independent of the pool"),
            ticks,
            note=f"independent: the steps at the largest pool are at most {SAME} times those at the smallest. "
            f"{made_from(NAME)}",
            name="table3",
        ),
    ]
    groups = [f"pool of {size}" for size in sizes]
    drawings = [
        Figure(
            figures.grouped_bars(groups, series, f"{metric} to add a task", limit=None),
            f"{metric.capitalize()} to add one task, by the number of tasks in the pool: mean over runs. "
            f"{made_from(NAME)}",
            f"cost_{metric}",
        )
        for metric, series in bars.items()
        if any(math.isfinite(mean) for values in series.values() for mean in values)
    ]
    text = "A pool of n source tasks is ready; one more arrives. What is trained then, and for how long?"
    return Section(heading, text, drawings, tables)
