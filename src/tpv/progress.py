"""The state of training, and a live progress bar; silent if standard error is not a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `5.1 d`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"


@dataclass(frozen=True)
class Progress:
    """The state of training, passed to a callback after every step and validation.

    Attributes:
        step, total: optimizer steps done and to do (of the longest run in the bank).
        loss: mean training loss of the bank at this step, nats per target token.
        score: mean validation exact match at the last validation, if there was one.
        seconds: since training began.
    """

    step: int
    total: int
    loss: float
    score: float | None
    seconds: float


class Callback(Protocol):
    def __call__(self, progress: Progress, /) -> object: ...


def silent(_: object) -> None:
    """A callback for trainings that need no bar."""


@contextmanager
def counting_bar(title: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A callable that moves a bar on by a number of rows; without a total it counts them."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        line = bar.add_task(title, total=total)
        yield lambda rows: bar.advance(line, rows)


@contextmanager
def training_bar(title: str) -> Iterator[Callback]:
    """A callback for `fit` that shows step, loss, validation score and remaining time."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  exact match {task.fields[score]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        line = bar.add_task(title, total=None, loss="-", score="-")

        def report(progress: Progress) -> None:
            score = "-" if progress.score is None else f"{progress.score:.3f}"
            bar.update(line, total=progress.total, completed=progress.step, loss=f"{progress.loss:.3f}", score=score)

        yield report
