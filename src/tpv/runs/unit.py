"""Calculate one unit of jobs in a run directory and publish what came of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tpv.errors import TpvError, TrainingError
from tpv.experiments.jobs import Job, tasks_of
from tpv.experiments.settings import Config
from tpv.progress import Progress
from tpv.runs.artifacts import describe
from tpv.runs.directory import RunDirectory, differing_splits, read_manifest

if TYPE_CHECKING:
    from tpv.runs.steps import Lab

Step = Callable[[Progress], object]


def _nothing(_: Progress) -> None:
    """For workers that nobody watches."""


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


class Workplace:
    """A run directory and what is loaded to work in it: the model once, each task once.

    Args:
        folder: of a run whose manifest is written.
        lab: model and tasks where they are loaded already.
    """

    def __init__(self, config: Config, folder: Path, lab: Lab | None = None) -> None:
        from tpv.runs.artifacts import Store
        from tpv.runs.steps import Lab

        manifest = read_manifest(folder)
        if manifest is None:
            raise TpvError(f"run directory {folder} has no manifest", fix="start it with `tpv run`")
        self.directory = RunDirectory(folder, config, manifest)
        self.lab = lab or Lab(config, Store(folder))
        self.lab.keys = self.directory.keys
        self._checked = False

    def calculate(self, jobs: Sequence[Job], step: Step = _nothing) -> Finished:
        """Calculate and publish; a bank that fails is tried again job by job, and each failure is its job's own.

        Raises:
            TpvError: the model or the data are not those that the run was made with.
        """
        self._check(jobs)
        return self._calculate(jobs, step)

    def _calculate(self, jobs: Sequence[Job], step: Step) -> Finished:
        from tpv.runs.steps import calculate

        directory = self.directory
        name = hashlib.sha256(" ".join(map(directory.keys, jobs)).encode()).hexdigest()[:32]
        checkpoint = directory.folder / "checkpoints" / f"{name}.safetensors"
        result = Finished()
        try:
            try:
                outputs = calculate(self.lab, jobs, step, checkpoint)
            except TrainingError:
                raise
            except Exception:  # what may pass: a checkpoint that does not read, memory that others hold just now
                _discard(checkpoint)
                outputs = calculate(self.lab, jobs, step, checkpoint)
        except Exception as error:  # any failure of a job is its own, the others go on
            if len(jobs) == 1:
                result.failed[jobs[0]] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]
                return result
            for job in jobs:
                one = self._calculate([job], step)
                result.ran += one.ran
                result.failed |= one.failed
                result.warned += one.warned
                result.cut += one.cut
            return result
        for job, output in zip(jobs, outputs, strict=True):
            about = output.about | {"job": describe(job), "inputs": directory.inputs(job)}
            with directory.store.writing(job.kind, directory.keys(job), about) as part:
                output.save(part)
            directory.forget(job)
            result.ran.append(job)
            result.warned += "warnings" in output.about
            result.cut += output.about.get("cut", [])
        return result

    def _check(self, jobs: Sequence[Job]) -> None:
        """Refuse a model or data other than the run's."""
        manifest, folder = self.directory.manifest, self.directory.folder
        if not self._checked and self.lab.backbone.weights_digest() != manifest.model.weights:
            raise TpvError(
                f"model {self.lab.config.model.name!r} is not the one that run directory {folder} was made with",
                expected=f"weights {manifest.model.weights[:12]}", got=self.lab.backbone.weights_digest()[:12],
                fix="put the model back, or choose another --out",
            )  # fmt: skip
        self._checked = True
        for name in dict.fromkeys(task for job in jobs for task in tasks_of(job)):
            if self.lab.task(name).fingerprint != manifest.tasks[name].fingerprint:
                differ = differing_splits(folder, name, self.lab.task(name))
                raise TpvError(
                    f"the rows of task {name!r} are not those that run directory {folder} was made with",
                    got=f"other {' and '.join(differ)} rows" if differ else None,
                    fix="put the data back, or choose another --out",
                )


def _discard(path: Path) -> None:
    """Delete a file, or a folder in its place."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
