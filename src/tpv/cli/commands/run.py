"""`tpv run`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tpv.cli.runs import ConfigArgument, ExecutorChoice, OnlyOption, RunOption, run_folder
from tpv.errors import cut_summary

if TYPE_CHECKING:
    from tpv.execution.execute import Outcome

ORDER = 120


def command(
    config: ConfigArgument,
    out: RunOption = None,
    only: OnlyOption = None,
    limit: Annotated[
        int | None, typer.Option(help="Stop after about this many jobs; a bank that was begun is finished.", min=1)
    ] = None,
    executor: Annotated[
        ExecutorChoice, typer.Option(help="Where workers run: processes on this machine, or a Ray cluster.")
    ] = ExecutorChoice.local,
    workers: Annotated[
        int | None,
        typer.Option(help="How many workers.  [default: 1; as many as there is room for with --executor ray]", min=1),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster, host:port.  [default: one that this machine is part of, or a new one]"
        ),
    ] = None,
) -> None:
    """Run a study: everything a config asks for that is not done yet.

    Killed at any moment, the same command resumes and ends with the same results, also with another executor or number
    of workers. `[run]` in the config says what a worker takes: `cpus`, and `gpus`, which may be a fraction.

    Examples: `tpv run configs/mini.toml` and then `tpv report runs/mini`

    `tpv run configs/smoke.toml --workers 2`

    `tpv run configs/paper.toml --executor ray --out /shared/runs/paper`
    """
    from tpv.execution.execute import run
    from tpv.execution.executors import ExecutorName, executor_of
    from tpv.execution.progress import Reporter
    from tpv.studies.config import read_config

    place = out or f"runs/{config.stem}"
    folder = run_folder(place)
    given = {
        "--only": only,
        "--limit": limit,
        "--executor": executor.value if executor is not ExecutorChoice.local else None,
        "--workers": workers,
        "--address": address,
    }
    options = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    again = shlex.join(["tpv", "run", str(config), "--out", place, *options])
    try:
        read = read_config(config)
        chosen = executor_of(read, folder, ExecutorName(executor.value), workers, address)
        outcome = run(read, folder, experiment=only, limit=limit, reporter=Reporter, executor=chosen)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; `{again}` resumes", err=True)
        sys.exit(130)
    _tell(outcome, place, again)


def _tell(outcome: Outcome, place: str, again: str) -> None:
    """What came of a run, and what to do next; exit code 1 where jobs failed."""
    for what in outcome.damaged:
        typer.echo(f"damaged, made again: {what}", err=True)
    if not outcome.ran and not outcome.failed and not outcome.left:
        typer.echo(f"{place}: all {outcome.total} jobs are done; `tpv report {place}` makes the report")
        return
    typer.echo(f"{place}: {outcome.ran} of {outcome.total} jobs run now, results in {place}/results.parquet")
    if outcome.warned:
        typer.echo(f"{outcome.warned} trainings ended with a warning; see `warnings` in their record.json", err=True)
    if outcome.cut:
        typer.echo(f"warning: texts were truncated: {cut_summary(outcome.cut)}", err=True)
    if outcome.left:
        typer.echo(f"{outcome.left} jobs left by --limit; `{again}` resumes")
    for job, error in outcome.failed.items():
        tasks = ", ".join(dict.fromkeys(job.reads)) or "all source tasks"
        typer.echo(f"failed: {job.kind} of {tasks}: {error}", err=True)
    if outcome.failed:
        typer.echo(
            f"{len(outcome.failed)} jobs failed, {outcome.blocked} that need them were not run; `{again}` tries again",
            err=True,
        )
        raise typer.Exit(1)
    if not outcome.left:
        typer.echo(f"`tpv report {place}` makes the report")
