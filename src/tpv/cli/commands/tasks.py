"""`tpv tasks`."""

from __future__ import annotations

from typing import Annotated

import typer

from tpv.cli.options import TaskOptions
from tpv.cli.show import console

ORDER = 50


def command(
    source: TaskOptions,
    name: Annotated[str | None, typer.Argument(help="A task to look at.")] = None,
    examples: Annotated[int, typer.Option("--examples", "-n", help="How many test examples to print.", min=0)] = 3,
) -> None:
    """List the tasks that come with tpv, or show one with examples.

    Example: `tpv tasks mini/sst2`
    """
    from rich.table import Table

    from tpv.tasks import task_specs

    if name is None:
        table = Table("task", "family", "role", "answers")
        for spec in task_specs().values():
            table.add_row(spec.name, spec.family, spec.role, _answers(spec.labels))
        console().print(table)
        return
    task = source.named(name)
    typer.echo(f"{task!r}\nfamily {task.spec.family}, template {task.spec.template!r}\nanswers {_answers(task.labels)}")
    for example in task.examples("test")[:examples]:
        typer.echo(f"  {example.source}  ->  {example.target}")


def _answers(labels: tuple[str, ...]) -> str:
    """What a task's answers are, in words: its label words, or text."""
    return ", ".join(labels) or "(text)"
