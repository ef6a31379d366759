"""A library at a URL, mirrored into a folder of this process; what is written goes to the URL first."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from tpv.errors import scrub
from tpv.evaluation.tuned import TASK_FILE
from tpv.execution.remote import store_told
from tpv.files import atomic_write
from tpv.prompts.storage import SUFFIX, is_safe_name

MARKS = ("size", "mtime", "LastModified", "last_modified", "ETag", "etag", "md5Hash", "generation", "created")
LARGEST = 64 * 2**20  # bytes of a file that is fetched


class Mirror:
    """Copies of the prompts, vectors and task files at a URL.

    Writing replaces a file whole, as stores of objects do. A store that does not (sftp, for one) may show half a file
    for a moment, which is left out until it is whole.

    Args:
        url: of any kind that fsspec knows.

    Raises:
        TpvError: a URL that fsspec does not know, or that needs a package.
    """

    def __init__(self, url: str) -> None:
        self._url, self._known = url.rstrip("/"), dict[str, str]()
        with self._told("cannot be opened"):
            from fsspec.core import url_to_fs

            self._fs, self._root = url_to_fs(self._url, use_listings_cache=False)
        self._own = tempfile.TemporaryDirectory(prefix="tpv-library-")
        self.folder = Path(self._own.name)

    def _told(self, what: str) -> AbstractContextManager[None]:
        return store_told(f"library {scrub(self._url)}", what)

    def pull(self) -> None:
        """Bring what changed, and drop what is gone.

        Raises:
            TpvError: the store cannot be read.
        """
        with self._told("cannot be read"):
            listed: dict[str, dict[str, Any]] = self._fs.find(self._root, detail=True) if self._exists() else {}
        marks: dict[str, str] = {}
        for path, info in listed.items():
            name = str(path)[len(self._root) :].lstrip("/")
            if _wanted(name) and int(info.get("size") or 0) <= LARGEST:
                marks[name] = repr([(key, str(info[key])) for key in MARKS if key in info])
        for name, mark in marks.items():
            if self._known.get(name) != mark:
                with self._told(f"cannot be read: {name}"):
                    try:
                        content = self._fs.cat_file(f"{self._root}/{name}")
                    except FileNotFoundError:
                        continue
                with atomic_write(self.folder / name) as part:
                    part.write_bytes(content)
                self._known[name] = mark
        for name in self._known.keys() - marks.keys():
            del self._known[name]
            with suppress(OSError):
                (self.folder / name).unlink()

    def _exists(self) -> bool:
        return bool(self._fs.exists(self._root))

    def push(self, name: str, content: bytes) -> None:
        """Write a file at the URL.

        Raises:
            TpvError: it cannot be written.
        """
        with self._told(f"cannot be written: {name}"):
            self._fs.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{name}", content)
        self._known.pop(name, None)

    def remove(self, name: str) -> None:
        """Delete a file at the URL; one that is gone already is no mistake.

        Raises:
            TpvError: it cannot be deleted.
        """
        with self._told(f"cannot be deleted: {name}"), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")
        self._known.pop(name, None)

    def close(self) -> None:
        """Remove the folder."""
        self._own.cleanup()


def _wanted(name: str) -> bool:
    """Whether a file of a store is a prompt, a vector or a task file, under a name that stays inside the folder."""
    if name.endswith(SUFFIX):
        return is_safe_name(name.removesuffix(SUFFIX))
    folder, _, last = name.rpartition("/")
    return last == TASK_FILE and bool(folder) and is_safe_name(folder)
