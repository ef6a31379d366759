"""This process, one work unit after the other."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from tpv.execution.executors.base import Jobs, Step
from tpv.execution.finished import Finished
from tpv.execution.workplace import Workplace
from tpv.studies.settings import Config


class LocalExecutor:
    """This process, one unit after the other."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._work: tuple[Jobs, Step] | None = None

    def __enter__(self) -> Self:
        self._workplace = Workplace(self._config, self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._workplace

    def prepare(self) -> None:
        self._workplace.prepare()

    @property
    def idle(self) -> int:
        return 0 if self._work else 1

    def submit(self, jobs: Jobs, step: Step) -> None:
        self._work = jobs, step

    def wait(self) -> tuple[Jobs, Finished | str]:
        assert self._work is not None
        (jobs, step), self._work = self._work, None
        return jobs, self._workplace.calculate(jobs, step)
