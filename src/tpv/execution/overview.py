"""What `tpv plan` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tpv import mini
from tpv.errors import TpvError
from tpv.execution.directory import RunDirectory
from tpv.execution.execute import only, sizes_of
from tpv.execution.manifest import check, read_manifest
from tpv.execution.plan import PlanLine, WorkUnit, check_sizes, chosen, lines, work_units
from tpv.progress import duration
from tpv.studies.config import task_spec
from tpv.studies.jobs.base import Job, Sizes, Work, in_order
from tpv.studies.settings import Config
from tpv.tasks import split_sizes
from tpv.tasks.spec import GeneratedSource, HubSource


def sizes(config: Config) -> Sizes:
    """Rows of every task by split, without loading those that say how many they have.

    Raises:
        TpvError: a task that has to be loaded and does not load.
    """
    result: dict[str, dict[str, int]] = {}
    for name in (*config.source_tasks, *config.targets):
        spec = task_spec(name, config.task_files)
        if isinstance(spec.source, GeneratedSource):
            rows: Mapping[str, int] = mini.SPLIT_SIZES
        elif isinstance(spec.source, HubSource) and config.data_dir is None:
            rows = split_sizes(spec, authors_splits=config.quirks.authors_splits)
        else:
            from tpv.tasks import load_task

            own = config.task_files.get(name)
            data_dir = config.data_dir if isinstance(spec.source, HubSource) else None
            task = load_task(Path(own) if own else name, seed=config.split_seed, data_dir=data_dir)
            rows = {split: len(examples) for split, examples in task.splits.items()}
        limits = config.limits.model_dump()
        result[name] = {split: min(count, limits[split] or count) for split, count in rows.items()}
    return result


def show(
    config: Config, folder: Path, console: Console, *, experiment: str | None, estimate: bool, workers: int
) -> None:
    """Print the plan of a config, with what is done in its run directory, and how long the rest takes so many workers.

    Raises:
        TpvError: the directory was made from something else; a task whose size cannot be told.
    """
    cells = only(config, experiment)
    manifest = read_manifest(folder)
    directory: RunDirectory | None = None
    if manifest is not None:
        check(folder, manifest, config)
        directory = RunDirectory(folder, config, manifest)
    known = sizes_of(manifest) if manifest else sizes(config)
    jobs = in_order(cell.job for cell in cells)

    def done(job: Job) -> bool:
        return directory is not None and directory.done(job)

    found = lines(cells, done, known)
    rest = [line for line in found if line.shots is None]
    few = [line for line in found if line.shots is not None]
    check_sizes(config, known)
    console.print(_table(config, rest, few))
    if few:
        console.print(_transfer(few))
    left = [job for job in jobs if not done(job)]
    total = sum((job.work(known) for job in jobs), Work())
    console.print(
        f"{len(jobs)} different jobs, {len(jobs) - len(left)} done. In all {total.steps:,} optimizer steps, "
        f"{total.train_rows:,} rows trained on, {total.score_rows:,} scored. An evaluation that two experiments "
        "report is listed in both and run once.",
        highlight=False,
    )
    if config.left_out:
        console.print(
            f"Left out, because there are too few source tasks: {', '.join(config.left_out)}.", highlight=False
        )
    if estimate and left:
        every = chosen(work_units(config, in_order(cell.job for cell in only(config, None))), cells)
        missing = [unit for unit in every if not all(map(done, unit.jobs))]
        console.print(_estimate(config, folder, missing, known, workers), highlight=False, markup=False)


def _table(config: Config, rest: list[PlanLine], few: list[PlanLine]) -> Table:
    """The plan line by line; lines that differ by shots are added up, since they have a table of their own."""
    table = Table(
        "experiment",
        "what",
        "method",
        "jobs",
        "done",
        "steps",
        "rows trained",
        "rows scored",
        title=Text(f"Plan of {config.name}: {config.model.name}"),  # names may have [brackets]
        title_justify="left",
    )
    for column in table.columns[3:]:
        column.justify = "right"
    for line in rest:
        counts = (str(line.jobs), str(line.done))
        table.add_row(line.experiment, line.what, Text(line.method), *counts, *_amounts(line.work))
    for experiment, what in dict.fromkeys((line.experiment, line.what) for line in few):
        mine = [line for line in few if (line.experiment, line.what) == (experiment, what)]
        total = sum((line.work for line in mine), Work())
        counts = (str(sum(line.jobs for line in mine)), str(sum(line.done for line in mine)))
        table.add_row(experiment, what, "see below", *counts, *_amounts(total))
    return table


def _amounts(amount: Work) -> list[str]:
    values = (amount.steps, amount.train_rows, amount.score_rows)
    return [f"{value:,}" if value else "" for value in values]


def _transfer(few: list[PlanLine]) -> Table:
    """Transfer jobs by method (rows) and shots (columns): trainings, or evaluations at zero shots."""
    shots = sorted({line.shots for line in few if line.shots is not None})
    table = Table(
        "method",
        *(f"{count} shots" for count in shots),
        title="Transfer jobs by method and shots: trained + evaluated",
        title_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for method in dict.fromkeys(line.method for line in few):
        cells = []
        for count in shots:
            mine = [line for line in few if line.method == method and line.shots == count]
            trained = sum(line.jobs for line in mine if line.what != "evaluations")
            scored = sum(line.jobs for line in mine if line.what == "evaluations")
            cells.append(f"{trained} + {scored}" if mine else "")
        table.add_row(Text(method), *cells)
    return table


def _estimate(config: Config, folder: Path, left: list[WorkUnit], known: Sizes, workers: int) -> str:
    from tpv.execution.estimate import measure
    from tpv.studies.lab import Lab

    try:
        lab = Lab(config)
        measured = measure(lab)
    except TpvError as error:
        return f"No estimate of time: {error}"
    speeds, costs = measured.speeds, measured.costs(left, known)
    rates = ", ".join(
        f"{family.name} {speeds[family.sources[0]].train:.0f} and {speeds[family.sources[0]].score:.0f}"
        for family in config.families
    )
    text = (
        f"Estimate for the {sum(len(unit.jobs) for unit in left)} jobs left on this machine "
        f"({lab.backbone.device_type}): {duration(measured.wall(left, costs, workers))}"
    )
    if workers > 1:
        one, least = (duration(measured.wall(left, costs, number)) for number in (1, len(left)))
        text += (
            f" with {workers} workers, {one} with one, and {least} however many there are: "
            f"it comes to {len(left)} banks, of which some need others (run.bank)"
        )
    return f"{text}; from a few measured steps (rows a second trained and scored: {rates})."
