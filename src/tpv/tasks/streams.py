"""Write rows of data files chunk by chunk, in the formats that `tpv.tasks.formats` reads."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from tpv.errors import TpvError
from tpv.tasks.formats import Columns, Format

Rows = Sequence[Mapping[str, Any]]
TYPES = {str: pa.string(), float: pa.float64()}


def _schema(table: Columns, added: Mapping[str, type]) -> pa.Schema:
    """The columns of an output: those of the input with their types, text where it has none, and those added."""
    first: list[Any] = [(name, pa.string()) for name in table.names] if table.schema is None else list(table.schema)
    return pa.schema([*first, *((name, TYPES[kind]) for name, kind in added.items())])


def _words(value: Any) -> str | None:
    """A value as the text of a cell; lists and objects as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return repr(value) if isinstance(value, float) else str(value)


def _plain(value: object) -> str:
    """What JSON has no words for: times as ISO 8601 has them."""
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)


def _json(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON; half a character can only be written escaped, as it came."""
    try:
        return json.dumps(row, ensure_ascii=False, default=_plain).encode()
    except UnicodeEncodeError:
        return json.dumps(row, default=_plain).encode()


def _only(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _check_columns(rows: Rows, names: Sequence[str]) -> None:
    """Refuse a column that JSON lines have further down, where a header has been written."""
    known = set(names)
    lost = next((column for row in rows for column in row if column not in known), None)
    if lost is not None:
        raise TpvError(f"column {lost!r} is not in the first rows", fix="write .jsonl, which has no header")


@contextmanager
def _utf8() -> Iterator[None]:
    """Refuse half a character (a lone surrogate, which JSON can escape) where only whole ones can be written."""
    try:
        yield
    except UnicodeEncodeError:
        raise TpvError("a text that is not UTF-8", got="half a character", fix="write .jsonl") from None


@contextmanager
def writer_of(
    kind: Format, file: IO[bytes], table: Columns, added: Mapping[str, type], name: str, *, header: bool = True
) -> Iterator[Callable[[Rows], object]]:
    """What writes rows into a file, in order.

    Args:
        table: the input, whose columns and types are kept.
        added: the columns more, each `str` or `float`.
        name: of the output, to tell whether it is compressed.
        header: of CSV and TSV, whether to write the line of names.

    Raises:
        TpvError: a value that the format has no way to write.
    """
    if kind == "parquet":
        import pyarrow.parquet as pq

        schema = _schema(table, added)
        with pq.ParquetWriter(file, schema, compression="zstd") as parquet:
            typed = table.schema is not None

            def fill(rows: Rows) -> None:
                kept = rows
                if not typed:  # text, but for what was added
                    _check_columns(rows, schema.names)
                    kept = [{name: _words(row.get(name)) for name in table.names} | _only(row, added) for row in rows]
                with _utf8():
                    parquet.write_table(pa.Table.from_pylist(list(kept), schema))

            yield fill
    elif kind in ("csv", "tsv"):
        names = [*table.names, *added]
        tabs: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        separated = csv.writer(text, lineterminator="\n", **(tabs if kind == "tsv" else {}))

        def write(rows: Rows) -> None:
            _check_columns(rows, names)
            for row in rows:
                cells = [_words(row.get(name)) for name in names]
                try:
                    with _utf8():
                        separated.writerow(cells)
                except csv.Error:
                    raise TpvError("a text with a tab or line end", expected="none in TSV", fix="write .csv") from None

        try:
            if header:
                separated.writerow(names)
            yield write
        finally:
            text.detach()
    else:
        packed: Any = gzip.GzipFile(fileobj=file, mode="wb", mtime=0) if name.endswith(".gz") else file

        def lines(rows: Rows) -> None:
            for row in rows:
                packed.write(_json(row) + b"\n")

        yield lines
        if packed is not file:
            packed.close()


def append(kind: Format, parts: Sequence[Path], file: IO[bytes]) -> None:
    """Put files that `writer_of` wrote together, one after the other, in bounded memory."""
    if kind != "parquet":
        for part in parts:
            with part.open("rb") as one:
                shutil.copyfileobj(one, file)
        return
    import pyarrow.parquet as pq

    if not parts:
        return
    with pq.ParquetWriter(file, pq.read_schema(parts[0]), compression="zstd") as parquet:
        for part in parts:
            parquet.write_table(pq.read_table(part))
