"""How the values of an untuned prompt are made: a file an initializer, each a frozen dataclass of its parameters."""

from __future__ import annotations

from typing import Any

from tpv.errors import TpvError
from tpv.prompts.initializers.base import MOST_TOKENS, FromFunction, Initializer, check, given
from tpv.prompts.initializers.normal import Normal
from tpv.prompts.initializers.text import Text
from tpv.prompts.initializers.vocabulary import Vocabulary
from tpv.prompts.initializers.zero import Zero
from tpv.registry import register

__all__ = [
    "MOST_TOKENS",
    "FromFunction",
    "Initializer",
    "Normal",
    "Text",
    "Vocabulary",
    "Zero",
    "check",
    "given",
    "make",
    "parse",
]


def make(initializer: str | Initializer, **parameters: Any) -> Initializer:
    """A registered initializer by name, with its parameters; or one that is made already, as it is.

    Raises:
        TpvError: an unknown name or parameter, a value that does not fit, or parameters for one that has its own.
    """
    if isinstance(initializer, Initializer):
        if parameters:
            raise TpvError(
                "parameters of an initializer",
                expected="its name with them",
                got=f"{initializer!r:.60} with {', '.join(parameters)}",
            )
        return initializer
    entry = register.initializer[initializer]
    values = entry.checked(parameters)
    if not isinstance(entry.thing, type):
        return FromFunction(entry.name, entry.thing, values)
    made = entry.thing(**values)
    if not isinstance(made, Initializer):
        raise TpvError(
            f"initializer {entry.name!r} of {entry.module}",
            expected="a function, or a subclass of tpv.prompts.initializers.Initializer",
            got=type(made).__name__,
        )
    return made


def parse(text: str) -> Initializer:
    """An initializer as the command line spells it: `NAME`, or `NAME:key=value,key=value`.

    Where the only parameter is a text, all that follows the colon is its value: `text:the film is`.

    Raises:
        TpvError: an unknown name or parameter, or a value that does not fit.
    """
    name, colon, rest = text.partition(":")
    fields = register.initializer[name].parameters.model_fields
    if not colon:
        return make(name)
    if [each.annotation for each in fields.values()] == [str]:
        return make(name, **{next(iter(fields)): rest})
    pairs = [pair.partition("=") for pair in rest.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise TpvError(
            f"parameters of initializer {name!r}", expected=f"{name}:key=value,key=value", got=f"{text!r:.60}"
        )
    return make(name, **{key.strip(): value.strip() for key, _, value in pairs})
