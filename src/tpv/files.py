"""Files that are whole or not there: everything tpv writes goes through here."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from tpv.errors import TpvError

if TYPE_CHECKING:
    import pyarrow as pa

CACHE = "TPV_CACHE"


def cache_folder() -> Path:
    """Where converted models and working folders are kept: TPV_CACHE, else `tpv` in the user's cache folder."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tpv"


def regular(path: Path) -> Path:
    """The path, unless it is a pipe or a device, which might never end.

    Raises:
        OSError: it is, or nothing is there. ValueError: it is no path.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def read_parquet(path: Path) -> "pa.Table":
    """Read a Parquet file and validate its values; by itself Arrow would follow bad offsets and indices later.

    Raises:
        OSError: it cannot be read. pyarrow.ArrowException: it does not parse, or its values are none.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(regular(path))
    table.validate(full=True)
    return table


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Turn a failing file operation into a one-line error that names the location."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise _unwritten(what, error) from None


@contextmanager
def filling(what: Path) -> Iterator[None]:
    """Turn only a full disk into a one-line error; other errors of the caller's block pass through."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _unwritten(what, error) from None


def _unwritten(what: Path, error: OSError | ValueError) -> TpvError:
    full = isinstance(error, OSError) and error.errno in NO_ROOM
    return TpvError(
        f"{what} cannot be written",
        got=getattr(error, "strerror", None) or str(error),
        fix="make room, then run the same again" if full else None,
    )


def unused(folder: Path, prefix: str, suffix: str = "") -> Path:
    """A path in `folder` that nothing has: known before anything is made there, so that an interrupt in the middle of
    making it leaves nothing that is not taken away."""
    return folder / f"{prefix}{uuid4().hex[:12]}{suffix}"


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


def _linked(part: Path, target: Path) -> bool:
    """Whether a file now has this name, too, which nothing had; False on a file system without hard links."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno == errno.EEXIST or os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        return False
    return True


@contextmanager
def atomic_write(path: str | PathLike[str], *, new: bool = False) -> Iterator[Path]:
    """A temporary file next to `path` that replaces it if the block succeeds.

    A reader sees the old file or the new one, never a partial one; on an error the temporary file is removed.

    Args:
        new: nothing may be there yet, not even from another process that writes at the same time.

    Raises:
        TpvError: the folder is missing or cannot be written; with `new`, something is there.
    """
    target = Path(path)
    with _folder(target.parent, target):
        part = unused(target.parent, f".{target.name[:50]}.", ".part")
        try:
            with writing(target):
                part.touch(0o600, exist_ok=False)
            with filling(target):
                yield part
            with writing(target):
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
                umask = os.umask(0)
                os.umask(umask)
                part.chmod(0o666 & ~umask)
                if not new or not _linked(part, target):
                    part.replace(target)
        finally:
            with suppress(OSError, ValueError):  # it has no possible name
                part.unlink(missing_ok=True)


@contextmanager
def staged_folder(target: str | PathLike[str], *, replaces: Sequence[str] = ()) -> Iterator[Path]:
    """A temporary folder whose files move into `target` if the block succeeds; it is removed otherwise.

    Args:
        replaces: patterns of file names in `target` that an older result left, and that go if there is no new one.

    It is created first, so that a location that cannot be written is refused before any work is done.

    Raises:
        TpvError: `target` cannot be made or written.
    """
    folder = Path(target)
    with _folder(folder, folder):
        stage = unused(folder, ".partial-")
        try:
            with writing(folder):
                stage.mkdir(0o700)
            with filling(folder):
                yield stage
            with writing(folder):
                moves = {file: folder / file.relative_to(stage) for file in sorted(stage.rglob("*")) if file.is_file()}
                for inner in {part for place in moves.values() for part in place.parents if folder in part.parents}:
                    if inner.is_symlink():
                        raise OSError(errno.ELOOP, f"{inner} is a link to another place")
                for file, place in moves.items():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(place)
                for old in {path for pattern in replaces for path in folder.glob(pattern)} - set(moves.values()):
                    old.unlink()
        finally:
            shutil.rmtree(stage, ignore_errors=True)
