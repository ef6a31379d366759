"""Valid files to begin with, and malformed ones, that several readers of `fuzz` share."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import mutations as m
import pyarrow as pa
import pyarrow.parquet as pq

import tpv
from tpv.tasks import formats


@cache
def backbone() -> tpv.Backbone:
    return tpv.load_backbone("mini", device="cpu")


@cache
def table_rows() -> list[dict[str, Any]]:
    return [
        {"text": f"the number {i} is {'odd' if i % 2 else 'even'}", "label": ["no", "yes"][i % 2]} for i in range(12)
    ]


CSV = "text,label\n" + "\n".join(f"{row['text']},{row['label']}" for row in table_rows()) + "\n"
TASK = {
    "name": "numbers",
    "family": "f",
    "fields": ["text"],
    "template": "say: {text}",
    "instruct": "Odd? {text}",
    "cue": "label:",
    "labels": ["no", "yes"],
    "metric": "f1",
    "positive": 1,
    "source": {
        "kind": "files",
        "train": "rows.csv",
        "validation": "rows.csv",
        "test": "rows.csv",
        "label_column": "label",
    },
}


def odd_place(rng: Random, path: Path) -> bool:
    """Now and then something else than a file where one is due."""
    if rng.randrange(80):
        return False
    path.unlink(missing_ok=True)
    how = rng.randrange(5)
    if how == 0:
        path.mkdir()
    elif how == 1:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/full", "/etc", "nothing-here", path.name)))
    elif how == 2:
        os.mkfifo(path)
    elif how == 3:
        path.write_bytes(b"")
    return True


def toml_of(rng: Random, tree: Any) -> bytes:
    how = rng.randrange(10)
    if how == 0:
        return rng.choice(
            (
                b"",
                b"[" * 50_000,
                b"a = " + b"[" * 50_000,
                b"a." * 20_000 + b"a = 1",
                b"\xff\xfe",
                b"a = " + b"9" * 5_000,
                b'name = "x"\nname = "y"',
                b"[a]\n[a]",
                b"a = 1979-05-27T07:32:00Z",
                b'"\\u0000" = 1',
            )
        )
    if how < 3:
        return m.spoil(rng, m.as_toml(tree))
    tree = m.regrow(rng, tree)
    return m.as_toml(tree if isinstance(tree, dict) else {"a": tree})


SUFFIXES = tuple(formats.SUFFIXES)


@cache
def data_files() -> dict[str, bytes]:
    lines = "".join(json.dumps(row) + "\n" for row in table_rows()).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table_rows()), buffer)
    return {
        ".csv": CSV.encode(),
        ".tsv": CSV.replace(",", "\t").encode(),
        ".jsonl": lines,
        ".jsonl.gz": gzip.compress(lines, mtime=0),
        ".json": json.dumps(table_rows()).encode(),
        ".parquet": buffer.getvalue(),
    }


def grown(rng: Random, rows: list[Any]) -> list[Any]:
    """Rows with a few of their values replaced; still a list."""
    tree = m.regrow(rng, rows)
    return tree if isinstance(tree, list) else [tree]


def data_of(rng: Random, suffix: str) -> bytes:
    valid = data_files()[suffix]
    if rng.randrange(3) == 0:
        return m.spoil(rng, valid)
    if rng.randrange(12) == 0:
        return rng.choice(
            (
                b"",
                b"\n",
                b"\xef\xbb\xbf" + valid,
                b"\xff\xfe" + valid,
                valid.decode("latin-1").encode("utf-16"),
                valid * 3,
                b"text,label\n" * 3,
                b",\n,\n",
                b"text,text\na,b\n",
                b'"' * 1001,
                b"\0" * 100,
                b"{" * 10_000,
                b"[" * 100_000,
                b"x" * 3_000_000,
                b"a,b\n" + b"c," * 100_000,
            )
        )
    if suffix in (".csv", ".tsv"):
        mark = "," if suffix == ".csv" else "\t"
        lines = [
            mark.join(_cell(rng, item, suffix) for item in (row.values() if isinstance(row, dict) else [row]))
            for row in grown(rng, table_rows())
        ]
        head = mark.join(
            rng.choice(
                (["text", "label"], ["text", "label", "label"], [""], ["label"], ["text", rng.choice(m.STRINGS)])
            )
        )
        return "\n".join([head, *lines]).encode("utf-8", "surrogatepass")
    if suffix == ".parquet":
        return _parquet(rng)
    if suffix == ".json":
        return m.as_json(grown(rng, table_rows()))
    lines = b"\n".join(m.as_json(row) for row in grown(rng, table_rows()))
    if suffix == ".jsonl":
        return lines
    packed = gzip.compress(lines, mtime=0)
    return m.spoil(rng, packed) if rng.randrange(3) == 0 else packed


def _cell(rng: Random, item: Any, suffix: str) -> str:
    text = str(item)[:200]
    return '"' + text.replace('"', '""') + '"' if suffix == ".csv" and rng.randrange(3) == 0 else text


def odd_arrays(count: int) -> list[Callable[[], pa.Array]]:
    """Columns of types that are seldom expected."""
    return [
        lambda: pa.array([b"\xff"] * count, pa.binary()),
        lambda: pa.nulls(count),
        lambda: pa.array([1.5] * count),
        lambda: pa.array([float("nan")] * count),
        lambda: pa.array([[1, 2]] * count),
        lambda: pa.array([{"a": 1}] * count),
        lambda: pa.array(["a", None, "b", "a", "", "b"][:count]),
        lambda: pa.array([2**62] * count, pa.timestamp("ns")),
        lambda: pa.array([2**62] * count, pa.timestamp("s", tz="UTC")),
        lambda: pa.array([10] * count, pa.duration("us")),
        lambda: pa.array(["a", "b"] * (count // 2) + ["a"] * (count % 2)).dictionary_encode(),
        lambda: pa.array([True] * count),
        lambda: pa.array([2**31 - 1] * count, pa.date32()),
        lambda: pa.array([1] * count).cast(pa.decimal128(38, 5)),
        lambda: pa.array([-(2**63), 2**63 - 1] * (count // 2) + [0] * (count % 2)),
        lambda: pa.array([[("k", 1)]] * count, pa.map_(pa.string(), pa.int64())),
        lambda: pa.array([1] * count, pa.time64("ns")),
        lambda: pa.array(["x" * 100_000] * count, pa.large_string()),
        lambda: pa.array([b"1234"] * count, pa.binary(4)),
        lambda: pa.array([m.nested(20, empty=True)] * count),
        lambda: pa.array([1.0] * count, pa.float16()) if hasattr(pa, "float16") else pa.nulls(count),
    ]


def _parquet(rng: Random) -> bytes:
    odd = odd_arrays(rng.choice((0, 1, 2, 6)))
    columns = [rng.choice(odd)(), rng.choice(odd)()]
    names = rng.choice(
        (["text", "label"], ["text", "label"], ["label", "label"], ["", "label"], ["text", "\x1b"], ["a", "b"])
    )
    buffer = io.BytesIO()
    try:
        pq.write_table(pa.table(columns, names=names), buffer)
    except (pa.ArrowException, OSError):  # no words for it in the format
        return m.spoil(rng, data_files()[".parquet"])
    return buffer.getvalue() if rng.randrange(4) else m.spoil(rng, buffer.getvalue())
