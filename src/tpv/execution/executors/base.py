"""What an executor is, and what its workers do."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol

from tpv.errors import TpvError
from tpv.execution.finished import Finished
from tpv.execution.remote import working_folder
from tpv.progress import Progress
from tpv.studies.jobs.base import Job
from tpv.studies.settings import Config

Jobs = tuple[Job, ...]
Step = Callable[[Progress], object]
GPUS = "CUDA_VISIBLE_DEVICES"


class Executor(AbstractContextManager[Any, None], Protocol):
    """Workers that run work units in a run directory. Entering starts them, leaving stops them."""

    def prepare(self) -> None:
        """Write the manifest of a new run.

        Raises:
            TpvError: a model or task that does not load, or that cannot do what the config asks for.
        """

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        ...

    def submit(self, jobs: Jobs, step: Step) -> None:
        """Give these to an idle worker; `step` receives the progress of a training that runs in this process."""

    def wait(self) -> tuple[Jobs, Finished | str] | None:
        """Wait until a worker is done: what came of its jobs, or how it died over them. None where one has come.

        Raises:
            TpvError: a failure that no worker can recover from.
        """


class Worker:
    """A `Workplace` in a process of its own, with the driver's working folder for the paths that a config names.

    On another device than the run was begun on it calculates nothing: last bits would go by who did what.
    """

    def __init__(self, config: Config, run: Path, cwd: Path, url: str | None = None) -> None:
        import warnings

        from tpv.execution.workplace import Workplace
        from tpv.memory import keep_memory

        with suppress(OSError):
            os.chdir(cwd)
        warnings.simplefilter("ignore")  # those of a job are in its record
        keep_memory()
        self._workplace = Workplace(config, working_folder(url) if url else run)

    def ready(self) -> None:
        """Answers once the process is ready."""

    def prepare(self) -> None:
        self._workplace.prepare()

    def calculate(self, jobs: Jobs) -> Finished:
        begun, here = self._workplace.directory.manifest.model.device, self._workplace.lab.backbone.device_type
        if here != begun:
            raise TpvError(
                "a worker's device",
                expected=f"{begun}, where the run was begun",
                got=here,
                fix="see run.gpus, or choose another --out",
            )
        return self._workplace.calculate(jobs)


def alive(answer: object) -> None:
    if isinstance(answer, str):
        raise TpvError("a worker died while it loaded model and data", got=answer)


def check_cpus(config: Config, asked: str) -> None:
    """Refuse several workers where the results would depend on how many there are."""
    if not config.run.cpus:
        raise TpvError(
            asked,
            expected="[run] cpus in the config, the cores of each worker",
            got="0, all cores for one process; the number of threads decides last bits",
            fix="put `cpus = 1` under [run]",
        )
