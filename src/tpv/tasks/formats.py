"""The formats of data files: how each is opened, and what a file turns out to be that is not what its name says."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.csv

from tpv.errors import TpvError, TpvWarning
from tpv.files import regular

Format = Literal["csv", "tsv", "jsonl", "json", "parquet"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
OTHERS = {
    (".xlsx", ".xls", ".xlsm", ".ods"): "a spreadsheet",
    (".txt",): "plain text",
    (".zip", ".tar", ".tgz", ".7z"): "an archive",
    (".pkl", ".pickle", ".pt", ".pth"): "a pickle, which can run code,",
    (".arrow", ".feather"): "an Arrow file",
    (".xml", ".html"): "markup",
}
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SNIFFED = 2**16  # bytes of a file's beginning that tell its separator and encoding


def format_of(path: Path) -> Format | None:
    """The format that a file's name tells, None for one that is no data file's."""
    return next((kind for suffix, kind in SUFFIXES.items() if path.name.lower().endswith(suffix)), None)


def other_kind(path: Path) -> str | None:
    """What a file of another kind is, in words, by its name."""
    return next((words for suffixes, words in OTHERS.items() if path.name.lower().endswith(suffixes)), None)


def checked_format(path: Path) -> Format:
    """The format that a file's name tells.

    Raises:
        TpvError: it is no data file's.
    """
    kind = format_of(path)
    if kind is None:
        other = other_kind(path)
        raise TpvError(
            f"data file {path}",
            expected=f"a name ending in {', '.join(SUFFIXES)}",
            got=f"{other}" if other else None,
            fix="save it as CSV" if other == "a spreadsheet" else None,
        )
    return kind


def as_format(name: str | None) -> Format | None:
    """A format by its name.

    Raises:
        TpvError: there is none of this name.
    """
    known = {kind: kind for kind in SUFFIXES.values()}
    if name is not None and name not in known:
        raise TpvError("--format", expected=", ".join(known), got=repr(name))
    return known[name] if name is not None else None


def check_encoding(encoding: str | None) -> None:
    """Refuse an encoding that Python does not know.

    Raises:
        TpvError: it does not.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # which refuses `hex` and its like, unlike codecs.lookup
        known = True
    except (LookupError, ValueError):
        known = False
    if not known:
        raise TpvError("encoding", expected="utf-8, utf-16, latin-1, cp1252 or another that Python knows", got=encoding)


def not_utf8(what: str, start: bytes = b"") -> TpvError:
    """The refusal of a file that is not UTF-8, which says what it may be."""
    kind = next((name for bom, name in BOMS.items() if start.startswith(bom) and name != "utf-8-sig"), None)
    if kind is None and start[:200].count(0) > 20:
        kind = "utf-16-le" if start[1:2] == b"\0" else "utf-16-be"
    if kind:
        return TpvError(f"{what} is not UTF-8", got=kind.upper(), fix=f"use --encoding {kind} (encoding={kind!r})")
    return TpvError(
        f"{what} is not UTF-8",
        got="other bytes, often Latin-1",
        fix="use --encoding latin-1 (encoding='latin-1') or cp1252, or convert it",
    )


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns, and its rows in chunks."""

    names: list[str]
    chunks: Iterator[list[dict[str, Any]]]
    schema: pa.Schema | None = None  # of Parquet, whose columns have types


def open_rows(
    source: IO[bytes], kind: Format, what: str, *, size: int, encoding: str | None = None, name: str = ""
) -> Columns:
    """The rows of a data file, `size` at a time, so that a file of any length takes bounded memory.

    Every value of CSV and TSV stays the text it is. A file named .csv whose header is separated by semicolons or tabs
    is read so, with a warning; a JSON array is read whole.

    Args:
        source: the file, opened for bytes; of Parquet a seekable one.
        what: it is, in messages.
        size: rows in a chunk.
        encoding: of its text; by default UTF-8, with a byte order mark or without.
        name: of the file, to tell whether it is compressed.

    Raises:
        TpvError: content that does not parse, or is not of this encoding; when a chunk is read, too.
    """
    check_encoding(encoding)
    if kind == "parquet":
        return _parquet(source, what, size)
    stream: Any = gzip.GzipFile(fileobj=source) if name.endswith(".gz") else source
    buffered = stream if hasattr(stream, "peek") else io.BufferedReader(stream)
    with reading(what):
        start = bytes(buffered.peek(SNIFFED)[:SNIFFED])
    if encoding is None and not _utf8(start):
        raise not_utf8(what, start)
    if kind in ("csv", "tsv"):
        return _separated(buffered, kind, what, size, encoding, start)
    text = io.TextIOWrapper(buffered, encoding=encoding or "utf-8-sig")
    return _json_array(text, what, size) if kind == "json" else _json_lines(text, what, size)


def _utf8(start: bytes) -> bool:
    """Whether the beginning of a file is UTF-8; its last character may be cut."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return start[:200].count(0) <= 20


def separator(kind: Format, start: bytes, what: str) -> str:
    """The separator of a table's columns: the one its name tells, unless its header has only another."""
    usual = "\t" if kind == "tsv" else ","
    header = start.lstrip(codecs.BOM_UTF8).partition(b"\n")[0].decode("latin-1")
    if usual in header or header.startswith('"'):
        return usual
    counts = {each: header.count(each) for each in SEPARATORS if each != usual}
    found = max(counts, key=lambda each: counts[each])
    if not counts[found]:
        return usual
    warnings.warn(
        f"{what} is separated by {SEPARATORS[found]}, not {SEPARATORS[usual]}, and is read so", TpvWarning, stacklevel=2
    )
    return found


def _separated(source: IO[bytes], kind: Format, what: str, size: int, encoding: str | None, start: bytes) -> Columns:
    """CSV with quotes as RFC 4180 has them, or TSV, which has none."""
    if encoding is not None:
        start = start.decode(encoding, "replace").encode()
    cut = separator(kind, start, what)
    quotes: dict[str, Any] = {"quote_char": False} if cut == "\t" else {"newlines_in_values": True}
    parse = pa.csv.ParseOptions(delimiter=cut, **quotes)
    how = pa.csv.ReadOptions(encoding=(encoding or "utf8").replace("utf-8-sig", "utf8"))
    # the header first, since only then it is known which columns are to stay text
    with reading(what):
        head = _first_line(start, cut != "\t")
        with pa.csv.open_csv(pa.BufferReader(head or start), parse_options=parse) as reader:
            names = list(reader.schema.names)
        texts = dict.fromkeys(names, pa.string())
        convert = pa.csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
        batches = pa.csv.open_csv(source, read_options=how, parse_options=parse, convert_options=convert)

    def rows() -> Iterator[dict[str, Any]]:
        while True:
            with reading(what):
                try:
                    batch = batches.read_next_batch()
                except StopIteration:
                    return
                found = batch.to_pylist()
            yield from found

    return Columns(names, _cut(rows(), size))


def _first_line(start: bytes, quoted: bool) -> bytes:
    """The header of a table: up to the first line end that is not inside quotes."""
    inside = False
    for place, byte in enumerate(start):
        if quoted and byte == 34:
            inside = not inside
        elif byte in (10, 13) and not inside:
            return start[: place + 1]
    return start


def _json_lines(text: IO[str], what: str, size: int) -> Columns:
    """An object a line; what a line leaves out is None.

    Not by pyarrow.json, which takes text that looks like a date for one, and dies of a line that is `null`.
    """

    def rows() -> Iterator[dict[str, Any]]:
        number = 0
        with text:
            while True:
                with reading(what):
                    line = text.readline()
                if not line:
                    return
                number += 1
                if line.strip():
                    yield _object(line, f"{what} line {number}", f"{what} does not parse: line {number}")

    chunks = _cut(rows(), size)
    first = next(chunks, [])
    names = list(dict.fromkeys(name for row in first for name in row))

    def every() -> Iterator[list[dict[str, Any]]]:
        if first:
            yield [{name: row.get(name) for name in (*names, *row)} for row in first]
        yield from chunks

    return Columns(names, every())


def _object(line: str, where: str, broken: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TpvError(broken, expected="a JSON object", got=str(error)) from None
    if not isinstance(row, dict):
        raise TpvError(where, expected="a JSON object", got=type(row).__name__)
    return row


def _json_array(text: IO[str], what: str, size: int) -> Columns:
    """An array of objects, read whole; a file with an object a line is read as that."""
    with reading(what), text:
        whole = text.read()
    if not whole.lstrip().startswith("["):
        return _json_lines(io.StringIO(whole), what, size)
    try:
        rows = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise TpvError(f"{what} does not parse", expected="a JSON array of objects", got=str(error)) from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise TpvError(f"{what} row {number}", expected="a JSON object", got=type(row).__name__)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Columns(names, _cut(({name: row.get(name) for name in names} for row in rows), size))


def _parquet(source: IO[bytes], what: str, size: int) -> Columns:
    import pyarrow.parquet as pq

    with reading(what):
        file = pq.ParquetFile(source)
        schema = file.schema_arrow
    for column in schema:
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            raise TpvError(f"{what} is not UTF-8", got=f"other bytes in column {column.name!r}")

    def chunks() -> Iterator[list[dict[str, Any]]]:
        batches = file.iter_batches(batch_size=size)
        while True:
            with reading(what):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)  # by itself Arrow would follow bad offsets and indices later
                found = batch.to_pylist()
            if found:
                yield found

    return Columns(list(schema.names), chunks(), schema)


def _cut(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


class reading:
    """Turn what goes wrong while a data file is read into one line that names it."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import zlib

        if error is None or isinstance(error, TpvError):
            return
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnicodeError) or "invalid UTF8" in message:
            raise not_utf8(self.what) from None
        if isinstance(error, OSError) and not isinstance(error, pa.ArrowException):
            raise TpvError(f"{self.what} cannot be read", got=error.strerror or message) from None
        if isinstance(error, pa.ArrowException | EOFError | ValueError | OverflowError | zlib.error):
            raise TpvError(f"{self.what} does not parse", got=message) from None


def read_all(path: Path, *, encoding: str | None = None) -> list[dict[str, Any]]:
    """All rows of a data file as dictionaries, each with every column.

    Raises:
        TpvError: missing or unreadable file, unknown ending, or content that does not parse.
    """
    kind = checked_format(path)
    what = f"data file {path}"
    with reading(what):
        file = regular(path).open("rb")
    with file:
        table = open_rows(file, kind, what, size=2**16, encoding=encoding, name=path.name)
        rows = [row for chunk in table.chunks for row in chunk]
    names = dict.fromkeys([*table.names, *(name for row in rows for name in row)])
    return [{name: row.get(name) for name in names} for row in rows] if kind == "jsonl" else rows
