"""The vectors that a run directory has by now, for a library."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tpv.execution.directory import open_run
from tpv.reporting.records import ORDINARY
from tpv.studies.lab import Lab
from tpv.studies.vectors import modes_of, trained_vector

if TYPE_CHECKING:
    from tpv.prompts.algebra import TaskPromptVector


def finished_vectors(folder: Path) -> list[tuple[str, Path, str, Callable[[], TaskPromptVector]]]:
    """The finished vectors of a run's source tasks, in every mode and from every initialization.

    Returns:
        For each: its name, the file that says what went into it, what that file holds (a `TaskPromptVector`, or the
        `SoftPrompt` that was tuned for it), and what reads or calculates it. The model is loaded when the first vector
        of a tuned prompt is asked for.

    Raises:
        TpvError: not a run directory, damaged, or made by another version.
    """
    directory = open_run(folder)
    config = directory.config
    lab = Lab(config)
    lab.artifacts = directory
    found: list[tuple[str, Path, str, Callable[[], TaskPromptVector]]] = []
    for task in config.source_tasks:
        for seed in config.seeds.starts:
            for mode in (ORDINARY, *modes_of(config, seed)):
                vector = trained_vector(config, mode, task, seed)
                job, file, kind = vector.kept_in
                if directory.done(job):
                    middle = "" if mode == ORDINARY else f"-{mode}"
                    name = f"{task.replace('/', '-')}{middle}-init{seed}"
                    found.append((name, directory.folder_of(job) / file, kind, partial(vector.vector, lab)))
    return found
