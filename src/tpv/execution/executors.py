"""Who calculates the units of a run: this process, several on this machine, or Ray's on many machines."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

from tpv.errors import TpvError, did_you_mean
from tpv.execution.remote import mirror_of, working_folder
from tpv.studies.jobs import Job
from tpv.studies.settings import Config
from tpv.tasks.hub import DATA_DIR

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from tpv.execution.workplace import Step

Jobs = tuple[Job, ...]
GPUS = "CUDA_VISIBLE_DEVICES"
SECONDS_TO_LEAVE = 20.0  # for a worker to let go of what it is at
SECONDS_TO_ANSWER = 10.0  # for whoever is at an address
MOST_STILLBORN = 5  # actors that die before they are there, one after the other, before that is told


@dataclass
class Finished:
    """What came of a unit.

    Attributes:
        ran: jobs whose artifacts are there now.
        failed: what went wrong, by job.
        warned: trainings that ended with a warning.
        cut: what was said of texts longer than the limit.
    """

    ran: list[Job] = field(default_factory=list)
    failed: dict[Job, str] = field(default_factory=dict)
    warned: int = 0
    cut: list[str] = field(default_factory=list)

    def add(self, other: Finished) -> None:
        self.ran += other.ran
        self.failed |= other.failed
        self.warned += other.warned
        self.cut += other.cut


class Crew(AbstractContextManager[Any, None], Protocol):
    """Workers that calculate units of jobs in a run directory; entered, they are there, and left, they are gone."""

    def prepare(self) -> None:
        """Write the manifest of a new run.

        Raises:
            TpvError: a model or task that does not load, or that cannot do what the config asks for.
        """

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        ...

    def give(self, jobs: Jobs, step: Step) -> None:
        """Let an idle worker calculate these; `step` is told where a training stands, if it is in this process."""

    def take(self) -> tuple[Jobs, Finished | str] | None:
        """Wait until a worker is done: what came of its jobs, or how it died over them. None where one has come.

        Raises:
            TpvError: what no worker can go on with.
        """


class Here:
    """This process, one unit after the other."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._work: tuple[Jobs, Step] | None = None

    def __enter__(self) -> Self:
        from tpv.execution.workplace import Workplace

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

    def give(self, jobs: Jobs, step: Step) -> None:
        self._work = jobs, step

    def take(self) -> tuple[Jobs, Finished | str]:
        assert self._work is not None
        (jobs, step), self._work = self._work, None
        return jobs, self._workplace.calculate(jobs, step)


class _Worker:
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
        """Answers once the process is there."""

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


def _serve(pipe: Connection, config: Config, run: Path, gpu: str | None) -> None:
    """A worker process: calls in, answers out, until the pipe closes or the driver dies."""
    import signal
    import sys
    from threading import Thread

    def watch() -> None:
        driver = parent_process()
        assert driver is not None
        driver.join()
        os._exit(1)  # killed with `kill -9`: whoever takes over the run directory finds nobody else at work in it

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's affair, which ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by unwinding, so that nothing half-written is left
    Thread(target=watch, daemon=True).start()
    if gpu is not None:
        os.environ[GPUS] = gpu
    worker = _Worker(config, run, Path.cwd())
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = getattr(worker, method)(*arguments)
        except Exception as error:  # raised again where the driver takes it
            answer = error
        pipe.send(answer)


class Processes:
    """Several processes on this machine.

    Args:
        size: how many.

    Raises:
        TpvError: the config does not say how many cores each of them takes, or there are too few GPUs.
    """

    def __init__(self, config: Config, folder: Path, size: int) -> None:
        _check_cpus(config, f"--workers {size}")
        self._config, self._folder, self._size = config, folder, size
        self._gpus = _shared_out(size, config.run.gpus, _visible_gpus()) if config.run.gpus else [None] * size
        self._workers: dict[Connection, tuple[BaseProcess, str | None]] = {}
        self._work: dict[Connection, Jobs] = {}

    def __enter__(self) -> Self:
        for gpu in self._gpus:
            self._hire(gpu)
        return self

    def _hire(self, gpu: str | None) -> None:
        context = get_context("spawn")
        mine, its = context.Pipe()
        worker = context.Process(target=_serve, args=(its, self._config, self._folder, gpu), daemon=True)
        worker.start()
        its.close()  # so that the worker's death closes the pipe
        self._workers[mine] = worker, gpu

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe, (worker, _) in self._workers.items():
            if kind is not None:
                worker.terminate()
            pipe.close()
        for worker, _ in self._workers.values():
            worker.join(SECONDS_TO_LEAVE)
            worker.kill()

    def prepare(self) -> None:
        pipe = next(iter(self._workers))
        self._call(pipe, "prepare")
        _alive(self._answer(pipe))

    def _call(self, pipe: Connection, method: str, *arguments: object) -> None:
        with suppress(OSError):  # it died while idle: `_answer` finds the pipe closed
            pipe.send((method, arguments))

    def _answer(self, pipe: Connection) -> Any:
        """What a worker sends, or how it died, in which case another takes its place."""
        try:
            answer: Any = pipe.recv()
        except (EOFError, OSError):
            pipe.close()
            worker, gpu = self._workers.pop(pipe)
            worker.join()
            self._hire(gpu)
            return f"exit code {worker.exitcode}"
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def idle(self) -> int:
        return len(self._workers) - len(self._work)

    def give(self, jobs: Jobs, step: Step) -> None:
        pipe = next(pipe for pipe in self._workers if pipe not in self._work)
        self._work[pipe] = jobs
        self._call(pipe, "calculate", jobs)

    def take(self) -> tuple[Jobs, Finished | str]:
        pipe = next(iter(wait(list(self._work))))
        assert isinstance(pipe, Connection)
        return self._work.pop(pipe), self._answer(pipe)


class RayWorkers:
    """Actors of a Ray cluster, each with a model of its own.

    Args:
        address: of the cluster; by default one that runs on this machine, or else a new one.
        size: how many; None for as many as the cluster has room for now. Those it has no room for come when it has.

    Raises:
        TpvError: Ray is not installed, or the config does not say how many cores each worker takes.
    """

    def __init__(self, config: Config, folder: Path, size: int | None, address: str | None) -> None:
        try:
            import ray
        except ImportError:
            raise TpvError(
                "--executor ray", expected="the package ray", got="none", fix="pip install 'tpv[ray]'"
            ) from None
        _check_cpus(config, "--executor ray")
        self._ray, self._config, self._folder = ray, config, folder.resolve()
        self._address, self._size = address, size
        mirror = mirror_of(folder)
        self._url = mirror.url if mirror else None  # each machine has a working folder of its own for it
        self._idle: list[Any] = []
        self._coming: dict[Any, Any] = {}
        self._work: dict[Any, tuple[Any, Jobs]] = {}
        self._stillborn = 0

    def __enter__(self) -> Self:
        ray, needs = self._ray, {"CPU": self._config.run.cpus, "GPU": self._config.run.gpus}
        told = {name: os.environ[name] for name in (DATA_DIR,) if name in os.environ}
        environment = {"env_vars": told} if told else None
        try:
            _knock(self._address)
            ray.init(self._address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            raise TpvError(
                f"no Ray cluster at {self._address!r}", got=str(error), fix="start one with `ray start --head`"
            ) from None
        with ExitStack() as refused:
            refused.callback(ray.shutdown)
            room = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            most = sum(_fit(resources, needs) for resources in room)
            if not most:
                raise TpvError(
                    "no machine of the Ray cluster has room for a worker",
                    expected=f"{needs['CPU']} CPUs and {needs['GPU']:g} GPUs, as run.cpus and run.gpus say",
                    got=", ".join(f"{one.get('CPU', 0):g} CPUs and {one.get('GPU', 0):g} GPUs" for one in room),
                )
            # one that dies is replaced here and not by Ray, which would not say that it was gone
            self._actor = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_restarts=0)(_Worker)
            for _ in range(self._size or most):
                self._hire()
            refused.pop_all()
        return self

    def _hire(self) -> None:
        worker = self._actor.remote(self._config, self._folder, Path.cwd(), self._url)
        self._coming[worker.ready.remote()] = worker

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    def prepare(self) -> None:
        while not self._idle:
            self.take()
        _alive(self._answer(self._idle[0].prepare.remote()))

    def _answer(self, reference: Any) -> Any:
        """What an actor answers, or how it died."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, TpvError) else error) from None
        except errors.RayError as error:
            return " ".join(str(error).split())[:300]

    @property
    def idle(self) -> int:
        return len(self._idle)

    def give(self, jobs: Jobs, step: Step) -> None:
        worker = self._idle.pop()
        self._work[worker.calculate.remote(jobs)] = worker, jobs

    def take(self) -> tuple[Jobs, Finished | str] | None:
        (reference, *_), _ = self._ray.wait([*self._work, *self._coming], num_returns=1)
        answer = self._answer(reference)
        came = reference in self._coming
        worker, jobs = (self._coming.pop(reference), ()) if came else self._work.pop(reference)
        if isinstance(answer, str):
            self._ray.kill(worker)  # it may be out of reach only
            self._stillborn += came
            if self._stillborn == MOST_STILLBORN:
                raise TpvError(f"{MOST_STILLBORN} workers died as they were started", got=answer)
            self._hire()
        else:
            self._stillborn = 0
            self._idle.append(worker)
        return None if came else (jobs, answer)


def crew_of(config: Config, folder: Path, executor: str, workers: int | None, address: str | None) -> Crew:
    """Who is to calculate, as the options of `tpv run` say.

    Raises:
        TpvError: no such executor, an address that it has no use for, or what its workers lack.
    """
    if executor == "ray":
        return RayWorkers(config, folder, workers, address)
    if executor != "local":
        raise TpvError(f"--executor {executor}", expected="local or ray", fix=did_you_mean(executor, ("local", "ray")))
    if address is not None:
        raise TpvError("--address is of a Ray cluster", fix="add --executor ray, or leave it out")
    return Here(config, folder) if workers in (None, 1) else Processes(config, folder, workers)


def _alive(answer: object) -> None:
    if isinstance(answer, str):
        raise TpvError("a worker died while it loaded model and data", got=answer)


def _knock(address: str | None) -> None:
    """Look whether anybody is at an address, for which Ray itself would wait minutes.

    Raises:
        OSError: nobody is. ValueError: no port of that number.
    """
    place = urlsplit(address if address and "://" in address else f"//{address or ''}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), SECONDS_TO_ANSWER).close()


def _check_cpus(config: Config, asked: str) -> None:
    """Refuse several workers where the results would depend on how many there are."""
    if not config.run.cpus:
        raise TpvError(
            asked,
            expected="[run] cpus in the config, the cores of each worker",
            got="0, all cores for one process; the number of threads decides last bits",
            fix="put `cpus = 1` under [run]",
        )


def _visible_gpus() -> list[str]:
    import torch

    named = [name for name in os.environ.get(GPUS, "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _shared_out(workers: int, need: float, gpus: Sequence[str]) -> list[str | None]:
    """The GPU of each worker, of which each needs the whole or a fraction.

    Raises:
        TpvError: there are too few.
    """
    each = int(1 / need + 1e-9)  # workers a GPU
    if workers > each * len(gpus):
        raise TpvError(
            f"--workers {workers}",
            expected=f"at most {each * len(gpus)}: {len(gpus)} GPUs, {need:g} for each worker",
            fix="see run.gpus in the config",
        )
    return [gpus[worker // each] for worker in range(workers)]


def _fit(room: dict[str, float], needs: dict[str, float]) -> int:
    """How many workers a machine has room for."""
    return min(int(room.get(kind, 0.0) / need + 1e-9) for kind, need in needs.items() if need)
