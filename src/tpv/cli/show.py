"""What commands print, and the files they read and write."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tpv.errors import TpvError, plain

if TYPE_CHECKING:
    from rich.console import Console

    from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
    from tpv.tasks import Task


RANKED = ("accuracy", "log_loss", "ece")  # scores of labels that are ranked


def console() -> Console:
    """Where tables go: the terminal; a file or a pipe gets lines wide enough that nothing is shortened."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)


def cell(text: str) -> str:
    """Text of somebody else as a cell of a table: no markup, and nothing that a terminal obeys."""
    from rich.markup import escape

    return escape(plain(text))


def load_prompt(path: Path) -> SoftPrompt:
    """The prompt in a file."""
    from tpv.prompts.algebra import SoftPrompt

    return SoftPrompt.load(path)


def load_vector(path: Path) -> TaskPromptVector:
    """The vector in a file."""
    from tpv.prompts.algebra import TaskPromptVector

    return TaskPromptVector.load(path)


def save(item: SoftPrompt | TaskPromptVector, path: Path) -> None:
    """Write a prompt or a vector, and say so."""
    item.save(path)
    typer.echo(f"wrote {path}: {item!r}")


def print_scores(
    names: Sequence[str], tasks: Sequence[Task], scores: Sequence[Any], split: str, *, says: bool = True
) -> None:
    """A row per prompt and task: every metric that any of them has, the one the task is reported by in bold.

    Args:
        says: whether greedy decoding says anything. An average or a probe only ranks labels.
    """
    from rich.table import Table

    from tpv import metrics
    from tpv.tasks.splits import JUDGES

    last = tuple(name for name in ("invalid_rate", "majority") if any(score.defined(name) for score in scores))
    shown = [
        name for name in metrics.names() if name not in (*last, "loss") and any(score.defined(name) for score in scores)
    ]
    if not says:
        last, shown = ("majority",), [name for name in shown if name in RANKED]
    titles = [cell(metrics.title(name)) for name in (*shown, *last)]
    table = Table("prompt", "task", *titles, "n", title=f"split {split}")
    for name, task, score in zip(names, tasks, scores, strict=True):
        values = {name: f"{score.metric(name):.3f}" if score.defined(name) else "" for name in (*shown, *last)}
        if task.spec.metric in values:
            values[task.spec.metric] = f"[bold]{values[task.spec.metric]}[/bold]"
        table.add_row(cell(name), cell(task.name), *values.values(), str(score.n))
    console().print(table)
    for name, task, score in zip(names, tasks, scores, strict=True):
        by = "exact_match" if says else "accuracy"
        low, high = score.interval(by)
        few = ": few rows, which say little" if score.n < JUDGES else ""
        said = f"{by.replace('_', ' ')} {score.metric(by):.3f} on {score.n} rows"
        typer.echo(f"{plain(name)}, {plain(task.name)}: {said}, 95 % interval {low:.2f} to {high:.2f}{few}")


def words(task: str | None, style: str, labels: list[str]) -> Task:
    """A task without its rows, or one of these label words where none is named."""
    from tpv.tasks import labels_only, without_rows

    if task is None and style != "text":
        raise TpvError("--style", expected="--task with it, whose template it chooses", got="no --task")
    return without_rows(task, style=style) if task else labels_only(labels)


def input_lines(texts: list[str] | None) -> list[str]:
    """Texts of the command line, or the lines of standard input."""
    return list(texts) if texts else [line.rstrip("\n") for line in sys.stdin]


def split_fields(data: Task, row: str, number: int) -> dict[str, str]:
    """The fields of a task in one line of text, those of a pair separated by a tab."""
    fields = data.spec.fields
    pieces = row.split("\t") if len(fields) > 1 else [row]
    if len(pieces) != len(fields):
        raise TpvError(
            f"text {number} for task {data.name!r}",
            expected=f"{', '.join(fields)}, separated by tabs",
            got=f"{len(pieces)} part{'s' * (len(pieces) != 1)}",
        )
    return dict(zip(fields, pieces, strict=True))
