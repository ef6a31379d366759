"""Files that are whole or not there: everything tpv writes goes through here."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

from tpv.errors import TpvError

CACHE = "TPV_CACHE"


def cache_folder() -> Path:
    """Where converted models and working folders are kept: TPV_CACHE, else `tpv` in the user's cache folder."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tpv"


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Turn the ways a file operation fails into one line that names the place."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise TpvError(f"{what} cannot be written", got=getattr(error, "strerror", None) or str(error)) from None


@contextmanager
def _folder(folder: Path, what: Path) -> Iterator[None]:
    """Make a folder and its parents; those still empty when the block ends are taken away again."""
    with writing(what):
        created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with writing(what):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in created:
            with suppress(OSError, ValueError):  # it holds something by now, or has no possible name
                path.rmdir()


@contextmanager
def atomic_write(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well.

    A reader sees the old file or the new one, never half of one; on any error nothing is left.

    Raises:
        TpvError: the folder is missing or cannot be written.
    """
    target = Path(path)
    with _folder(target.parent, target):
        with writing(target):
            handle, name = tempfile.mkstemp(prefix=f".{target.name[:50]}.", suffix=".part", dir=target.parent)
            os.close(handle)
        part = Path(name)
        try:
            yield part
            with writing(target):
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
                umask = os.umask(0)
                os.umask(umask)
                part.chmod(0o666 & ~umask)
                part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def staged_folder(target: str | PathLike[str]) -> Iterator[Path]:
    """A folder whose files move into `target` when the block ends well; nothing is left of it otherwise.

    Made before work is spent, so that a place that cannot be written is refused at once.

    Raises:
        TpvError: `target` cannot be made or written.
    """
    folder = Path(target)
    with _folder(folder, folder):
        with writing(folder):
            stage = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        try:
            yield stage
            with writing(folder):
                for file in sorted(path for path in stage.rglob("*") if path.is_file()):
                    place = folder / file.relative_to(stage)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(place)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
