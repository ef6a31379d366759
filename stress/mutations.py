"""Ways to damage valid files: of bytes, of trees of plain values, of safetensors headers, of pickles and of tables.

Every function draws from a `random.Random` that it is given, so that a seed (or hypothesis) decides all of it.
"""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

NUMBERS: list[Any] = [
    0,
    1,
    -1,
    2,
    7,
    255,
    2**15,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63),
    10**400,
    0.5,
    -0.0,
    1e-320,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
]
STRINGS = [
    "",
    " ",
    "\0",
    "a\0b",
    "../../../outside",
    "../outside.toml",
    "/etc/passwd",
    "/dev/zero",
    "~root/x",
    "~nobody-here/x",
    "C:\\x",
    "file:///etc/passwd",
    "https://user:pass@example.invalid/x",
    "x" * 300,
    "x" * 100_000,
    "\ud800",
    "\u202eabc",
    "<script>",
    "{text}",
    "{",
    "}",
    "{0}",
    "{text!r}",
    "{text.__class__}",
    "%s",
    "nan",
    "1e999",
    "-0",
    "true",
    "\r\n",
    "é",
    "𝒳",
    ".",
    "..",
    "mini",
    "mini/sst2",
    "\x1b[2J",
    "label",
    "text",
    "main",
    "a+b",
    "０",
    "1" * 400,
]


def nested(depth: int, empty: bool = False) -> Any:
    """Lists in lists."""
    value: Any = [] if empty else 0
    for _ in range(depth):
        value = [value]
    return value


def value(rng: Random) -> Any:
    """Something that is seldom expected."""
    kind = rng.randrange(10)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind < 8:
        return rng.choice(STRINGS)
    odd: list[Any] = [None, True, False, [], {}, [[]], {"": {}}, [None], nested(50), ["a", 1, None], {"kind": "files"}]
    return copy.deepcopy(rng.choice(odd))


# --- bytes ----------------------------------------------------------------------------------------
def spoil(rng: Random, content: bytes) -> bytes:
    """A few bytes changed, taken away, doubled or put in; or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        size = min(rng.choice((1, 1, 2, 4, 8, 64)), len(data) - at)
        how = rng.randrange(7)
        if how == 0:
            del data[at:]
        elif how == 1:
            del data[at : at + size]
        elif how == 2:
            data[at:at] = data[at : at + size]
        elif how == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 8, 64)))
        elif how == 4 and size:
            data[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
        elif how == 5 and size:
            data[at : at + 8] = rng.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)).to_bytes(8, "little")
        elif size:
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


# --- trees of plain values ------------------------------------------------------------------------
def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    keys: Any = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def regrow(rng: Random, tree: Any) -> Any:
    """The tree with a few of its values replaced, taken away, renamed, doubled, wrapped or exchanged."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(tree))
        if not places or rng.randrange(60) == 0:
            return value(rng)
        holder, key = rng.choice(places)
        how = rng.randrange(9)
        if how < 4:
            holder[key] = value(rng)
        elif how == 4:
            del holder[key]
        elif how == 5 and isinstance(holder, dict):
            holder[rng.choice([*STRINGS[:30], *map(str, holder)])] = holder.pop(key)
        elif how == 5:
            holder.insert(key, copy.deepcopy(holder[key]))
        elif how == 6:
            holder[key] = rng.choice(([holder[key]], {"x": holder[key]}, [holder[key]] * 3))
        elif how == 7:
            other, there = rng.choice(places)
            holder[key] = copy.deepcopy(other[there]) if key in _keys(holder) and there in _keys(other) else value(rng)
        elif isinstance(holder, dict):
            holder[rng.choice(STRINGS)] = value(rng)
    return tree


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def as_json(tree: Any) -> bytes:
    """JSON, with what it has no words for left as Python has it (NaN, lone surrogates)."""
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")


def as_toml(tree: Any) -> bytes:
    """TOML of a dictionary, in inline tables; null is left out, for TOML has none."""
    lines = [f"{_toml(str(key))} = {_toml(item)}" for key, item in tree.items() if item is not None]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _toml(item: Any) -> str:
    if isinstance(item, dict):
        return "{" + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in item.items() if v is not None) + "}"
    if isinstance(item, list):
        return "[" + ", ".join(_toml(one) for one in item if one is not None) + "]"
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(item), repr(item))
    return json.dumps(item) if isinstance(item, str) else str(item)


# --- safetensors ----------------------------------------------------------------------------------
DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I32", "U8", "BOOL", "F4", "C64", "nonsense", "")
SHAPES: list[Any] = [
    [],
    [0],
    [4],
    [0, 4],
    [4, 0],
    [2**40, 0],
    [2**40, 4],
    [2**63, 2**63],
    [-1, 4],
    [1, 1, 1],
    [2**64, 1],
    [1.5, 4],
    [[4]],
    ["4"],
    None,
    [1] * 200,
]
OFFSETS: list[Any] = [[0, 0], [0, 2**40], [8, 0], [-8, 8], [2**64, 2**64], [0], [0, 1, 2], None, [4, 12], "0"]


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what comes after it."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def reheaded(rng: Random, content: bytes) -> bytes:
    """A safetensors file whose header says something else."""
    header, data = header_of(content)
    tensors = [name for name in header if name != "__metadata__"]
    how = rng.randrange(10)
    if how == 0:  # what it claims of its own length
        return rng.choice((0, 1, 2, 99, 2**31, 2**40, 2**62, 2**63, 2**64 - 1)).to_bytes(8, "little") + content[8:]
    if how == 1:
        text = rng.choice(
            (b"[]", b"", b"null", b"{", b"[" * 100_000, b'{"a":' * 5_000, b" " * 200_000 + b"{}", b"\xff\xfe", b"1")
        )
        return with_header(text, data)
    if how == 2 and tensors:  # the same key twice
        text = as_json(header)
        again = as_json(
            {tensors[0]: {"dtype": "F32", "shape": rng.choice(SHAPES), "data_offsets": rng.choice(OFFSETS)}}
        )
        return with_header(text[:-1] + b"," + again[1:], data)
    if how in (3, 4, 5) and tensors:
        about = header[tensors[0]]
        part = rng.randrange(4)
        if part == 0:
            about["dtype"] = rng.choice(DTYPES)
        elif part == 1:
            about["shape"] = rng.choice(SHAPES)
        elif part == 2:
            about["data_offsets"] = rng.choice(OFFSETS)
        else:
            header["other"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
            data += b"\0\0\0\0"
        return with_header(as_json(header), data)
    return with_header(as_json(regrow(rng, header)), data)


# --- pickles --------------------------------------------------------------------------------------
class Calls:
    """Pickled, it asks the reader to call something with some arguments."""

    def __init__(self, called: Callable[..., Any], *arguments: Any) -> None:
        self.called, self.arguments = called, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.called, self.arguments


def hostile_pickle(rng: Random, evil: list[Calls], around: Any) -> bytes:
    """A pickle that calls something when it is read without care."""
    call = rng.choice(evil)
    held = rng.choice((call, {"prompt_embeddings": call}, [around, call], {call.called.__name__: (around, call)}))
    return pickle.dumps(held, rng.choice((0, 1, 2, 3, 4, 5)))


def repacked(rng: Random, content: bytes, pickled: bytes | None = None) -> bytes:
    """What torch.save wrote, its pickle another or spoilt, and whole again as a zip: check sums do not tell."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data, place = old.read(name), name
            if name.endswith("data.pkl"):
                data = pickled if pickled is not None else spoil(rng, data)
            elif rng.randrange(6) == 0:
                data = spoil(rng, data)
            if rng.randrange(20) == 0:
                place = rng.choice(("../../outside", "/tmp/outside", "x", f"{name}x", name.upper()))
            if rng.randrange(20) and place not in new.namelist():
                new.writestr(place, data)
    return buffer.getvalue()
