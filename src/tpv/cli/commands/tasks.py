"""`tpv tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tpv.cli.options import TaskOptions, task_names
from tpv.cli.show import cell, console

if TYPE_CHECKING:
    from tpv.tasks import TaskSpec

ORDER = 50


def command(
    source: TaskOptions,
    name: Annotated[str | None, typer.Argument(help="A task to look at.", autocompletion=task_names)] = None,
    examples: Annotated[int, typer.Option("--examples", "-n", help="How many test examples to print.", min=0)] = 3,
) -> None:
    """List the tasks that come with tpv and where their rows come from, or show one with examples.

    Example: `tpv tasks mini/sst2`
    """
    from rich.table import Table

    from tpv.tasks import task_specs

    if name is None:
        folder = source.folder()
        table = Table("task", "family", "role", "rows", "answers")
        for spec in task_specs().values():
            table.add_row(spec.name, spec.family, spec.role, cell(_rows(spec, folder)), _answers(spec.labels))
        console().print(table)
        known = "TPV_DATA_DIR or --data-dir, is not set" if folder is None else str(folder)
        typer.echo(f"Without a network, rows of the hub are read from local copies in a folder: {known}.")
        return
    task = source.named(name)
    typer.echo(f"{task!r}\nfamily {task.spec.family}, template {task.spec.template!r}\nanswers {_answers(task.labels)}")
    for example in task.examples("test")[:examples]:
        typer.echo(f"  {example.source}  ->  {example.target}")


def _rows(spec: TaskSpec, folder: Path | None) -> str:
    """Where the rows of a task come from."""
    from tpv.tasks.spec import GeneratedSource, HubSource

    if isinstance(spec.source, GeneratedSource):
        return "come with tpv"
    if folder is not None and (folder / spec.name).is_dir():
        return "local copy"
    if isinstance(spec.source, HubSource):
        return f"network: {spec.source.path}"
    return "a folder of yours"


def _answers(labels: tuple[str, ...]) -> str:
    """What a task's answers are, in words: its label words, or text."""
    return ", ".join(labels) or "(text)"
