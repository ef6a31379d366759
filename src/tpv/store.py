"""Prompts and vectors on disk: one safetensors file each, written atomically, checked when read."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as safetensors_bytes

from tpv.errors import DamagedFileError, TpvError
from tpv.identity import Component, Init, ModelIdentity, content_hash
from tpv.vectors import PromptMatrix, SoftPrompt, TaskPromptVector

FORMAT = "tpv-1"
Stored = TypeVar("Stored", bound=PromptMatrix)
_components = TypeAdapter(tuple[Component, ...])


@contextmanager
def _writing(what: Path) -> Iterator[None]:
    """Turn the ways a file operation fails into one line that names the place."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise TpvError(f"{what} cannot be written", got=getattr(error, "strerror", None) or str(error)) from None


@contextmanager
def _folder(folder: Path, what: Path) -> Iterator[None]:
    """Make a folder and its parents; those still empty when the block ends are taken away again."""
    with _writing(what):
        created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with _writing(what):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in created:
            with suppress(OSError):  # it holds something by now
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
        with _writing(target):
            handle, name = tempfile.mkstemp(prefix=f".{target.name[:50]}.", suffix=".part", dir=target.parent)
            os.close(handle)
        part = Path(name)
        try:
            yield part
            with _writing(target):
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
        with _writing(folder):
            stage = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        try:
            yield stage
            with _writing(folder):
                for file in sorted(path for path in stage.rglob("*") if path.is_file()):
                    place = folder / file.relative_to(stage)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(place)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def save(item: PromptMatrix, path: str | PathLike[str]) -> None:
    """Write one prompt or vector; metadata holds its identity and a sha256 over both.

    Raises:
        TpvError: the name does not end in .safetensors, or the folder cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise TpvError(f"{path} cannot be saved", expected="a name ending in .safetensors")
    identity = item.identity()
    metadata = {
        "format": FORMAT,
        "identity": json.dumps(identity, sort_keys=True),
        "sha256": content_hash(item._tensor, identity),
    }
    content = safetensors_bytes({"tensor": item._tensor}, metadata)
    with atomic_write(path) as part, _writing(Path(path)):
        part.write_bytes(content)


def _metadata(content: bytes) -> dict[str, Any]:
    """The `__metadata__` of a safetensors file already known to parse."""
    size = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    metadata: dict[str, Any] = header.get("__metadata__") or {}
    return metadata


def load_any(path: str | PathLike[str]) -> SoftPrompt | TaskPromptVector:
    """Read a prompt or a vector, whichever the file holds.

    Raises:
        TpvError: no such file, or not readable.
        DamagedFileError: truncated, altered, or not written by `save`.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise TpvError(f"{path} cannot be read", got=getattr(error, "strerror", None) or str(error)) from None
    try:
        tensors = parse_safetensors(content)
        metadata = _metadata(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{path} is damaged or no safetensors file", got=str(error)) from None
    if metadata.get("format") != FORMAT or list(tensors) != ["tensor"]:
        raise DamagedFileError(
            f"{path} is damaged or was not written by tpv",
            expected=f"format {FORMAT!r} and one tensor named 'tensor'",
            got=f"format {metadata.get('format')!r} and tensors {sorted(tensors)[:5]}",
        )
    tensor = tensors["tensor"]
    try:
        identity: dict[str, Any] = json.loads(metadata["identity"])
        if tensor.dtype != torch.float32 or content_hash(tensor, identity) != metadata["sha256"]:
            raise DamagedFileError(
                f"{path} is damaged: its content does not match its hash", fix="copy it again from where it came"
            )
        model = ModelIdentity.model_validate(identity["model"])
        components = _components.validate_python(identity["components"])
        if identity["kind"] == "SoftPrompt":
            return SoftPrompt(tensor, model, Init.model_validate(identity["init"]), components)
        if identity["kind"] == "TaskPromptVector":
            return TaskPromptVector(tensor, model, components)
        raise KeyError(identity["kind"])
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged: its identity does not read", got=str(error)) from None


def load(path: str | PathLike[str], kind: type[Stored]) -> Stored:
    """Read a file that must hold a `kind`.

    Raises:
        TpvError: see `load_any`; also when the file holds the other kind.
    """
    item = load_any(path)
    if not isinstance(item, kind):
        raise TpvError(f"{path} holds another kind of thing", expected=kind.__name__, got=type(item).__name__)
    return item
