"""`tpv run`: calculate what is missing, unit by unit, so that a kill at any moment loses one unit at most."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from tpv.errors import TpvError, did_you_mean
from tpv.execution.directory import RunDirectory, locked
from tpv.execution.executors.base import Executor, Jobs
from tpv.execution.executors.local import LocalExecutor
from tpv.execution.finished import Finished
from tpv.execution.manifest import Manifest, bring, check, read_manifest, send
from tpv.execution.plan import WorkUnit, chosen, unit_needs, work_units
from tpv.execution.progress import Reporter
from tpv.files import atomic_write, regular
from tpv.studies.cells import TIMES, Cell, cells, cost_rows
from tpv.studies.jobs.base import Job, Sizes, in_order
from tpv.studies.settings import Config

MOST_DEATHS = 5  # of workers over one unit, before it is given up
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
        damaged: what was found altered or broken, and made again.
    """

    total: int
    ran: int = 0
    failed: dict[Job, str] = field(default_factory=dict)
    blocked: int = 0
    left: int = 0
    warned: int = 0
    cut: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def add(self, unit: Finished) -> None:
        self.ran += len(unit.ran)
        self.failed |= unit.failed
        self.warned += unit.warned
        self.cut += unit.cut


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
    config: Config,
    folder: Path,
    *,
    experiment: str | None = None,
    limit: int | None = None,
    reporter: Callable[[float], Reporter],
    executor: Executor | None = None,
) -> Outcome:
    """Calculate what is missing in a run directory; see the package for what is kept where.

    Args:
        experiment: only this one, and what it needs.
        limit: stop after about so many jobs: a bank that was begun is finished.
        reporter: makes what tells the user, from the weight of all the work.
        executor: who calculates; by default this process alone.

    Raises:
        TpvError: a directory in use or made from something else, a model or task that does not load.
    """
    from tpv.execution.tracking import ENERGY, check_trackers

    wanted = only(config, experiment)
    check_trackers(config)
    with locked(folder), ExitStack() as stack:
        ready = cache(
            partial(stack.enter_context, executor or LocalExecutor(config, folder))
        )  # a finished run needs nobody
        manifest = read_manifest(folder)
        if manifest is None:
            ready().prepare()
            manifest = read_manifest(folder)
            assert manifest is not None
        check(folder, manifest, config)
        directory = RunDirectory(folder, config, manifest)
        every = work_units(config, in_order(cell.job for cell in cells(config)))
        mine = chosen(every, wanted)
        outcome = Outcome(total=sum(len(unit.jobs) for unit in mine))
        missing = [unit for unit in mine if not all(map(directory.done, unit.jobs))]
        directory.store.clean()
        if missing:
            _run_units(directory, mine, outcome, limit, reporter, ready)
            directory.store.clean()  # of workers that died on the way
        if not missing:
            bring(folder, RESULTS, TIMINGS, WRITTEN)
        altered = _altered_results(folder)
        if missing or altered or not _written_by(folder, config):
            write_results(directory, folder)
            send(folder, RESULTS, TIMINGS, ENERGY, WRITTEN)
        outcome.damaged = [*directory.damaged.values(), *altered]
    return outcome


def sizes_of(manifest: Manifest) -> Sizes:
    return {name: about.sizes for name, about in manifest.tasks.items()}


def _run_units(
    directory: RunDirectory,
    every: Sequence[WorkUnit],
    outcome: Outcome,
    limit: int | None,
    reporter: Callable[[float], Reporter],
    ready: Callable[[], Executor],
) -> None:
    """Submit work units as soon as their inputs are ready; the composition of banks does not depend on the executor."""
    from tpv.execution.tracking import energy, trackers

    config, schedule = directory.config, _Schedule(directory, every, outcome, limit)
    missing = [unit for unit in every if not all(map(directory.done, unit.jobs))]
    undone = sum(len(unit.jobs) for unit in missing)
    with (
        trackers(config, directory.folder) as log,
        energy(config, directory.folder),
        reporter(sum(map(schedule.weigh, missing))) as report,
    ):
        executor = ready()
        report.begin(outcome.total, outcome.total - undone)
        while schedule.left:
            schedule.submit(executor, report)
            if executor.idle and not schedule.working:
                continue
            taken = executor.wait()
            seconds = None if taken is None else schedule.settle(*taken, report)
            if seconds is not None:
                log({"jobs": float(outcome.ran), "seconds per job": seconds}, outcome.ran)


class _Schedule:
    """Which work units wait for others, which are being worked on, and which are settled."""

    def __init__(self, directory: RunDirectory, every: Sequence[WorkUnit], outcome: Outcome, limit: int | None) -> None:
        self._directory, self._every, self._outcome, self._limit = directory, every, outcome, limit
        self._sizes, self._waits_for = sizes_of(directory.manifest), unit_needs(every)
        self._waiting, self._settled = dict(enumerate(every)), set[int]()
        self._deaths: Counter[int] = Counter()
        self.working: dict[Jobs, tuple[int, float]] = {}

    @property
    def left(self) -> bool:
        return bool(self._waiting or self.working)

    def weigh(self, unit: WorkUnit) -> float:
        return sum(job.work(self._sizes).weight for job in unit.jobs)

    def _to_do(self, unit: WorkUnit) -> Jobs:
        """The jobs of a unit to run now; none if it is done, blocked or beyond the limit."""
        outcome = self._outcome
        if all(map(self._directory.done, unit.jobs)):  # asked again: what it needs may have been made anew by now
            return ()
        if self._limit is not None and outcome.ran + sum(map(len, self.working)) >= self._limit:
            outcome.left += len(unit.jobs)
            return ()
        blocked = [job for job in unit.jobs if any(need in outcome.failed for need in _all_needs(job))]
        outcome.blocked += len(blocked)
        return tuple(job for job in unit.jobs if job not in blocked)

    def submit(self, executor: Executor, report: Reporter) -> None:
        """Give idle workers the units that have all they need."""
        for number, unit in list(self._waiting.items()):
            if not executor.idle:
                break
            if self._waits_for[number] <= self._settled:
                del self._waiting[number]
                if jobs := self._to_do(unit):
                    report.unit(WorkUnit(jobs), self.weigh(unit))
                    executor.submit(jobs, report.step)
                    self.working[jobs] = number, time.perf_counter()
                else:
                    self._settled.add(number)

    def settle(self, jobs: Jobs, came: Finished | str, report: Reporter) -> float | None:
        """Take in what came of a unit, or how its worker died; seconds per job, None where it is tried again."""
        number, started = self.working.pop(jobs)
        if isinstance(came, str):
            self._deaths[number] += 1
            if self._deaths[number] < MOST_DEATHS:
                report.again(WorkUnit(jobs), came)
                self._waiting = {number: self._every[number], **self._waiting}
                return None
            text = f"its worker died {MOST_DEATHS} times over it: {came}"
            came = Finished(failed=dict.fromkeys(jobs, text))
        for job in jobs:
            self._directory.forget(job)
        self._outcome.add(came)
        self._settled.add(number)
        report.done(WorkUnit(jobs))
        return (time.perf_counter() - started) / len(jobs)


def _all_needs(job: Job) -> list[Job]:
    return in_order(job.needs())


def _altered_results(folder: Path) -> list[str]:
    """What is not as it was written of the results; nothing where none were written."""
    if not (folder / WRITTEN).exists():
        return []
    altered = []
    for name in (RESULTS, TIMINGS):
        try:
            if json.loads(regular(folder / WRITTEN).read_bytes())[name] == _sha256(folder / name):
                continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        altered.append(f"{folder / name} is missing, or not as it was written")
    return altered


def _written_by(folder: Path, config: Config) -> bool:
    """Whether the results exist and were written with the current plugins, which may define metrics."""
    try:
        written = json.loads(regular(folder / WRITTEN).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(written, dict) and written.get("plugins", "") == config.plugin_digest()


def _sha256(file: Path) -> str:
    return hashlib.sha256(regular(file).read_bytes()).hexdigest()


def write_results(directory: RunDirectory, out: Path) -> None:
    """`results.parquet` and `timings.parquet` in `out`, from the existing artifacts."""
    from tpv.reporting.records import write_rows
    from tpv.studies.rows import rows_of_cell

    labels = {name: about.labels for name, about in directory.manifest.tasks.items()}
    rows = [
        row
        for cell in cells(directory.config)
        if directory.done(cell.job)
        for row in (
            *rows_of_cell(cell, directory.folder_of(cell.job), directory.keys(cell.job), labels),
            *cost_rows(cell, directory.keys(cell.job), directory.about),
        )
    ]
    # wall-clock times cannot be the same twice, so they are kept apart from what can
    parts = {
        RESULTS: [row for row in rows if row.metric not in TIMES],
        TIMINGS: [row for row in rows if row.metric in TIMES],
    }
    written = {"plugins": directory.config.plugin_digest()}
    (out / WRITTEN).unlink(missing_ok=True)  # until it is there again, nothing is known of the results
    for name, part in parts.items():
        if (out / name).is_dir():
            raise TpvError(f"{out / name} is a folder", expected="a place for a file", fix="take it away")
        write_rows(part, out / name)
        written[name] = _sha256(out / name)
    with atomic_write(out / WRITTEN) as file:
        file.write_text(json.dumps(written))
