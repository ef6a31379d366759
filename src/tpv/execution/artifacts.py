"""What jobs leave behind: a folder each, published by one rename, so that it is whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from tpv.errors import DamagedFileError, TpvError
from tpv.execution.remote import remote_store
from tpv.files import filling, regular, unused, writing
from tpv.studies.expressions import Expression
from tpv.studies.jobs.base import Job

RECORD = "record.json"


class Keys:
    """The key of every job: a hash of all that decides its result.

    Args:
        setting: what all jobs share: model fingerprint, prompt, evaluation.
        data: fingerprint of each task's rows, by the name the config uses.
    """

    def __init__(self, setting: Mapping[str, Any], data: Mapping[str, str]) -> None:
        self._setting = json.dumps(setting, sort_keys=True)
        self._data = data
        self._known: dict[Job, str] = {}

    def __call__(self, job: Job) -> str:
        """sha256, first 32 hexadecimal digits."""
        if job not in self._known:
            content = {
                "kind": job.kind,
                "version": job.version,
                "job": {field.name: self._plain(getattr(job, field.name)) for field in fields(job)},  # type: ignore[arg-type]
                "data": [self._data[task] for task in job.reads],
            }
            plugins = {entry.name: entry.source_digest for entry in job.uses() if not entry.builtin}
            if plugins:  # a plugin that changed makes its jobs anew
                content["plugins"] = plugins
            text = self._setting + json.dumps(content, sort_keys=True)
            self._known[job] = hashlib.sha256(text.encode()).hexdigest()[:32]
        return self._known[job]

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Expression) and value.is_job:
            return {"key": self(value)}  # type: ignore[arg-type]
        if isinstance(value, tuple):
            return [self._plain(item) for item in value]
        if is_dataclass(value) and not isinstance(value, type):
            inner = {field.name: self._plain(getattr(value, field.name)) for field in fields(value)}
            return {"is": type(value).__name__} | inner
        return value


class Store:
    """The artifacts of a run directory, `jobs/<kind>/<key>/`: files, and a record that lists their hashes.

    Where the directory is worked on for a URL, what is there is brought from it, and what is made is sent to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._remote = folder / "jobs", remote_store(folder)

    def place(self, kind: str, key: str) -> Path:
        return self.folder / kind / key

    def record(self, kind: str, key: str) -> dict[str, Any]:
        """The record of an artifact, after checking its files.

        Raises:
            DamagedFileError: missing, of another job, or altered. Such an artifact counts as missing and is made again.
            TpvError: a URL that does not answer.
        """
        remote, name = self._remote, f"jobs/{kind}/{key}"
        if remote is None:
            return self._record(kind, key)
        try:
            record = self._record(kind, key)
        except DamagedFileError:
            if not remote.fetch_artifact(name):
                raise
            return self._record(kind, key)
        if not remote.has_artifact(name):  # killed before it was sent
            remote.send_artifact(name)
        return record

    def _record(self, kind: str, key: str) -> dict[str, Any]:
        place = self.place(kind, key)
        try:
            record: dict[str, Any] = json.loads(regular(place / RECORD).read_bytes())
            if record["digest"] != digest(record):
                raise DamagedFileError(f"{place / RECORD} was altered", fix="`tpv run` makes it again")
            if record["key"] != key or record["kind"] != kind:
                raise DamagedFileError(f"artifact {place} belongs to another job", expected=key, got=record["key"])
            for name, expected in record["files"].items():
                if hashlib.sha256(regular(place / name).read_bytes()).hexdigest() != expected:
                    raise DamagedFileError(f"file {place / name} is damaged", fix="`tpv run` makes it again")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedFileError(f"artifact {place} is missing or damaged", got=str(error)) from None
        return record

    @contextmanager
    def writing(self, kind: str, key: str, about: Mapping[str, Any]) -> Iterator[Path]:
        """A temporary folder that becomes the artifact when the block ends well; nothing is left otherwise.

        Raises:
            TpvError: the place cannot be written.
        """
        place = self.place(kind, key)
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        part = unused(place.parent, ".part-")
        try:
            with writing(place):
                part.mkdir(0o700)
            with filling(place):
                yield part
            with writing(place):
                files = sorted(path for path in part.iterdir())
                record = {
                    "key": key,
                    "kind": kind,
                    "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
                    **about,
                }
                record["digest"] = digest(record)
                (part / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))
                for path in (*files, part / RECORD):
                    with path.open("rb+") as file:
                        os.fsync(file.fileno())
                part.chmod(0o755)
                self._publish(part, place, record)
            if self._remote is not None:
                self._remote.send_artifact(f"jobs/{kind}/{key}")
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _publish(self, part: Path, place: Path, record: Mapping[str, Any]) -> None:
        """Put a complete artifact in its place, unless an identical one is there that another worker may be reading."""
        with suppress(DamagedFileError):
            there = self._record(record["kind"], record["key"])
            if (there["files"], there.get("inputs")) == (record["files"], record.get("inputs")):
                return
        with suppress(FileNotFoundError):  # damaged, or half of it deleted by hand
            shutil.rmtree(place)
        part.rename(place)

    def clean(self) -> None:
        """Remove what killed processes left half-written."""
        for part in self.folder.glob("*/.part-*"):
            shutil.rmtree(part, ignore_errors=True)


def digest(content: Mapping[str, Any]) -> str:
    """sha256 of JSON values, an entry `digest` left out: shows whether a file was altered by hand."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def describe(job: Job) -> Any:
    """A job as JSON-ready values, for people who read a record."""
    return _cut(asdict(job))  # type: ignore[call-overload]


def _cut(value: Any, depth: int = 0) -> Any:
    if isinstance(value, dict):
        return {key: _cut(item, depth + 1) for key, item in value.items()} if depth < 6 else "..."
    return [_cut(item, depth + 1) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file of a run directory.

    Raises:
        TpvError: missing or damaged.
    """
    try:
        content = json.loads(regular(path).read_bytes())
    except OSError as error:
        raise TpvError(f"{what} {path} cannot be read", got=error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{what} {path} is damaged", got=str(error)) from None
    if not isinstance(content, dict):
        raise DamagedFileError(f"{what} {path} is damaged", expected="a JSON object")
    return content
