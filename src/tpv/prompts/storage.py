"""Prompts and vectors on disk: one safetensors file each, written atomically, checked when read."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from tpv.errors import DamagedFileError, TpvError
from tpv.files import atomic_write, regular, writing
from tpv.prompts.matrix import PromptMatrix
from tpv.prompts.provenance import Component, ModelIdentity, content_hash

FORMAT = "tpv-1"
Stored = TypeVar("Stored", bound=PromptMatrix)
_components = TypeAdapter(tuple[Component, ...])


def save(item: PromptMatrix, path: str | PathLike[str]) -> None:
    """Write one prompt or vector; metadata holds its identity and a sha256 over both.

    Raises:
        TpvError: the name does not end in .safetensors, or the folder cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise TpvError(f"{path} cannot be saved", expected="a name ending in .safetensors")
    content = saved_bytes(item)
    with atomic_write(path) as part, writing(Path(path)):
        part.write_bytes(content)


def saved_bytes(item: PromptMatrix) -> bytes:
    """What `save` writes."""
    return file_bytes("tensor", item, {"format": FORMAT})


def file_bytes(key: str, item: PromptMatrix, metadata: dict[str, str]) -> bytes:
    """A safetensors file of one tensor named `key`; its identity and hash join the metadata."""
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
    """The tensors of any safetensors file, by name, and its metadata; see `load_any` for `called`.

    Raises:
        TpvError: no such file, or not readable. DamagedFileError: no whole safetensors file.
    """
    name = called or path
    try:
        content = regular(Path(path)).read_bytes()
    except (OSError, ValueError) as error:
        raise TpvError(f"{name} cannot be read", got=getattr(error, "strerror", None) or str(error)) from None
    try:
        return parse_safetensors(content), _metadata(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{name} is damaged or no safetensors file", got=str(error)) from None


def load_any(path: str | PathLike[str], called: str | None = None) -> PromptMatrix:
    """Read a prompt or a vector, whichever the file holds.

    Args:
        called: what refusals call the file, where its path would tell nobody anything.

    Raises:
        TpvError: no such file, or not readable.
        DamagedFileError: truncated, altered, or not written by `save`.
    """
    name = called or path
    tensors, metadata = read_safetensors(path, called)
    if metadata.get("format") != FORMAT or list(tensors) != ["tensor"]:
        raise DamagedFileError(
            f"{name} is damaged or was not written by tpv",
            expected=f"format {FORMAT!r} and one tensor named 'tensor'",
            got=f"format {metadata.get('format')!r} and tensors {sorted(tensors)[:5]}",
        )
    return unseal(name, tensors["tensor"], metadata)


def unseal(
    path: str | PathLike[str],
    tensor: Tensor,
    metadata: Mapping[str, Any],
    fix: str = "copy it again from where it came",
) -> PromptMatrix:
    """What `file_bytes` wrote: a tensor with the identity in its metadata, if the two still match their hash.

    Raises:
        DamagedFileError: they do not, which `fix` says what to do about, or the identity does not read.
    """
    try:
        identity: dict[str, Any] = json.loads(metadata["identity"])
        if tensor.dtype != torch.float32 or content_hash(tensor, identity) != metadata["sha256"]:
            raise DamagedFileError(f"{path} is damaged: its content does not match its hash", fix=fix)
        model = ModelIdentity.model_validate(identity["model"])
        components = _components.validate_python(identity["components"])
        return PromptMatrix.kinds[identity["kind"]].restored(tensor, model, components, identity)
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
