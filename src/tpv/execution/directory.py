"""A run directory: who works in it, and its artifacts by job."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tpv.errors import DamagedFileError, TpvError, cut_summary, scrub
from tpv.execution.artifacts import Store, read_json
from tpv.execution.manifest import MANIFEST, SPLIT_MANIFEST, Manifest, check_version, config_of, read_manifest
from tpv.files import atomic_write, writing
from tpv.studies.jobs.base import Job
from tpv.studies.settings import Config
from tpv.tasks import Task

KEPT = ("files", "inputs", "cut", "seconds", "trained")  # of the record of an artifact


def refuse_links(folder: Path) -> None:
    """Refuse a run directory, which may be a stranger's, in which writing would lead to somewhere else.

    Raises:
        TpvError: naming the link.
    """
    places = [folder / name for name in (".lock", "jobs", "checkpoints", "trackers", "tables", "figures")]
    for place in (*places, *sorted((folder / "jobs").glob("*"))):
        if place.is_symlink():
            raise TpvError(
                f"{place} is a link",
                expected="files and folders in a run directory",
                fix="put what it leads to in its place; the run directory itself may be a link",
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run directory against a second `tpv run`; the lock goes with the process, however that ends.

    Raises:
        TpvError: another process holds it, which is named; or the directory cannot be written, or holds a link.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        refuse_links(folder)
    lock, owner = FileLock(folder / ".lock", timeout=0), folder / ".lock.json"
    try:
        lock.acquire()
    except Timeout:
        try:
            holder = json.loads(owner.read_text())
            who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
        except (OSError, ValueError, KeyError):
            who = "another process"
        raise TpvError(
            f"run directory {folder} is in use", got=who, fix="wait for it to end, or choose another --out"
        ) from None
    except OSError as error:
        raise TpvError(f"{folder} cannot be written", got=error.strerror) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        with atomic_write(owner) as part:
            part.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
        if not (folder / MANIFEST).exists():  # refused before anything was run: leave no trace
            with suppress(OSError):
                (folder / ".lock").unlink(missing_ok=True)
                folder.rmdir()


def write_splits(folder: Path, tasks: Mapping[str, Task]) -> None:
    """`splits.json`: where each task's rows come from, and the number and sha256 of those of each split.

    It is for people, and for saying which split differs when one does; `run.json` decides whether one does.
    """
    content = {
        name: {"from": {key: scrub(value) for key, value in task.origin.items()}}
        | {split: {"rows": len(rows), "sha256": task.split_sha256(split)} for split, rows in task.splits.items()}
        for name, task in tasks.items()
    }
    with atomic_write(folder / SPLIT_MANIFEST) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def differing_splits(folder: Path, name: str, task: Task) -> list[str]:
    """The splits of a task whose rows differ from those in `splits.json`; none if it does not list the task."""
    try:
        known = read_json(folder / SPLIT_MANIFEST, "splits")[name]
        return [split for split in task.splits if known[split]["sha256"] != task.split_sha256(split)]
    except (TpvError, KeyError, TypeError):  # a run directory from before there was one, or it was altered
        return []


class RunDirectory:
    """A run directory with a manifest: its artifacts by job.

    `damaged`: what is wrong with those that are there and do not count, as far as they were looked at.
    """

    def __init__(self, folder: Path, config: Config, manifest: Manifest) -> None:
        self.folder, self.config, self.manifest = folder, config, manifest
        self.keys, self.store = manifest.keys(config), Store(folder)
        self._records: dict[Job, dict[str, Any] | None] = {}
        self.damaged: dict[Job, str] = {}

    def _record(self, job: Job) -> dict[str, Any] | None:
        """What is asked of the record of a job's artifact, read and checked once; None where it is missing or damaged.

        The rest of it, the job described, would fill the memory of a long run.
        """
        if job not in self._records:
            try:
                record = self.store.record(job.kind, self.keys(job))
                self._records[job] = {name: record[name] for name in KEPT if name in record}
            except DamagedFileError as error:
                self._records[job] = None
                if self.folder_of(job).exists():
                    self.damaged[job] = error.what
        return self._records[job]

    def about(self, job: Job) -> dict[str, Any]:
        """What is kept of the record of a job's artifact; nothing where it is missing or damaged."""
        return self._record(job) or {}

    def inputs(self, job: Job) -> dict[str, Any]:
        """Hashes of the files that a job reads, by the keys of the jobs that made them."""
        return {self.keys(need): (self._record(need) or {}).get("files") for need in job.needs()}

    def done(self, job: Job) -> bool:
        """Whether the job's artifact is there, reads, and was made from what its needs' artifacts hold now.

        A bank that failed in part, and is made anew when it can be, may differ in last bits from what it was.
        """
        record = self._record(job)
        return record is not None and record.get("inputs") == self.inputs(job)

    def cut(self, jobs: Iterable[Job]) -> str:
        """What the records of these jobs say of texts longer than the limit, as one line; empty where nothing was."""
        return cut_summary(message for job in jobs for message in (self._record(job) or {}).get("cut", ()))

    def forget(self, job: Job) -> None:
        """Look at a job's artifact again."""
        self._records.pop(job, None)

    def file(self, job: Job, name: str) -> Path:
        """A file of a finished job, checked.

        Raises:
            DamagedFileError: missing or altered.
        """
        self.store.record(job.kind, self.keys(job))
        return self.folder_of(job) / name

    def folder_of(self, job: Job) -> Path:
        return self.store.place(job.kind, self.keys(job))


def open_run(folder: Path) -> RunDirectory:
    """A run directory to read from, with the config it was made with.

    Raises:
        TpvError: not a run directory, damaged, made by another version, or with a link in it.
    """
    refuse_links(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise TpvError(f"{folder} is no run directory", expected=f"{MANIFEST} in it", fix="make it with `tpv run`")
    check_version(folder, manifest)
    return RunDirectory(folder, config_of(folder, manifest), manifest)
