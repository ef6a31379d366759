"""A run directory at a URL: worked on in a folder of each machine, whose artifacts come from the URL and go to it."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from tpv.errors import TpvError, scrub
from tpv.files import atomic_write, cache_folder, unused, writing

ADDRESS = ".url"  # in a working folder, what it mirrors
LAST = "record.json"  # of an artifact: until it is there, and fits, the artifact is not


def is_url(place: str) -> bool:
    return re.match(r"[a-zA-Z][\w+.-]+://", place) is not None


def working_folder(url: str) -> Path:
    """The folder on this machine in which the run directory at a URL is worked on.

    Raises:
        TpvError: a URL that fsspec does not know, or that needs a package.
    """
    url = url.rstrip("/")
    RemoteStore(url, Path()).check()
    folder = cache_folder() / "runs" / hashlib.sha256(url.encode()).hexdigest()[:16]
    with atomic_write(folder / ADDRESS) as part:
        part.write_text(url)
    return folder


def remote_store(folder: Path) -> RemoteStore | None:
    """What a folder is the working folder of, if it is one."""
    try:
        return RemoteStore((folder / ADDRESS).read_text(), folder)
    except OSError:
        return None


@contextmanager
def store_told(place: str, what: str) -> Iterator[None]:
    """Turn any failure of a store into one line; every kind of store has its own.

    Args:
        place: the store, without names and passwords.
        what: what could not be done.
    """
    try:
        yield
    except TpvError:
        raise
    except Exception as error:
        raise TpvError(f"{place} {what}", got=scrub(f"{type(error).__name__}: {error}")[:500]) from None


class RemoteStore:
    """The files of a working folder at their URL. Nothing is locked there: what is written twice is written the same.

    Args:
        url: of the run directory, of any kind that fsspec knows.
        folder: the working folder.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def __str__(self) -> str:
        return re.sub(r"//[^/]*@", "//", self.url)  # no name and password of a user

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        fs, root = url_to_fs(self.url, use_listings_cache=False)
        return fs, root

    def check(self) -> None:
        """Refuse a URL that cannot be one."""
        with self._told("cannot be opened"):
            self._opened  # noqa: B018 (opens it)

    def _told(self, what: str) -> AbstractContextManager[None]:
        return store_told(str(self), what)

    def fetch(self, name: str) -> bool:
        """Bring a file; whether it was there."""
        fs, root = self._opened
        with self._told(f"cannot be read: {name}"):
            try:
                data = fs.cat_file(f"{root}/{name}")
            except FileNotFoundError:
                return False
        with atomic_write(self.folder / name) as part:
            part.write_bytes(data)
        return True

    def fetch_artifact(self, name: str) -> bool:
        """Download an artifact, complete or not, over the local one; returns whether it exists remotely."""
        fs, root = self._opened
        place = self.folder / name
        with self._told(f"cannot be read: {name}"):
            if not fs.exists(f"{root}/{name}/{LAST}"):
                return False
            names = [str(path).rsplit("/", 1)[-1] for path in fs.ls(f"{root}/{name}", detail=False)]
            contents = {each: fs.cat_file(f"{root}/{name}/{each}") for each in names}
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            part = unused(place.parent, ".part-")
            try:
                part.mkdir(0o700)
                for each, data in contents.items():
                    (part / each).write_bytes(data)
                shutil.rmtree(place, ignore_errors=True)
                part.rename(place)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        return True

    def send(self, *names: str) -> None:
        """Take files there, in this order."""
        fs, root = self._opened
        for name in names:
            with self._told(f"cannot be written: {name}"):
                fs.makedirs(f"{root}/{name}".rsplit("/", 1)[0], exist_ok=True)
                fs.pipe_file(f"{root}/{name}", (self.folder / name).read_bytes())

    def send_artifact(self, name: str) -> None:
        """Take an artifact there, its record last."""
        files = sorted(path.name for path in (self.folder / name).iterdir() if path.name != LAST)
        self.send(*(f"{name}/{file}" for file in (*files, LAST)))

    def has_artifact(self, name: str) -> bool:
        fs, root = self._opened
        with self._told(f"cannot be read: {name}"):
            return bool(fs.exists(f"{root}/{name}/{LAST}"))
