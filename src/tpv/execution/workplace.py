"""What a worker does in a run directory: write the manifest of a new run, calculate units, publish their artifacts."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tpv import __version__
from tpv.errors import TpvError, TrainingError, plain, scrub
from tpv.execution.artifacts import describe
from tpv.execution.directory import RunDirectory, differing_splits, write_splits
from tpv.execution.finished import Finished
from tpv.execution.manifest import Manifest, check_version, essential, kind_versions, read_manifest, write_manifest
from tpv.execution.plan import check_sizes
from tpv.progress import Progress
from tpv.studies.expressions import Initial
from tpv.studies.jobs.base import Job
from tpv.studies.lab import Lab, calculate
from tpv.studies.settings import Config

Step = Callable[[Progress], object]


def _ignore(_: Progress) -> None:
    """For workers that nobody watches."""


@contextmanager
def threads(config: Config) -> Iterator[None]:
    """Calculate with as many threads as `run.cpus` says, which decides last bits; all cores where it says nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.run.cpus or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Workplace:
    """A run directory and what is loaded to work in it, on first use: the model once, each task once."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.lab = Lab(config)
        self._model_checked = False

    def prepare(self) -> None:
        """Write the manifest of a new run.

        Raises:
            TpvError: a model or task that does not load, or that cannot do what the config asks for.
        """
        with threads(self.config):
            manifest = _new_manifest(self.config, self.lab)
        write_splits(self.folder, {name: self.lab.task(name) for name in manifest.tasks})
        write_manifest(self.folder, manifest)

    @cached_property
    def directory(self) -> RunDirectory:
        """The run directory, once it has a manifest."""
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise TpvError(
                f"run directory {self.folder} has no manifest",
                expected="the folder that the driver sees",
                fix="--out has to be a folder that all machines share, under one path",
            )
        check_version(self.folder, manifest)
        directory = RunDirectory(self.folder, self.config, manifest)
        self.lab.artifacts = directory
        return directory

    def calculate(self, jobs: Sequence[Job], step: Step = _ignore) -> Finished:
        """Calculate and publish; a bank that fails is tried again job by job, and each failure is its job's own.

        Raises:
            TpvError: the model or the data are not those that the run was made with, or a place cannot be written.
        """
        self._check(jobs)
        with threads(self.config):
            return self._calculate(jobs, step)

    def _calculate(self, jobs: Sequence[Job], step: Step) -> Finished:
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
        except Exception as error:  # a job may fail in any way; the others continue
            if len(jobs) == 1:
                result.failed[jobs[0]] = plain(scrub(f"{type(error).__name__}: {error}"))[:2000]
            else:
                for job in jobs:
                    result.add(self._calculate([job], step))
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
        manifest, lab = self.directory.manifest, self.lab
        if not self._model_checked and lab.backbone.weights_digest() != manifest.model.weights:
            raise TpvError(
                f"model {self.config.model.name!r} is not the one that run directory {self.folder} was made with",
                expected=f"weights {manifest.model.weights[:12]}",
                got=lab.backbone.weights_digest()[:12],
                fix="put the model back, or choose another --out",
            )
        self._model_checked = True
        for name in dict.fromkeys(task for job in jobs for task in job.reads):
            if lab.task(name).fingerprint != manifest.tasks[name].fingerprint:
                differ = differing_splits(self.folder, name, lab.task(name))
                raise TpvError(
                    f"the rows of task {name!r} are not those that run directory {self.folder} was made with",
                    got=f"other {' and '.join(differ)} rows" if differ else None,
                    fix="put the data back, or choose another --out",
                )


def _new_manifest(config: Config, lab: Lab) -> Manifest:
    model = lab.backbone
    for seed in config.seeds.starts:
        lab.prompt(Initial(seed))  # refuse a prompt that the model cannot have before anything is written
    tasks: dict[str, dict[str, Any]] = {}
    for name in (*config.source_tasks, *config.targets):
        task = lab.task(name)
        tasks[name] = {
            "fingerprint": task.fingerprint,
            "labels": task.labels,
            "positive": task.spec.positive,
            "sizes": {split: len(rows) for split, rows in task.splits.items()},
            "whole": lab.whole(name),
            "numbers": task.spec.numbers is not None,
            "text_metric": task.spec.metric if task.spec.output == "text" else "",
        }
    check_sizes(config, {name: task["sizes"] for name, task in tasks.items()})
    about = model.identity.model_dump() | {"weights": model.weights_digest(), "device": model.device_type}
    return Manifest.model_validate(
        {"config": essential(config), "model": about, "tasks": tasks, "tpv": __version__, "kinds": kind_versions()}
    )


def _discard(path: Path) -> None:
    """Delete a file, or a folder in its place."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
