"""The modes in which vectors are trained: registered methods, and what studies have to know of each."""

from __future__ import annotations

from typing import NamedTuple

from tpv.registry import register
from tpv.reporting.records import ORDINARY


class Mode(NamedTuple):
    """How vectors of a mode are trained.

    Attributes:
        kind: `vectors`, all tasks together, or `prompt`, one by one as tuned prompts.
        home: whether all come from zeros, and are added to zeros as well.
    """

    kind: str
    home: bool


BUILTIN = {  # known without loading torch
    ORDINARY: Mode("prompt", False),
    "portable": Mode("vectors", False),
    "composable": Mode("vectors", False),
    "fixed": Mode("vectors", True),
}


def mode_of(name: str) -> Mode:
    """What is to be known of a mode."""
    if name in BUILTIN:
        return BUILTIN[name]
    method = register.method[name].thing
    return Mode(method.kind, bool(getattr(method, "home", False)))


def mode_names() -> list[str]:
    """The methods that train vectors, or prompts whose vectors are a mode of their own."""
    trained = [entry for entry in register.method if not getattr(entry.thing, "unlearns", False)]
    own = [entry for entry in trained if entry.thing.kind in ("prompt", "vectors")]
    return [entry.name for entry in own if entry.name != "prompt_tuning"]  # its vectors are the ordinary ones
