"""Who calculates the units of a run: this process, several on this machine, or Ray's on many machines."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from tpv.errors import TpvError
from tpv.experiments.jobs import Job
from tpv.experiments.settings import Config
from tpv.progress import Progress
from tpv.runs.unit import Finished, Workplace

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

Jobs = tuple[Job, ...]


class Crew(Protocol):
    """Workers that calculate units of jobs; used as a context, which ends them."""

    size: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        ...

    def give(self, jobs: Jobs) -> None:
        """Let an idle worker calculate these."""
        ...

    def take(self) -> tuple[Jobs, Finished | None]:
        """Wait until a worker is done; None where it died over its work, in which case another has taken its place."""
        ...


class Here:
    """This process, one unit after the other.

    Args:
        step: told where a training stands.
    """

    size = 1

    def __init__(self, workplace: Workplace, step: Callable[[Progress], object]) -> None:
        self._workplace, self._step = workplace, step
        self._jobs: Jobs | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs = None

    @property
    def idle(self) -> int:
        return 0 if self._jobs else 1

    def give(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def take(self) -> tuple[Jobs, Finished | None]:
        assert self._jobs is not None
        jobs, self._jobs = self._jobs, None
        return jobs, self._workplace.calculate(jobs, self._step)


def _serve(pipe: Connection, config: Config, folder: Path, threads: int) -> None:
    """A worker process: units in, what came of them out, until the pipe closes."""
    import signal

    import torch

    from tpv.memory import keep_memory

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's affair, which ends its workers
    keep_memory()
    torch.set_num_threads(threads)
    workplace = Workplace(config, folder)
    while True:
        try:
            jobs = pipe.recv()
        except EOFError:
            return
        try:
            answer: Finished | TpvError = workplace.calculate(jobs, lambda _: None)
        except TpvError as error:
            answer = error
        pipe.send(answer)


class Processes:
    """So many processes on this machine, the cores shared out among them."""

    def __init__(self, config: Config, folder: Path, size: int) -> None:
        self.size, self._config, self._folder = size, config, folder
        self._threads = max(1, (os.cpu_count() or 1) // size)
        self._workers: dict[Connection, SpawnProcess] = {}
        self._work: dict[Connection, Jobs] = {}

    def __enter__(self) -> Self:
        for _ in range(self.size):
            self._hire()
        return self

    def _hire(self) -> None:
        context = multiprocessing.get_context("spawn")
        mine, its = context.Pipe()
        worker = context.Process(target=_serve, args=(its, self._config, self._folder, self._threads), daemon=True)
        worker.start()
        its.close()  # so that the worker's death closes the pipe
        self._workers[mine] = worker

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe, worker in self._workers.items():
            if pipe in self._work:
                worker.terminate()
            pipe.close()
        for worker in self._workers.values():
            worker.join()

    @property
    def idle(self) -> int:
        return len(self._workers) - len(self._work)

    def give(self, jobs: Jobs) -> None:
        pipe = next(pipe for pipe in self._workers if pipe not in self._work)
        self._work[pipe] = jobs
        with suppress(OSError):  # it died while idle: `take` finds the pipe closed
            pipe.send(jobs)

    def take(self) -> tuple[Jobs, Finished | None]:
        pipe = next(iter(wait(list(self._work))))
        assert isinstance(pipe, Connection)
        jobs = self._work.pop(pipe)
        try:
            answer: Any = pipe.recv()
        except (EOFError, OSError):
            pipe.close()
            self._workers.pop(pipe).join()
            self._hire()
            return jobs, None
        if isinstance(answer, TpvError):
            raise answer
        return jobs, answer


class RayWorkers:
    """Actors of a Ray cluster, each with a model of its own.

    Args:
        address: of the cluster; None starts one on this machine, `auto` finds one.
        size: how many; 0 for as many as the cluster has room for.
        cpus, gpus: what each holds; fractions of a GPU are allowed.

    Raises:
        TpvError: Ray is not installed, no cluster at the address, or one without room for a worker.
    """

    def __init__(self, config: Config, folder: Path, address: str | None, size: int, cpus: float, gpus: float) -> None:
        try:
            import ray
        except ImportError:
            raise TpvError(
                "--executor ray", expected="the package ray", got="none", fix="pip install 'tpv[ray]'"
            ) from None
        self._ray, self._config, self._folder = ray, config, folder
        self._address, self._wanted, self._cpus, self._gpus = address, size, cpus, gpus
        self.size = size
        self._actors: list[Any] = []
        self._work: dict[Any, tuple[Any, Jobs]] = {}

    def __enter__(self) -> Self:
        ray = self._ray
        try:
            ray.init(address=self._address, log_to_driver=False, include_dashboard=False, configure_logging=False)
        except (ConnectionError, ValueError) as error:
            raise TpvError(f"no Ray cluster at {self._address!r}", got=str(error), fix="`ray start --head`") from None
        room = ray.cluster_resources()
        fits = [room.get(kind, 0.0) / need for kind, need in (("CPU", self._cpus), ("GPU", self._gpus)) if need]
        most = int(min(fits, default=1))
        if most < 1:
            raise TpvError(
                "the Ray cluster has no room for a worker", expected=f"{self._cpus:g} CPUs and {self._gpus:g} GPUs",
                got=f"{room.get('CPU', 0):g} CPUs and {room.get('GPU', 0):g} GPUs",
            )  # fmt: skip
        self.size = min(most, self._wanted or most)
        self._kind = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0)(Workplace)
        self._actors = [self._hire() for _ in range(self.size)]
        return self

    def _hire(self) -> Any:
        return self._kind.remote(self._config, self._folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    @property
    def idle(self) -> int:
        return len(self._actors) - len(self._work)

    def give(self, jobs: Jobs) -> None:
        busy = [actor for actor, _ in self._work.values()]
        actor = next(actor for actor in self._actors if actor not in busy)
        self._work[actor.calculate.remote(jobs)] = (actor, jobs)

    def take(self) -> tuple[Jobs, Finished | None]:
        (reference, *_), _ = self._ray.wait(list(self._work), num_returns=1)
        actor, jobs = self._work.pop(reference)
        try:
            return jobs, self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, TpvError) else error from None
        except self._ray.exceptions.RayError:
            self._actors[self._actors.index(actor)] = self._hire()
            return jobs, None
