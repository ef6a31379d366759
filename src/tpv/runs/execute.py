"""`tpv run`: calculate what is missing, unit by unit, so that a kill at any moment loses one unit at most."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpv import __version__
from tpv.errors import TpvError, TrainingError, did_you_mean, plain, scrub
from tpv.experiments.cells import Cell, cells
from tpv.experiments.jobs import Job, in_order, needs, tasks_of
from tpv.experiments.settings import Config
from tpv.files import atomic_write, regular
from tpv.runs.artifacts import describe
from tpv.runs.directory import (
    Manifest,
    RunDirectory,
    check,
    differing_splits,
    essential,
    locked,
    read_manifest,
    step_versions,
    write_manifest,
    write_splits,
)  # fmt: skip
from tpv.runs.plan import Sizes, Unit, check_sizes, chosen, units, work
from tpv.runs.progress import Reporter

if TYPE_CHECKING:
    from tpv.runs.steps import Lab

RESULTS, TIMINGS, WRITTEN = "results.parquet", "timings.parquet", ".results.json"


@dataclass
class Outcome:
    """How a `tpv run` ended.

    Attributes:
        total: jobs that were asked for.
        ran: jobs calculated now.
        failed: what went wrong, by job; jobs that need a failed one are counted in `blocked`.
        left: jobs not reached (`--limit`).
        warned: trainings that ended with a warning.
        cut: what was said of texts longer than the limit.
    """

    total: int
    ran: int = 0
    failed: dict[Job, str] = field(default_factory=dict)
    blocked: int = 0
    left: int = 0
    warned: int = 0
    cut: list[str] = field(default_factory=list)


def only(config: Config, experiment: str | None) -> list[Cell]:
    """The cells of a config, or of one of its experiments.

    Raises:
        TpvError: an experiment that the config does not have.
    """
    if experiment is not None and experiment not in config.experiments:
        raise TpvError(
            f"experiment {experiment!r} is not in the config", fix=did_you_mean(experiment, config.experiments)
        )
    return [cell for cell in cells(config) if experiment in (None, cell.experiment)]


def run(
    config: Config, folder: Path, *, experiment: str | None = None, limit: int | None = None,
    reporter: Callable[[float], Reporter],
) -> Outcome:  # fmt: skip
    """Calculate what is missing in a run directory; see the package for what is kept where.

    Args:
        experiment: only this one, and what it needs.
        limit: stop after about so many jobs: a bank that was begun is finished.
        reporter: makes what tells the user, from the weight of all the work.

    Raises:
        TpvError: a directory in use or made from something else, a model or task that does not load.
    """
    from tpv.runs.tracking import check_trackers

    wanted = only(config, experiment)
    check_trackers(config)
    with locked(folder):
        manifest = read_manifest(folder)
        lab: Lab | None = None
        if manifest is None:
            lab = _lab(config, folder)
            manifest = _new_manifest(config, lab)
            write_splits(folder, {name: lab.task(name) for name in manifest.tasks})
            write_manifest(folder, manifest)
        check(folder, manifest, config)
        directory = RunDirectory(folder, config, manifest)
        every = units(config, in_order(cell.job for cell in cells(config)))
        mine = chosen(every, wanted)
        outcome = Outcome(total=sum(len(unit.jobs) for unit in mine))
        missing = [unit for unit in mine if not all(map(directory.done, unit.jobs))]
        if missing:
            lab = lab or _lab(config, folder)
            _check_model(folder, manifest, lab)
            directory.store.clean()
            _run_units(directory, lab, mine, outcome, limit, reporter)
        if missing or not _results_intact(folder):
            write_results(directory, folder)
    return outcome


def _lab(config: Config, folder: Path) -> Lab:
    from tpv.runs.artifacts import Store
    from tpv.runs.steps import Lab

    return Lab(config, Store(folder))


def _new_manifest(config: Config, lab: Lab) -> Manifest:
    from tpv.experiments.jobs import Start

    model = lab.backbone
    for seed in config.seeds.starts:
        lab.prompt(Start(seed))  # refuse a prompt that the model cannot have before anything is written
    tasks: dict[str, dict[str, Any]] = {}
    for name in (*config.source_tasks, *config.targets):
        task = lab.task(name)
        tasks[name] = {
            "fingerprint": task.fingerprint, "labels": task.labels, "positive": task.spec.positive,
            "sizes": {split: len(rows) for split, rows in task.splits.items()}, "whole": lab.whole(name),
            "numbers": task.spec.numbers is not None,
        }  # fmt: skip
    check_sizes(config, {name: task["sizes"] for name, task in tasks.items()})
    about = model.identity.model_dump() | {"weights": model.weights_digest(), "device": model.device_type}
    return Manifest.model_validate(
        {"config": essential(config), "model": about, "tasks": tasks, "tpv": __version__, "steps": step_versions()}
    )


def _check_model(folder: Path, manifest: Manifest, lab: Lab) -> None:
    if lab.backbone.weights_digest() != manifest.model.weights:
        raise TpvError(
            f"model {lab.config.model.name!r} is not the one that run directory {folder} was made with",
            expected=f"weights {manifest.model.weights[:12]}", got=lab.backbone.weights_digest()[:12],
            fix="put the model back, or choose another --out",
        )  # fmt: skip


def _check_tasks(directory: RunDirectory, lab: Lab, unit: Unit) -> None:
    for name in dict.fromkeys(task for job in unit.jobs for task in tasks_of(job)):
        if lab.task(name).fingerprint != directory.manifest.tasks[name].fingerprint:
            differ = differing_splits(directory.folder, name, lab.task(name))
            raise TpvError(
                f"the rows of task {name!r} are not those that run directory {directory.folder} was made with",
                got=f"other {' and '.join(differ)} rows" if differ else None,
                fix="put the data back, or choose another --out",
            )


def sizes_of(manifest: Manifest) -> Sizes:
    return {name: about.sizes for name, about in manifest.tasks.items()}


def _run_units(
    directory: RunDirectory, lab: Lab, every: Sequence[Unit], outcome: Outcome, limit: int | None,
    reporter: Callable[[float], Reporter],
) -> None:  # fmt: skip
    from tpv.runs.tracking import energy, trackers

    lab.keys = directory.keys
    sizes = sizes_of(directory.manifest)
    missing = [unit for unit in every if not all(map(directory.done, unit.jobs))]
    undone = sum(len(unit.jobs) for unit in missing)

    def weigh(unit: Unit) -> float:
        return sum(work(job, sizes).weight for job in unit.jobs)

    with (
        trackers(lab.config, directory.folder) as log,
        energy(lab.config, directory.folder),
        reporter(sum(map(weigh, missing))) as report,
    ):
        step = 0
        report.begin(outcome.total, outcome.total - undone)
        for unit in every:
            if all(map(directory.done, unit.jobs)):  # asked again: what it needs may have been made anew by now
                continue
            if limit is not None and outcome.ran >= limit:
                outcome.left += len(unit.jobs)
                continue
            blocked = [job for job in unit.jobs if any(need in outcome.failed for need in _all_needs(job))]
            outcome.blocked += len(blocked)
            ready = [job for job in unit.jobs if job not in blocked]
            if not ready:
                continue
            _check_tasks(directory, lab, unit)
            report.unit(Unit(tuple(ready)), weigh(unit))
            started = time.perf_counter()
            finished = _run_unit(directory, lab, ready, outcome, report)
            step += finished
            log({"jobs": float(outcome.ran), "seconds per job": (time.perf_counter() - started) / len(ready)}, step)
            report.done(len(ready))


def _all_needs(job: Job) -> list[Job]:
    return in_order(needs(job))


def _run_unit(directory: RunDirectory, lab: Lab, jobs: Sequence[Job], outcome: Outcome, report: Reporter) -> int:
    """Calculate one unit and publish its artifacts; a bank that fails is tried again job by job."""
    from tpv.runs.steps import calculate

    name = hashlib.sha256(" ".join(map(directory.keys, jobs)).encode()).hexdigest()[:32]
    checkpoint = directory.folder / "checkpoints" / f"{name}.safetensors"
    try:
        try:
            outputs = calculate(lab, jobs, report.step, checkpoint)
        except TrainingError:
            raise
        except Exception:  # what may pass: a checkpoint that does not read, memory that others hold just now
            _discard(checkpoint)
            outputs = calculate(lab, jobs, report.step, checkpoint)
    except Exception as error:  # any failure of a job is its own, the others go on
        if len(jobs) == 1:
            outcome.failed[jobs[0]] = plain(scrub(f"{type(error).__name__}: {error}"))[:2000]
            return 0
        return sum(_run_unit(directory, lab, [job], outcome, report) for job in jobs)
    for job, output in zip(jobs, outputs, strict=True):
        about = output.about | {"job": describe(job), "inputs": directory.inputs(job)}
        with directory.store.writing(job.kind, directory.keys(job), about) as part:
            output.save(part)
        directory.forget(job)
        outcome.ran += 1
        outcome.warned += "warnings" in output.about
        outcome.cut += output.about.get("cut", [])
    return len(jobs)


def _discard(path: Path) -> None:
    """Delete a file, or a folder in its place."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _results_intact(folder: Path) -> bool:
    """Whether the results are as they were written."""
    try:
        known = json.loads(regular(folder / WRITTEN).read_bytes())
        now = {name: hashlib.sha256(regular(folder / name).read_bytes()).hexdigest() for name in (RESULTS, TIMINGS)}
    except (OSError, ValueError):
        return False
    return bool(known == now)


def write_results(directory: RunDirectory, out: Path) -> None:
    """`results.parquet` and `timings.parquet` in `out`, from the artifacts that are there."""
    from tpv.experiments.collect import rows_of_cell
    from tpv.records import write_results as write_rows

    labels = {name: about.labels for name, about in directory.manifest.tasks.items()}
    rows = [
        row
        for cell in cells(directory.config)
        if directory.done(cell.job)
        for row in rows_of_cell(cell, directory.folder_of(cell.job), directory.keys(cell.job), labels)
    ]
    # wall-clock times cannot be the same twice, so they are kept apart from what can
    parts = {
        RESULTS: [row for row in rows if row.metric != "seconds"],
        TIMINGS: [row for row in rows if row.metric == "seconds"],
    }
    written = {}
    for name, part in parts.items():
        if (out / name).is_dir():
            raise TpvError(f"{out / name} is a folder", expected="a place for a file", fix="take it away")
        write_rows(part, out / name)
        written[name] = hashlib.sha256((out / name).read_bytes()).hexdigest()
    with atomic_write(out / WRITTEN) as file:
        file.write_text(json.dumps(written))
