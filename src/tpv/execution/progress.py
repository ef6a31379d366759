"""What a run tells its user: a live bar on a terminal, a line a unit elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from tpv.execution.plan import WorkUnit
from tpv.progress import Progress, duration


class Reporter:
    """Jobs done of all, what is being worked on and its steps, and the time that is left.

    Args:
        weight: of all the work, in any unit; the time left is judged by the share of it that is done.
    """

    def __init__(self, weight: float) -> None:
        self._weight, self._before = max(weight, 1e-9), 0.0
        self._flying: dict[WorkUnit, tuple[float, float]] = {}  # weight, and when it was begun
        self._started = time.perf_counter()
        live = sys.stderr.isatty()
        self._console = Console(stderr=True, width=None if live else 200)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        self._bars = Bars(*columns, console=self._console, disable=not live, transient=True)
        self._live = live

    def __enter__(self) -> Self:
        self._bars.__enter__()
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def begin(self, total: int, done: int) -> None:
        self._total, self._count = total, done
        self._line = self._bars.add_task("jobs", total=total, completed=done, detail="")
        self._inner = self._bars.add_task("", total=None, detail="", visible=False)

    def unit(self, unit: WorkUnit, weight: float) -> None:
        """A unit is begun, perhaps while others are."""
        self._flying[unit] = weight, time.perf_counter()
        self._show_flying()

    def _show_flying(self) -> None:
        titles = ", ".join(map(_title, self._flying))
        self._bars.update(
            self._inner, description=titles, total=None, completed=0, visible=bool(self._flying), detail=""
        )

    def left(self, share: float = 0.0) -> str:
        """Remaining time, from what was done so far; `share` is of what is being worked on."""
        done = self._before + share * sum(weight for weight, _ in self._flying.values())
        if done <= 0:
            return ""
        elapsed = time.perf_counter() - self._started
        return f"{duration(elapsed * (self._weight - done) / done)} left"

    def step(self, progress: Progress) -> None:
        """A callback for `tpv.fit`, where one unit is worked on at a time."""
        detail = f"loss {progress.loss:.3f}"
        self._bars.update(self._inner, total=progress.total, completed=progress.step, detail=detail)
        self._bars.update(self._line, detail=self.left(progress.step / progress.total))

    def again(self, unit: WorkUnit, why: str) -> None:
        """A unit is to be begun again, its worker having died."""
        self._flying.pop(unit)
        self._console.print(f"a worker died ({why}): {_title(unit)} again", markup=False, highlight=False)
        self._show_flying()

    def done(self, unit: WorkUnit) -> None:
        weight, begun = self._flying.pop(unit)
        self._before += weight
        self._count += len(unit.jobs)
        if not self._live:
            self._console.print(
                f"[{self._count}/{self._total}] {_title(unit)}: {duration(time.perf_counter() - begun)}, {self.left()}",
                markup=False,
                highlight=False,
            )
        self._bars.update(self._line, completed=self._count, detail=self.left())
        self._show_flying()


def _title(unit: WorkUnit) -> str:
    count = len(unit.jobs)
    return unit.jobs[0].doing + (f" ×{count}" if count > 1 else "")
