"""A run directory: who works in it, what it was made from, and its artifacts."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

import tpv
from tpv.errors import DamagedFileError, TpvError, cut_summary, scrub
from tpv.execution.artifacts import Keys, Store, digest, read_json
from tpv.execution.remote import mirror_of
from tpv.files import atomic_write, writing
from tpv.studies.jobs import KINDS, Job, needs
from tpv.studies.settings import Config, VectorSettings
from tpv.tasks import Task

MANIFEST, SPLIT_MANIFEST = "run.json", "splits.json"
# keys that older configs lack: left out at their defaults, so that older runs go on
LATER = {"style": "text", "vectors": VectorSettings().model_dump(mode="json")}


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


class _Model(BaseModel):
    """The model of a run: its identity, the digest of all its weights, and where it ran."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    fingerprint: str
    hidden_size: int
    architecture: str = "encoder-decoder"
    weights: str
    device: str


class _TaskData(BaseModel):
    """The rows of a task: their fingerprint and number, the label words, and whether all the hub has are there.

    `numbers`: the label words are numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    fingerprint: str
    sizes: dict[str, int]
    labels: tuple[str, ...]
    positive: int
    whole: bool
    numbers: bool = False


class Manifest(BaseModel):
    """What a run directory was made from, as `run.json` keeps it.

    Attributes:
        config: the config, without what cannot change a number.
        tpv: the version.
        steps: version of the code of each kind of job.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    config: dict[str, Any]
    model: _Model
    tasks: dict[str, _TaskData]
    tpv: str
    steps: dict[str, int]

    def keys(self, config: Config) -> Keys:
        """The keys of this run's jobs."""
        setting = {
            "model": {"weights": self.model.weights, "precision": config.model.precision, "chat": config.model.chat},
            "prompt": config.prompt.model_dump() | {"vocabulary_limit": config.vocabulary_limit},
            "live_rows": config.live_rows,
            "compare_characters": config.compare_characters,
            "max_input_length": config.model.max_input_length,
        }
        return Keys(setting, {name: about.fingerprint for name, about in self.tasks.items()})


def step_versions() -> dict[str, int]:
    return {kind: job.version for kind, job in KINDS.items()}


def essential(config: Config) -> dict[str, Any]:
    """The config without what cannot change a number, as a manifest keeps it."""
    values = _deciding(config)
    return {key: value for key, value in values.items() if key not in LATER or value != LATER[key]}


def _deciding(config: Config) -> dict[str, Any]:
    values: dict[str, Any] = config.model_dump(mode="json")
    values["run"] = {"bank": config.run.bank}
    values["data_dir"], values["task_files"] = None, {}  # where data lies; what it is, its fingerprint says
    return values


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run directory, or None where nothing was run yet.

    Raises:
        DamagedFileError: it does not read, or another version wrote it.
    """
    path = folder / MANIFEST
    bring(folder, SPLIT_MANIFEST, MANIFEST)
    if not path.exists():
        return None
    content = read_json(path, "manifest")
    if content.get("digest") != digest(content):
        raise DamagedFileError(
            f"manifest {path} was altered, or another version wrote it", fix="put it back, or choose another --out"
        )
    content.pop("digest")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise DamagedFileError(
            f"manifest {path} is damaged, or of another version",
            got=_mistakes(error),
            fix="use the tpv that made it, or choose another --out",
        ) from None


def _mistakes(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    with atomic_write(folder / MANIFEST) as part:
        content = manifest.model_dump(mode="json")
        part.write_text(json.dumps(content | {"digest": digest(content)}, indent=1, sort_keys=True))
    send(folder, SPLIT_MANIFEST, MANIFEST)


def bring(folder: Path, *names: str) -> None:
    """Bring files of a run directory from its URL, where it has one; what is not there is not here either."""
    mirror = mirror_of(folder)
    if mirror is not None:
        for name in names:
            if not mirror.fetch(name):
                (folder / name).unlink(missing_ok=True)


def send(folder: Path, *names: str) -> None:
    """Take files of a run directory to its URL, in this order, where it has one."""
    mirror = mirror_of(folder)
    if mirror is not None:
        mirror.send(*(name for name in names if (folder / name).exists()))


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
    """The splits of a task whose rows are not those of `splits.json`; none where that does not say."""
    try:
        known = read_json(folder / SPLIT_MANIFEST, "splits")[name]
        return [split for split in task.splits if known[split]["sha256"] != task.split_sha256(split)]
    except (TpvError, KeyError, TypeError):  # a run directory from before there was one, or it was altered
        return []


def check(folder: Path, manifest: Manifest, config: Config) -> None:
    """Refuse to go on with another config or another version.

    Raises:
        TpvError: with what differs.
    """
    differences = list(_differences(_deciding(_config_of(folder, manifest)), _deciding(config)))
    if differences:
        raise TpvError(
            f"run directory {folder} was made with another config",
            got="; ".join(differences[:8]) + (f"; and {len(differences) - 8} more" if len(differences) > 8 else ""),
            fix="choose another --out, or put the config back",
        )
    check_version(folder, manifest)


def check_version(folder: Path, manifest: Manifest) -> None:
    """Refuse what another version of tpv made.

    Raises:
        TpvError: with both versions.
    """
    now = step_versions()  # a kind that a run knows nothing of does not concern it
    if manifest.tpv != tpv.__version__ or manifest.steps != {kind: now.get(kind) for kind in manifest.steps}:
        raise TpvError(
            f"run directory {folder} was made by another version of tpv",
            expected=f"tpv {tpv.__version__}, steps {step_versions()}",
            got=f"tpv {manifest.tpv}, {manifest.steps}",
            fix="choose another --out, or use that version",
        )


def _config_of(folder: Path, manifest: Manifest) -> Config:
    """The config of a manifest; keys that it lacks for its age are at their defaults.

    Raises:
        DamagedFileError: it does not hold.
    """
    try:
        config = Config.model_validate(manifest.config)
    except ValidationError as error:
        raise DamagedFileError(f"manifest {folder / MANIFEST} is damaged", got=_mistakes(error)) from None
    tasks = {*config.source_tasks, *config.targets}
    if tasks != manifest.tasks.keys():
        raise DamagedFileError(
            f"manifest {folder / MANIFEST} is damaged",
            expected=f"the rows of {', '.join(sorted(tasks))}",
            got=", ".join(sorted(manifest.tasks)),
        )
    return config


def _differences(was: Any, now: Any, place: str = "") -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from _differences(was.get(key), now.get(key), f"{place}.{key}" if place else key)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (one, two) in enumerate(zip(was, now, strict=True)):
            yield from _differences(one, two, f"{place}.{i}")
    elif was != now:
        yield f"{place} was {was!r}, is {now!r}"


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
                self._records[job] = {name: record[name] for name in ("files", "inputs", "cut") if name in record}
            except DamagedFileError as error:
                self._records[job] = None
                if self.folder_of(job).exists():
                    self.damaged[job] = error.what
        return self._records[job]

    def inputs(self, job: Job) -> dict[str, Any]:
        """Hashes of the files that a job is calculated from, by the keys of their jobs."""
        return {self.keys(need): (self._record(need) or {}).get("files") for need in needs(job)}

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
    return RunDirectory(folder, _config_of(folder, manifest), manifest)
