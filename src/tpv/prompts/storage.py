"""Prompts and vectors on disk: one safetensors file each, written atomically and verified on reading.

Here they are a tensor and an identity, plain JSON values; the caller says what to make of the two (`restore`).
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from tpv.errors import DamagedFileError, TpvError
from tpv.files import atomic_write, regular, writing
from tpv.prompts.provenance import content_hash

FORMAT = "tpv-1"
LARGEST_HEADER = 16 * 2**20  # bytes; far above that of any prompt
SUFFIX = ".safetensors"
SEGMENT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_-])?")  # no dot first or last, nothing to quote
SAFE = "letters, digits, '-', '_' and '.', also after a '/'"  # what `is_safe_name` asks for
Stored = TypeVar("Stored")
Restore = Callable[[Tensor, Mapping[str, Any]], Stored]  # makes an object of a tensor [P, H] and its identity


class Storable(Protocol):
    """What can be written: values [P, H] in fp32, and an identity of JSON-ready values."""

    _tensor: Tensor

    def identity(self) -> dict[str, Any]:
        """Everything but the values."""
        ...


def is_safe_name(name: str) -> bool:
    """Whether a name without its ending is one that every file system takes, inside the folder it is put into."""
    parts = name.split("/")
    return len(name) <= 200 and all(SEGMENT.fullmatch(part) and not part.endswith(SUFFIX) for part in parts)


def save(item: Storable, path: str | PathLike[str]) -> None:
    """Write one prompt or vector; the metadata contains its identity and a sha256 over both.

    Raises:
        TpvError: the name does not end in .safetensors, or the folder cannot be written.
    """
    if Path(path).suffix != SUFFIX:
        raise TpvError(f"{path} cannot be saved", expected="a name ending in .safetensors")
    content = saved_bytes(item)
    with atomic_write(path) as part, writing(Path(path)):
        part.write_bytes(content)


def saved_bytes(item: Storable) -> bytes:
    """What `save` writes."""
    return file_bytes("tensor", item, {"format": FORMAT})


def file_bytes(key: str, item: Storable, metadata: dict[str, str]) -> bytes:
    """A safetensors file of one tensor named `key`, with the identity and its hash added to the metadata."""
    identity = item.identity()
    seal = {"identity": json.dumps(identity, sort_keys=True), "sha256": content_hash(item._tensor, identity)}
    return _ordered(safetensors_bytes({key: item._tensor}, metadata | seal))


def _ordered(content: bytes) -> bytes:
    """A safetensors file with its header in a fixed order: safetensors writes metadata in any."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _metadata(content: bytes) -> dict[str, Any]:
    """The `__metadata__` of a safetensors file already known to parse."""
    size = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    metadata: dict[str, Any] = header.get("__metadata__") or {}
    return metadata


def read_safetensors(path: str | PathLike[str], called: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of any safetensors file, by name, and its metadata; see `load` for `called`.

    Raises:
        TpvError: no such file, or not readable. DamagedFileError: not a complete safetensors file.
    """
    name = called or path
    try:
        content = regular(Path(path)).read_bytes()
    except (OSError, ValueError) as error:
        raise TpvError(f"{name} cannot be read", got=getattr(error, "strerror", None) or str(error)) from None
    return parsed(content, name)


def parsed(content: bytes, name: object) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in the bytes of any safetensors file, by name, and its metadata.

    Args:
        name: what error messages call the bytes.

    Raises:
        DamagedFileError: not a complete safetensors file.
    """
    try:
        return parse_safetensors(content), _metadata(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{name} is damaged or no safetensors file", got=str(error)) from None


def read_header(path: str | PathLike[str]) -> dict[str, Any]:
    """The header of any safetensors file as it stands there; the values are not read, and so not verified either.

    Raises:
        TpvError: no such file, or not readable. DamagedFileError: not a complete safetensors file.
    """
    try:
        with regular(Path(path)).open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            content = file.read(size) if size <= LARGEST_HEADER else b""
            whole = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        raise TpvError(f"{path} cannot be read", got=getattr(error, "strerror", None) or str(error)) from None
    try:
        header = json.loads(content)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged or no safetensors file", got=str(error)) from None
    if max(ends, default=0) != whole - 8 - size:
        raise DamagedFileError(f"{path} is damaged", expected=f"{max(ends, default=0)} bytes of values")
    result: dict[str, Any] = header
    return result


def load(path: str | PathLike[str], restore: Restore[Stored], called: str | None = None) -> Stored:
    """Read what `save` wrote.

    Args:
        restore: makes the object of its tensor and identity; see `unseal`.
        called: what error messages call the file, where its path means nothing to the user.

    Raises:
        TpvError: no such file, or not readable.
        DamagedFileError: truncated, altered, or not written by `save`.
    """
    return _ours(*read_safetensors(path, called), called or path, restore)


def loads(content: bytes, restore: Restore[Stored], called: object) -> tuple[Stored, dict[str, Any]]:
    """What `load` reads, from the bytes of a file, and the file's metadata.

    Args:
        called: what error messages call the bytes.

    Raises:
        DamagedFileError: see `load`.
    """
    tensors, metadata = parsed(content, called)
    return _ours(tensors, metadata, called, restore), metadata


def _ours(tensors: dict[str, Tensor], metadata: Mapping[str, Any], name: object, restore: Restore[Stored]) -> Stored:
    """What a file holds, if tpv wrote it."""
    if metadata.get("format") != FORMAT or list(tensors) != ["tensor"]:
        raise DamagedFileError(
            f"{name} is damaged or was not written by tpv",
            expected=f"format {FORMAT!r} and one tensor named 'tensor'",
            got=f"format {metadata.get('format')!r} and tensors {sorted(tensors)[:5]}",
        )
    return unseal(name, tensors["tensor"], metadata, restore)


def unseal(
    path: object,
    tensor: Tensor,
    metadata: Mapping[str, Any],
    restore: Restore[Stored],
    fix: str = "copy it again from where it came",
) -> Stored:
    """What `file_bytes` wrote, if the tensor and the identity in its metadata still match their hash.

    Args:
        restore: makes the object; a ValueError, KeyError or TypeError of it means that the identity is damaged.
        fix: what to do about a hash that does not match.

    Raises:
        DamagedFileError: the hash does not match, or the identity cannot be read.
    """
    try:
        identity: dict[str, Any] = json.loads(metadata["identity"])
        if tensor.dtype != torch.float32 or content_hash(tensor, identity) != metadata["sha256"]:
            raise DamagedFileError(f"{path} is damaged: its content does not match its hash", fix=fix)
        return restore(tensor, identity)
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
        raise DamagedFileError(f"{path} is damaged: its identity cannot be read", got=str(error)) from None
