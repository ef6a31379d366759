"""The files of a library's folder, and an index that saves reading the headers of those which did not change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from tpv.errors import TpvError
from tpv.files import atomic_write, regular
from tpv.prompts.facts import Facts, Reason, read_facts
from tpv.prompts.storage import SUFFIX

INDEX, RUN = ".tpv-index.json", "run.json"
LARGEST_INDEX = 256 * 2**20  # bytes


class Seen(BaseModel):
    """What the index says of a file: facts, or why it holds no vector.

    Attributes:
        size, mtime_ns: of the file when it was read; another one is read again.
        digest: of the vector (see `PromptMatrix.digest`), once it was calculated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    mtime_ns: int
    facts: Facts | None = None
    wrong: Reason | None = None
    digest: str = ""


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: Literal[1]
    files: dict[str, Seen]


class FolderIndex:
    """The index file of a folder. Nothing depends on it: one that is missing, damaged or not to be written costs time.

    Args:
        folder: the folder; its index is `.tpv-index.json` in it.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._changed = folder / INDEX, False
        self._known: dict[str, Seen] = {}
        self._files: dict[str, Seen] = {}
        with suppress(OSError, ValueError, RecursionError):
            if regular(self._file).stat().st_size <= LARGEST_INDEX:
                self._known = _Index.model_validate_json(self._file.read_bytes()).files

    def facts(self, name: str, path: Path, stat: os.stat_result) -> Facts | Reason:
        """The facts of a file, or the reason why there are none; from the index if it did not change.

        Args:
            name: of the file in the folder, with `/` between folders.
        """
        seen = self._known.get(name)
        if seen is None or (seen.size, seen.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            found = read_facts(path)
            if found is Reason.unreadable:  # others may be allowed to read it
                return found
            facts, wrong = (found, None) if isinstance(found, Facts) else (None, found)
            seen = Seen(size=stat.st_size, mtime_ns=stat.st_mtime_ns, facts=facts, wrong=wrong)
            self._changed = True
        self._files[name] = seen
        return seen.facts or seen.wrong or Reason.damaged

    def digest(self, name: str) -> str:
        """The digest of a file's vector, empty where it was not calculated yet."""
        return self._files[name].digest

    def keep_digest(self, name: str, digest: str) -> None:
        self._files[name] = self._files[name].model_copy(update={"digest": digest})
        self._changed = True

    def write(self) -> None:
        """Write the index, if it says anything new and the folder can be written to."""
        if self._changed or self._files.keys() != self._known.keys():
            content = _Index(format=1, files=self._files).model_dump_json(exclude_defaults=True)
            with suppress(TpvError), atomic_write(self._file) as part:
                part.write_text(content)
            self._known, self._changed = dict(self._files), False


class Found(NamedTuple):
    """A file that may hold a vector, or a run directory.

    Attributes:
        name: its path in the folder, with `/` between folders.
        stat: None for a run directory, and for a file that cannot be looked at.
    """

    name: str
    path: Path
    is_run: bool
    stat: os.stat_result | None


def found_in(folder: Path) -> Iterator[Found]:
    """The safetensors files in a folder and in the folders in it, and run directories, which are not looked into.

    What is hidden (a file in the works) is skipped, and links to folders are not followed.

    Raises:
        TpvError: the folder cannot be read.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise TpvError(f"folder {folder} cannot be read", got=error.strerror) from None
    waiting = [(folder, "")]
    while waiting:
        place, prefix = waiting.pop()
        try:
            with os.scandir(place) as listed:
                inside = sorted(listed, key=lambda entry: entry.name)
        except OSError:
            yield Found(prefix.rstrip("/"), place, False, None)
            continue
        folders: list[tuple[Path, str]] = []
        for entry in inside:
            name = f"{prefix}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if (place / entry.name / RUN).is_file():
                    yield Found(name, place / entry.name, True, None)
                else:
                    folders.append((place / entry.name, f"{name}/"))
            elif entry.name.endswith(SUFFIX):
                yield Found(name, place / entry.name, False, _stat(entry))
        waiting += reversed(folders)


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        entry.name.encode()
        return entry.stat()
    except (OSError, ValueError):  # a link to nowhere; a name that is no text
        return None
