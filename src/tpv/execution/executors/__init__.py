"""Executors: who calculates the work units of a run. This process, several here, or Ray's on many machines."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from tpv.errors import TpvError
from tpv.execution.executors.base import Executor, Jobs
from tpv.execution.executors.local import LocalExecutor
from tpv.execution.executors.processes import ProcessExecutor
from tpv.execution.executors.ray import RayExecutor
from tpv.execution.finished import Finished
from tpv.studies.settings import Config

__all__ = [
    "Executor",
    "ExecutorName",
    "Finished",
    "Jobs",
    "LocalExecutor",
    "ProcessExecutor",
    "RayExecutor",
    "executor_of",
]


class ExecutorName(StrEnum):
    """The executors, as the command line calls them."""

    local = "local"
    ray = "ray"


def executor_of(config: Config, folder: Path, name: ExecutorName, workers: int | None, address: str | None) -> Executor:
    """The executor that the options of `tpv run` ask for.

    Raises:
        TpvError: an address that it has no use for, or what its workers lack.
    """
    if name is ExecutorName.ray:
        return RayExecutor(config, folder, workers, address)
    if address is not None:
        raise TpvError("--address is of a Ray cluster", fix="add --executor ray, or leave it out")
    return LocalExecutor(config, folder) if workers in (None, 1) else ProcessExecutor(config, folder, workers)
