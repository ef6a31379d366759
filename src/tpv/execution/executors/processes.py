"""Several processes on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tpv.errors import TpvError
from tpv.execution.executors.base import GPUS, Jobs, Step, Worker, alive, check_cpus
from tpv.execution.finished import Finished
from tpv.studies.settings import Config

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

SECONDS_TO_STOP = 20.0  # for a worker to let go of what it is at


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
    worker = Worker(config, run, Path.cwd())
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


class ProcessExecutor:
    """Several processes on this machine.

    Args:
        size: how many.

    Raises:
        TpvError: the config does not say how many cores each of them takes, or there are too few GPUs.
    """

    def __init__(self, config: Config, folder: Path, size: int) -> None:
        check_cpus(config, f"--workers {size}")
        self._config, self._folder, self._size = config, folder, size
        self._gpus = _gpus_of(size, config.run.gpus, _visible_gpus()) if config.run.gpus else [None] * size
        self._workers: dict[Connection, tuple[BaseProcess, str | None]] = {}
        self._work: dict[Connection, Jobs] = {}

    def __enter__(self) -> Self:
        for gpu in self._gpus:
            self._start(gpu)
        return self

    def _start(self, gpu: str | None) -> None:
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
            worker.join(SECONDS_TO_STOP)
            worker.kill()

    def prepare(self) -> None:
        pipe = next(iter(self._workers))
        self._call(pipe, "prepare")
        alive(self._answer(pipe))

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
            self._start(gpu)
            return f"exit code {worker.exitcode}"
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def idle(self) -> int:
        return len(self._workers) - len(self._work)

    def submit(self, jobs: Jobs, step: Step) -> None:
        pipe = next(pipe for pipe in self._workers if pipe not in self._work)
        self._work[pipe] = jobs
        self._call(pipe, "calculate", jobs)

    def wait(self) -> tuple[Jobs, Finished | str]:
        pipe = next(iter(wait(list(self._work))))
        assert isinstance(pipe, Connection)
        return self._work.pop(pipe), self._answer(pipe)


def _visible_gpus() -> list[str]:
    import torch

    named = [name for name in os.environ.get(GPUS, "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _gpus_of(workers: int, need: float, gpus: Sequence[str]) -> list[str | None]:
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
