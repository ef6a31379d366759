"""Markdown out of docstrings, types and values."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from griffe import Docstring, DocstringSectionKind, parse_google
from pydantic import BaseModel
from pydantic.fields import FieldInfo

CHECKED = {"check_recipe": "table, see [training](#training)"}  # by the name of the validator
NUMBERS = {int: "whole number", float: "number"}
WORDS = {bool: "true or false", str: "text", dict: "table", Mapping: "table", Any: "any"}


def code(text: object) -> str:
    """Text as an inline code span."""
    shown = str(text)
    fence = "``" if "`" in shown else "`"
    return f"{fence}{shown}{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars in cells are escaped, line breaks become spaces."""
    lines = [head, ["---"] * len(head), *([" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def prose(text: str) -> str:
    """A docstring's text without its sections (`Args:`, `Attributes:` ...)."""
    kept = [part.value for part in _sections(text) if part.kind is DocstringSectionKind.text]
    return "\n\n".join(kept)


def meanings(thing: Any, section: str = "Attributes") -> dict[str, str]:
    """What a docstring's section says of each name; a line may describe several: `low, high: the interval`."""
    found: dict[str, str] = {}
    if inspect.isclass(thing):
        inherited = [meanings(base, section) for base in reversed(thing.__bases__) if base is not object]
        found = {name: about for base in inherited for name, about in base.items()}
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    if section != "Attributes":
        text = re.sub(rf"^{section}:$", "Attributes:", text, flags=re.MULTILINE)
    for part in _sections(text):
        if part.kind is DocstringSectionKind.attributes:
            for item in part.value:
                # griffe takes the second name of `low, high: ...` for a type
                names = f"{item.name} {item.annotation}" if item.name.endswith(",") else item.name
                for name in re.findall(r"\w+", names):
                    found[name] = sentence(item.description)
    return found


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ":")) else ".")


def _sections(text: str) -> Sequence[Any]:
    return parse_google(Docstring(inspect.cleandoc(text)), warnings=False)


def type_words(kind: Any, limits: Iterable[Any] = ()) -> str:
    """A type of a parameter or key in plain words, with its limits: `whole number, at least 1`."""
    if get_origin(kind) is Annotated:
        inner, *further = get_args(kind)
        return type_words(inner, [*limits, *further])
    for limit in limits:
        if _validator(limit) in CHECKED:
            return CHECKED[_validator(limit)]
    bounds = _bounds(limits)
    return _plain(kind) + (f", {bounds}" if bounds else "")


def _plain(kind: Any) -> str:
    """A type without its limits."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _plain(inside[0])
    if origin in (Union, types.UnionType):
        return " or ".join(type_words(one) for one in inside if one is not type(None))
    if origin is Literal:
        return " or ".join(code(repr(one).replace("'", '"')) for one in inside)
    if origin in (tuple, list, typing.Sequence) or (origin and issubclass(origin, Sequence)):
        if origin is tuple and Ellipsis not in inside:
            return f"list of {len(inside)} {_plain(inside[0])}s" if inside else "list"
        item = type_words(inside[0]) if inside else "anything"
        return f"list of {f'({item})' if ' or ' in item or ',' in item else item}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "text or table"
    return (NUMBERS | WORDS).get(origin or kind) or getattr(kind, "__name__", str(kind))


def _bounds(limits: Iterable[Any]) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found: dict[str, Any] = {}
    for limit in limits:
        parts = limit.metadata if isinstance(limit, FieldInfo) else [limit]
        found |= {name: getattr(part, name) for part in parts for name in words if hasattr(part, name)}
    huge = {10**9, 2**63, 10**4 * 10**5}
    said = [f"{words[name]} {value}" for name, value in found.items() if value not in huge]
    if any(_validator(limit) == "_distinct" for limit in limits):
        said.append("none twice")
    return ", ".join(said)


def _validator(limit: Any) -> str:
    """The name of the function that checks a value, of a limit that is one."""
    function = getattr(limit, "func", None)
    return str(getattr(getattr(function, "func", function), "__name__", ""))


def default_words(field: FieldInfo) -> str:
    """A field's default as TOML would say it."""
    if field.is_required():
        return "required"
    return toml_words(field.get_default(call_default_factory=True))


def toml_words(value: Any) -> str:
    """A value as TOML says it; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, tuple | list):
        return code(f"[{', '.join(_literal(one) for one in value)}]")
    if isinstance(value, Mapping):
        return code("{}") if not value else code(dict(value))
    return code(_literal(value))


def _literal(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_literal, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
