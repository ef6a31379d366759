"""What is to be known of a vector without its values: what a library lists, filters by and keeps in its index."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tpv.errors import DamagedFileError, TpvError
from tpv.prompts import storage
from tpv.prompts.provenance import Component, Components, ModelIdentity, described


class Reason(StrEnum):
    """Why a file holds no vector to list."""

    damaged = "damaged"
    foreign = "not written by tpv"
    prompt = "holding a prompt"
    unreadable = "not readable"


class Facts(BaseModel):
    """What is known of a vector without its values.

    Attributes:
        model: the model it belongs to.
        num_tokens: P.
        terms: what went in, for people: `sst2 + 0.5 yelp`, or `ties(sst2, yelp)`.
        tasks: all it was trained on, the sources of merges too, in name order.
        mode: how it was trained, where it is one trained vector, scaled or not; else `merged`.
        portable: every vector in it was trained under fresh initializations.
        init: the initializations that it was trained from, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: ModelIdentity
    num_tokens: int
    terms: str
    tasks: tuple[str, ...]
    mode: Literal["ordinary", "portable", "composable", "merged"]
    portable: bool
    init: str


def facts_of(model: ModelIdentity, num_tokens: int, components: Components) -> Facts:
    """The facts of a vector made of these components."""
    trained = list(_trained(components))
    return Facts(
        model=model,
        num_tokens=num_tokens,
        terms=described(components),
        tasks=tuple(sorted({part.task for part in trained})),
        mode=_mode(components),
        portable=bool(trained) and all(part.training is not None and part.training.starts for part in trained),
        init="; ".join(sorted({part.home for part in trained})),
    )


def _trained(components: Components) -> Iterator[Component]:
    """The trained vectors that went in, those of merges too."""
    for part in components:
        if part.merge is None:
            yield part
        else:
            for source in part.merge.sources:
                yield from _trained(source.components)


def _mode(components: Components) -> Literal["ordinary", "portable", "composable", "merged"]:
    if len(components) != 1 or components[0].merge is not None:
        return "merged"
    training = components[0].training
    if training is None:
        return "ordinary"
    return "composable" if training.beside else "portable" if training.starts else "ordinary"


class _Identity(BaseModel):
    """What a header says of a prompt or a vector."""

    kind: str
    model: ModelIdentity
    components: Components


def read_facts(path: Path, kind: str = "TaskPromptVector") -> Facts | Reason:
    """The facts in the header of a file, or the reason why there are none.

    Args:
        kind: what the file should hold.
    """
    try:
        header = storage.read_header(path)
    except DamagedFileError:
        return Reason.damaged
    except TpvError:
        return Reason.unreadable
    metadata: Any = header.pop("__metadata__", None)
    ours = isinstance(metadata, dict) and metadata.get("format") == storage.FORMAT and list(header) == ["tensor"]
    if not ours:
        return Reason.foreign
    try:
        identity = _Identity.model_validate_json(metadata["identity"])
        tokens, width = header["tensor"]["shape"]
        spec = {"dtype": "F32", "shape": [tokens, width], "data_offsets": [0, 4 * tokens * width]}
        if header["tensor"] != spec or tokens < 1 or width != identity.model.hidden_size:
            return Reason.damaged
        if identity.kind != kind:
            return Reason.prompt if identity.kind == "SoftPrompt" else Reason.damaged
        return facts_of(identity.model, tokens, identity.components)
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError):
        return Reason.damaged
