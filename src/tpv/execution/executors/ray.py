"""Actors of a Ray cluster, on many machines."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tpv.errors import TpvError
from tpv.execution.executors.base import Jobs, Step, Worker, alive, check_cpus
from tpv.execution.finished import Finished
from tpv.execution.remote import remote_store
from tpv.studies.settings import Config
from tpv.tasks.hub import DATA_DIR

SECONDS_TO_ANSWER = 10.0  # for whoever is at an address
MAX_FAILED_STARTS = 5  # actors that die before they are ready, one after the other, before that is reported


class RayExecutor:
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
        check_cpus(config, "--executor ray")
        self._ray, self._config, self._folder = ray, config, folder.resolve()
        self._address, self._size = address, size
        mirror = remote_store(folder)
        self._url = mirror.url if mirror else None  # each machine has a working folder of its own for it
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._work: dict[Any, tuple[Any, Jobs]] = {}
        self._failed_starts = 0

    def __enter__(self) -> Self:
        ray, needs = self._ray, {"CPU": self._config.run.cpus, "GPU": self._config.run.gpus}
        told = {name: os.environ[name] for name in (DATA_DIR,) if name in os.environ}
        environment = {"env_vars": told} if told else None
        try:
            _reach(self._address)
            ray.init(self._address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            raise TpvError(
                f"no Ray cluster at {self._address!r}", got=str(error), fix="start one with `ray start --head`"
            ) from None
        with ExitStack() as refused:
            refused.callback(ray.shutdown)
            room = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            most = sum(_room_for(resources, needs) for resources in room)
            if not most:
                raise TpvError(
                    "no machine of the Ray cluster has room for a worker",
                    expected=f"{needs['CPU']} CPUs and {needs['GPU']:g} GPUs, as run.cpus and run.gpus say",
                    got=", ".join(f"{one.get('CPU', 0):g} CPUs and {one.get('GPU', 0):g} GPUs" for one in room),
                )
            # one that dies is replaced here and not by Ray, which would not say that it was gone
            self._actor = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_restarts=0)(Worker)
            for _ in range(self._size or most):
                self._start()
            refused.pop_all()
        return self

    def _start(self) -> None:
        worker = self._actor.remote(self._config, self._folder, Path.cwd(), self._url)
        self._starting[worker.ready.remote()] = worker

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    def prepare(self) -> None:
        while not self._idle:
            self.wait()
        alive(self._answer(self._idle[0].prepare.remote()))

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

    def submit(self, jobs: Jobs, step: Step) -> None:
        worker = self._idle.pop()
        self._work[worker.calculate.remote(jobs)] = worker, jobs

    def wait(self) -> tuple[Jobs, Finished | str] | None:
        (reference, *_), _ = self._ray.wait([*self._work, *self._starting], num_returns=1)
        answer = self._answer(reference)
        came = reference in self._starting
        worker, jobs = (self._starting.pop(reference), ()) if came else self._work.pop(reference)
        if isinstance(answer, str):
            self._ray.kill(worker)  # it may be out of reach only
            self._failed_starts += came
            if self._failed_starts == MAX_FAILED_STARTS:
                raise TpvError(f"{MAX_FAILED_STARTS} workers died as they were started", got=answer)
            self._start()
        else:
            self._failed_starts = 0
            self._idle.append(worker)
        return None if came else (jobs, answer)


def _reach(address: str | None) -> None:
    """Look whether anybody is at an address, for which Ray itself would wait minutes.

    Raises:
        OSError: nobody is. ValueError: no port of that number.
    """
    place = urlsplit(address if address and "://" in address else f"//{address or ''}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), SECONDS_TO_ANSWER).close()


def _room_for(room: dict[str, float], needs: dict[str, float]) -> int:
    """How many workers a machine has room for."""
    return min(int(room.get(kind, 0.0) / need + 1e-9) for kind, need in needs.items() if need)
