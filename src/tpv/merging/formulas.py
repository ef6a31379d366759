"""Prompts written as expressions over vectors by name: `init:7 + 0.8*(sst2 + yelp) - 0.3*mnli`, `ties(sst2, yelp)`.

    sum     = [sign] product {sign product}          sign: + or -
    product = part {("*" | "/") part}
    part    = number | init | call | name | "(" sum ")" | sign part
    init    = "init:" seed                           an untuned prompt
    call    = merge "(" sum {"," sum} {"," parameter "=" value} ")"
    value   = number | true | false | word | "[" number {"," number} "]"

A name is that of a vector or a prompt. It may hold `-`, `.` and `/`, so that an operator takes a space before it. Names
that read as something else go in quotes. Nothing is evaluated but this grammar.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tpv.errors import TpvError
from tpv.merging import merge
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.registry import register

LONGEST = 2000  # characters
DEEPEST = 24  # brackets within brackets
MOST_PARTS = 128  # names, numbers and calls
NUMBER = r"(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]{1,3})?+"
TOKEN = re.compile(
    r"\s*+(?:(?P<init>init:[0-9]{1,19}(?![\w.:/-]))"
    rf"|(?P<number>{NUMBER})(?![A-Za-z0-9_.])"
    r"|(?P<word>[A-Za-z0-9_](?:[A-Za-z0-9_./]|-(?=[A-Za-z0-9_]))*+)"
    r'|"(?P<quoted>[^"\n]{1,200})"'
    r"|(?P<mark>[-+*/(),=\[\]]))",
    re.ASCII,
)
WHOLE = re.compile(r"[0-9]+", re.ASCII)

Matrix = SoftPrompt | TaskPromptVector
Value = float | SoftPrompt | TaskPromptVector
Lookup = Callable[[str], Matrix]  # the vector or prompt of a name; raises UnknownNameError
Start = Callable[[int, int | None], SoftPrompt]  # an untuned prompt of a seed and a number of tokens, None if unknown


class Token(NamedTuple):
    """A piece of an expression: its kind, its text and where it begins."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Factor:
    """A factor."""

    value: float


@dataclass(frozen=True)
class Untuned:
    """An untuned prompt, `init:7`."""

    seed: int


@dataclass(frozen=True)
class Named:
    """A vector or a prompt by name."""

    name: str


@dataclass(frozen=True)
class Operation:
    """Two parts and what stands between them."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Call:
    """A merge of vectors, with its parameters."""

    method: str
    parts: tuple[Node, ...]
    parameters: tuple[tuple[str, Any], ...]


Node = Factor | Untuned | Named | Operation | Call


@dataclass(frozen=True)
class Formula:
    """A parsed expression.

    Attributes:
        text: as it was written.
    """

    text: str
    root: Node

    @property
    def names(self) -> list[str]:
        """The names in it, in order, each once."""
        return list(dict.fromkeys(node.name for node in _nodes(self.root) if isinstance(node, Named)))

    def prompt(self, lookup: Lookup, start: Start) -> SoftPrompt:
        """The prompt it stands for, [P, H].

        Args:
            lookup: finds what a name stands for.
            start: makes untuned prompts; their number of tokens is that of what is named.

        Raises:
            TpvError: an unknown name or merge, parts that do not fit each other, or no prompt in it.
        """
        value = self.value(lookup, start)
        if not isinstance(value, SoftPrompt):
            got = "a number" if isinstance(value, float) else "a vector"
            raise TpvError(
                f"expression {self.text!r:.200}",
                expected="a prompt",
                got=got,
                fix="add it to an initialization: init:0 + …",
            )
        return value

    def value(self, lookup: Lookup, start: Start) -> Value:
        """What it stands for: a prompt, a vector or a number; see `prompt`."""
        found = {name: lookup(name) for name in self.names}
        tokens = next((item.num_tokens for item in found.values()), None)
        return _value(self.root, found, lambda seed: start(seed, tokens))


def parse(text: str) -> Formula:
    """Parse an expression; nothing is looked up.

    Raises:
        TpvError: it does not follow the grammar, or is too long or too deep.
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        got = f"{len(text)} characters" if isinstance(text, str) else type(text).__name__
        raise TpvError("expression", expected=f"a text of at most {LONGEST} characters", got=got)
    return Formula(text.strip(), _Parser(text).parse())


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    inner = (node.left, node.right) if isinstance(node, Operation) else node.parts if isinstance(node, Call) else ()
    for part in inner:
        yield from _nodes(part)


class _Parser:
    """Recursive descent, a method a rule."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._next, self._parts = text, list(_tokens(text)), 0, 0

    def parse(self) -> Node:
        node = self._sum(0)
        if self._peek.kind != "end":
            raise self._refused("the end, or + - * /")
        return node

    @property
    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._peek
        self._next += token.kind != "end"
        return token

    def _taken(self, *marks: str) -> str | None:
        """The mark that comes next, if it is one of these."""
        if self._peek.kind == "mark" and self._peek.text in marks:
            return self._take().text
        return None

    def _refused(self, expected: str) -> TpvError:
        token = self._peek
        got = f"{token.text!r} at character {token.at + 1}" if token.kind != "end" else "its end"
        return TpvError(f"expression {self._text.strip()!r:.200}", expected=expected, got=got)

    def _sum(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise TpvError("expression", expected=f"at most {DEEPEST} brackets within each other", got="more")
        node = self._product(depth)
        while sign := self._taken("+", "-"):
            node = Operation(sign, node, self._product(depth))
        return node

    def _product(self, depth: int) -> Node:
        node = self._part(depth)
        while sign := self._taken("*", "/"):
            node = Operation(sign, node, self._part(depth))
        return node

    def _part(self, depth: int) -> Node:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise TpvError("expression", expected=f"at most {MOST_PARTS} names, numbers and calls", got="more")
        if sign := self._taken("+", "-"):
            inner = self._part(depth)
            return inner if sign == "+" else Operation("*", Factor(-1.0), inner)
        if self._taken("("):
            node = self._sum(depth + 1)
            if not self._taken(")"):
                raise self._refused("a closing bracket")
            return node
        if self._peek.kind not in ("init", "number", "word", "quoted"):
            raise self._refused("a name, a number, init:SEED or a bracket")
        token = self._take()
        if token.kind == "init":
            return Untuned(int(token.text.partition(":")[2]))
        if token.kind == "quoted":
            return Named(token.text)
        if token.kind == "number":
            return Factor(_finite(token.text))
        return self._call(token.text, depth) if self._taken("(") else Named(token.text)

    def _call(self, method: str, depth: int) -> Call:
        parts: list[Node] = []
        parameters: dict[str, Any] = {}
        while True:
            key = self._tokens[self._next]
            after = self._tokens[min(self._next + 1, len(self._tokens) - 1)]
            if key.kind == "word" and (after.kind, after.text) == ("mark", "="):
                self._next += 2
                if key.text in parameters:
                    raise TpvError(f"parameter {key.text!r:.60} of {method!r:.60}", expected="once", got="twice")
                parameters[key.text] = self._parameter()
            elif parameters:
                raise self._refused("PARAMETER=VALUE after the vectors")
            else:
                parts.append(self._sum(depth + 1))
            if self._taken(")"):
                return Call(method, tuple(parts), tuple(parameters.items()))
            if not self._taken(","):
                raise self._refused("a comma or a closing bracket")

    def _parameter(self) -> Any:
        if self._taken("["):
            values = [self._number()]
            while self._taken(","):
                values.append(self._number())
            if not self._taken("]"):
                raise self._refused("a comma or ]")
            return values
        token = self._peek
        if token.kind == "word":
            self._take()
            return {"true": True, "false": False, "none": None}.get(token.text, token.text)
        if token.kind == "quoted":
            return self._take().text
        return self._number()

    def _number(self) -> float:
        sign = -1 if self._taken("-") else 1
        token = self._peek
        if token.kind != "number":
            raise self._refused("a number")
        self._take()
        whole = WHOLE.fullmatch(token.text) and len(token.text) <= 19
        return sign * (int(token.text) if whole else _finite(token.text))


def _tokens(text: str) -> Iterator[Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = TOKEN.match(text, at)
        if found is None:
            raise TpvError(
                f"expression {text.strip()!r:.200}",
                expected="names, numbers, brackets and + - * /",
                got=f"{text[at:].lstrip()[:1]!r} at character {at + 1}",
            )
        kind = str(found.lastgroup)
        yield Token(kind, found[kind], found.start(kind))
        at = found.end()
    yield Token("end", "", end)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise TpvError("number in an expression", expected="a finite one", got=f"{text:.40}")
    return value


def _value(node: Node, found: dict[str, Matrix], start: Callable[[int], SoftPrompt]) -> Value:
    if isinstance(node, Factor):
        return node.value
    if isinstance(node, Untuned):
        return start(node.seed)
    if isinstance(node, Named):
        return found[node.name]
    if isinstance(node, Call):
        return _merged(node, [_value(part, found, start) for part in node.parts])
    return _combined(node.sign, _value(node.left, found, start), _value(node.right, found, start))


def _merged(call: Call, parts: list[Value]) -> TaskPromptVector:
    if call.method not in register.merge:
        raise TpvError(
            f"unknown merge {call.method!r:.60} in an expression", expected=", ".join(register.merge.names())
        )
    if register.merge[call.method].about.get("learns"):
        raise TpvError(
            f"merge {call.method!r} in an expression",
            expected="one that learns from no rows",
            fix="use tpv vector merge",
        )
    vectors = [part for part in parts if isinstance(part, TaskPromptVector)]
    if len(vectors) != len(parts):
        raise TpvError(f"{call.method} in an expression", expected="vectors", got="a prompt or a number")
    return merge(vectors, call.method, **dict(call.parameters))


def _combined(sign: str, left: Value, right: Value) -> Value:
    """Two values and an operator; the algebra of prompts refuses what it does not know."""
    if isinstance(left, float) and isinstance(right, float):
        return _arithmetic(sign, left, right)
    result: Any = None
    first: Any = left
    if sign in "+-" and not isinstance(left, float) and not isinstance(right, float):
        result = first + right if sign == "+" else first - right
    elif sign == "*" and isinstance(left, float) and isinstance(right, TaskPromptVector):
        result = left * right
    elif sign in "*/" and isinstance(left, TaskPromptVector) and isinstance(right, float):
        result = left * right if sign == "*" else left / right
    if not isinstance(result, SoftPrompt | TaskPromptVector):
        kinds = [{SoftPrompt: "prompt", TaskPromptVector: "vector"}.get(type(side), "number") for side in (left, right)]
        raise TpvError(
            "expression",
            expected="prompt ± vector, vector ± vector, number * vector, or vector / number",
            got=f"{kinds[0]} {sign} {kinds[1]}",
        )
    return result


def _arithmetic(sign: str, left: float, right: float) -> float:
    if sign == "/" and right == 0.0:
        raise TpvError("expression", expected="a divisor other than 0", got=f"{left:g} / 0")
    value = {"+": left + right, "-": left - right, "*": left * right, "/": left / (right or 1.0)}[sign]
    if not math.isfinite(value):
        raise TpvError("number in an expression", expected="a finite one", got=f"{left:g} {sign} {right:g}")
    return value
