"""What a config comes to: jobs in order, which of them share a bank, how much work they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tpv.registry import register
from tpv.reporting.about import kind
from tpv.studies.cells import Cell
from tpv.studies.jobs.base import Job, Sizes, Work, in_order
from tpv.studies.settings import Config


@dataclass(frozen=True)
class WorkUnit:
    """Jobs that run together in a fixed composition, so that their last bits do not change: one bank."""

    jobs: tuple[Job, ...]

    @property
    def kind(self) -> str:
        return self.jobs[0].kind


def work_units(config: Config, jobs: Sequence[Job]) -> list[WorkUnit]:
    """The jobs of a config as work units, in an order in which each comes after what it needs.

    Composition depends on the config only, never on what is done already, so that a resumed run makes the same banks as
    an undisturbed one.

    Args:
        jobs: all of them, needs before what needs them.
    """
    level: dict[Job, int] = {}
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        level[job] = max((level[need] + 1 for need in job.needs()), default=0)
        groups.setdefault((level[job], job.kind, job.bank_key()), []).append(job)
    result: list[WorkUnit] = []
    for _, members in sorted(groups.items(), key=lambda item: item[0][0]):  # type: ignore[arg-type, return-value]
        size = members[0].bank_size(config)
        result += [WorkUnit(tuple(members[i : i + size])) for i in range(0, len(members), size)]
    return result


def chosen(every: Sequence[WorkUnit], cells: Iterable[Cell]) -> list[WorkUnit]:
    """The work units that these cells and all they need are in, in order."""
    wanted = set(in_order(cell.job for cell in cells))
    kept: list[WorkUnit] = []
    for unit in reversed(every):  # a unit runs whole, so all its members' needs are needed too
        if wanted.intersection(unit.jobs):
            kept.append(unit)
            wanted.update(need for job in unit.jobs for need in job.needs())
    return kept[::-1]


def unit_needs(every: Sequence[WorkUnit]) -> list[set[int]]:
    """For each work unit, the positions of the units whose artifacts it reads."""
    place = {job: number for number, unit in enumerate(every) for job in unit.jobs}
    return [{place[need] for job in unit.jobs for need in job.needs() if need in place} for unit in every]


def check_sizes(config: Config, sizes: Sizes) -> None:
    """Refuse what there are no examples for.

    Raises:
        TpvError: naming the task, what was asked for and the rows.
    """
    for entry in register.experiment:
        if entry.name in config.experiments and hasattr(entry.thing, "check"):
            entry.thing.check(config, sizes)


@dataclass
class PlanLine:
    """One line of a plan: jobs of an experiment that are alike."""

    experiment: str
    what: str
    method: str
    shots: int | None
    jobs: int = 0
    done: int = 0
    work: Work = field(default_factory=Work)


def lines(cells: Sequence[Cell], done: Callable[[Job], bool], sizes: Sizes) -> list[PlanLine]:
    """The plan of these cells: every job once, under the first experiment that asks for it.

    Evaluations are counted in every experiment that asks for them, since each of them reports them.
    """
    found: dict[tuple[object, ...], PlanLine] = {}
    seen: set[Job] = set()

    def count(cell: Cell, job: Job, what: str) -> None:
        split = getattr(register.experiment[cell.experiment].thing, "plan_split", ())
        shown = kind(cell)
        method = " ".join([shown.plain, *shown.sources]) + shown.suffix if "method" in split else ""
        key = (cell.experiment, what, method, cell.shots if "shots" in split else None)
        line = found.setdefault(key, PlanLine(*key))
        line.jobs += 1
        line.done += done(job)
        if job not in seen:
            line.work += job.work(sizes)
        seen.add(job)

    for cell in cells:
        for job in in_order([cell.job]):
            if job == cell.job:
                count(cell, job, job.plan_title())
            elif job not in seen:
                count(cell, job, "source prompts" if cell.experiment == "sources" else job.plan_title())
    return list(found.values())
