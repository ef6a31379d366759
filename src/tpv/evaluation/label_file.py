"""Label a file of rows: in chunks, restartable, and whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tpv.errors import TpvError, did_you_mean
from tpv.files import atomic_write, filling, regular, writing
from tpv.tasks.formats import Columns, Format, checked_format, format_of, open_rows, reading
from tpv.tasks.streams import append, writer_of

CHUNK = 4096  # rows answered, and written, at a time
Answer = Callable[[Sequence[Mapping[str, str]]], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Counts:
    """How many rows there were, how many of them had no text, and how many were done by an earlier call."""

    rows: int
    empty: int
    resumed: int


@dataclass(frozen=True)
class Endpoint:
    """An input or output: a file, or a stream with the format that its name cannot tell."""

    path: Path | None
    stream: IO[bytes] | None
    kind: Format
    name: str

    @classmethod
    def of(cls, path: Path, stream: IO[bytes], kind: Format | None, what: str) -> Endpoint:
        """The place of a path; `-` is the stream, of the kind given. A file's is told by its name.

        Raises:
            TpvError: a name that tells no format, or a stream without one.
        """
        if str(path) != "-":
            return cls(path, None, format_of(path) or kind or checked_format(path), f"data file {path}")
        if kind is None:
            raise TpvError(f"the format of {what}", expected="--format csv, tsv or jsonl", got="none")
        if kind == "parquet":
            raise TpvError(f"the format of {what}", expected="csv, tsv or jsonl", got="parquet", fix="give a file")
        return cls(None, stream, kind, what)


def label_file(
    source: Endpoint,
    target: Endpoint,
    fields: Mapping[str, str],
    answer: Answer,
    added: Mapping[str, type],
    *,
    key: object,
    encoding: str | None = None,
    advance: Callable[[int], object] | None = None,
) -> Counts:
    """Answer every row of a file, all of its columns kept.

    Where both ends are files, what is done is kept beside the output while it runs, so that the same call resumes
    after an interrupt; the output appears when it is complete. Rows without any text get null answers.

    Args:
        fields: the column of each field of the task.
        answer: the values of the added columns for rows of these fields, texts that are not empty.
        added: the columns to add, each with its type, `str` or `float`.
        key: all that decides the answers, as plain values, so that another call's work is not taken for this one's.
        encoding: of the input, where it is not UTF-8. The output is UTF-8.
        advance: called with the number of rows done.

    Raises:
        TpvError: a column that is missing or there already, rows that do not parse, a place that cannot be written.
    """
    if target.kind == "json":
        raise TpvError(f"{target.name} to write", expected=".csv, .tsv, .jsonl, .jsonl.gz or .parquet", got=".json")
    with ExitStack() as stack:
        stream = source.stream
        if source.path is not None:
            with reading(source.name):
                stream = stack.enter_context(regular(source.path).open("rb"))
        assert stream is not None
        table = open_rows(stream, source.kind, source.name, size=CHUNK, encoding=encoding, name=str(source.path or ""))
        chunks = _checked(table, source.name, fields, added)
        if target.path is None or source.path is None:
            counts = _straight(chunks, table, target, fields, answer, added, advance)
        else:
            sign = [str(source.path.resolve()), source.path.stat().st_size, source.path.stat().st_mtime_ns]
            about = json.dumps([sign, encoding, dict(fields), list(added), target.kind, CHUNK, key], sort_keys=True)
            digest = hashlib.sha256(about.encode()).hexdigest()
            counts = _resumable(chunks, table, target, digest, fields, answer, added, advance)
    return counts


def stage_of(out: Path) -> Path:
    """The folder where what is done of an output is kept until it is complete."""
    return out.parent / f".{out.name[:80]}.partial"


def _checked(
    table: Columns, what: str, fields: Mapping[str, str], added: Mapping[str, type]
) -> Iterator[list[dict[str, Any]]]:
    """The chunks of a table that has the columns to read and not those to add."""
    first = next(table.chunks, None)
    names = table.names
    for field, column in fields.items():
        if first is not None and column not in names:
            raise TpvError(
                f"{what} has no text column {column!r}",
                expected=f"one of {names}",
                fix=f"{did_you_mean(column, names)}; name the column of {field!r} with --text" if names else None,
            )
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise TpvError(f"{what} has two columns {twice!r}", expected="a name of its own for each", fix="rename one")
    for column in added:
        if column in names:
            raise TpvError(
                f"{what} has a column {column!r} already",
                fix="name the new one with --label-column or --probability-column",
            )

    def every() -> Iterator[list[dict[str, Any]]]:
        if first is not None:
            yield first
            yield from table.chunks

    return every()


def _answered(
    rows: list[dict[str, Any]], fields: Mapping[str, str], answer: Answer, added: Mapping[str, type], start: int
) -> tuple[list[dict[str, Any]], int]:
    """Rows with their answers, and how many had no text."""
    texts: list[dict[str, str]] = []
    filled: list[int] = []
    for place, row in enumerate(rows):
        values = {field: row.get(column) for field, column in fields.items()}
        for field, value in values.items():
            if isinstance(value, list | dict | bytes):
                kind = {list: "a list", dict: "an object", bytes: "bytes"}[type(value)]
                raise TpvError(f"row {start + place + 1}: column {fields[field]!r} is not text", got=kind)
        words = {field: "" if value is None else str(value) for field, value in values.items()}
        if any(text.strip() for text in words.values()):
            texts.append(words)
            filled.append(place)
    answers = answer(texts) if texts else []
    none = dict.fromkeys(added)
    found: list[dict[str, Any]] = [row | none for row in rows]
    for place, values_ in zip(filled, answers, strict=True):
        found[place] |= {name: values_[name] for name in added}
    return found, len(rows) - len(filled)


def _straight(
    chunks: Iterator[list[dict[str, Any]]],
    table: Columns,
    target: Endpoint,
    fields: Mapping[str, str],
    answer: Answer,
    added: Mapping[str, type],
    advance: Callable[[int], object] | None,
) -> Counts:
    """From a stream, or to one: chunk by chunk."""
    rows = empty = 0
    with ExitStack() as stack:
        if target.path is None:
            assert target.stream is not None
            file: Any = target.stream
        else:
            part = stack.enter_context(atomic_write(target.path))
            file = stack.enter_context(part.open("wb"))
        write = stack.enter_context(writer_of(target.kind, file, table, added, str(target.path or "")))
        for chunk in chunks:
            found, blank = _answered(chunk, fields, answer, added, rows)
            write(found)
            file.flush()
            rows, empty = rows + len(chunk), empty + blank
            if advance:
                advance(len(chunk))
    return Counts(rows, empty, 0)


def _resumable(
    chunks: Iterator[list[dict[str, Any]]],
    table: Columns,
    target: Endpoint,
    digest: str,
    fields: Mapping[str, str],
    answer: Answer,
    added: Mapping[str, type],
    advance: Callable[[int], object] | None,
) -> Counts:
    """From file to file: each chunk is a file of its own until all are there."""
    assert target.path is not None
    out = target.path
    stage = stage_of(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if _state(stage) != digest:
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir()
            (stage / "state").write_text(digest)
    rows = empty = resumed = 0
    parts: list[Path] = []
    for number, chunk in enumerate(chunks):
        part = stage / f"{number:07}"
        note = part.with_suffix(".json")
        known = _finished(part, note)
        if known is not None:
            blank = known
            resumed += len(chunk)
        else:
            found, blank = _answered(chunk, fields, answer, added, rows)
            with (
                filling(out),
                atomic_write(part) as file,
                file.open("wb") as opened,
                writer_of(target.kind, opened, table, added, out.name, header=number == 0) as write,
            ):
                write(found)
            with filling(out), atomic_write(note) as file:
                file.write_text(json.dumps({"empty": blank, "sha256": _sha256(part, blank)}))
        parts.append(part)
        rows, empty = rows + len(chunk), empty + blank
        if advance:
            advance(len(chunk))
    with atomic_write(out) as file, file.open("wb") as opened:
        if not parts:
            with writer_of(target.kind, opened, table, added, out.name):
                pass
        append(target.kind, parts, opened)
    with suppress(OSError):
        shutil.rmtree(stage)
    return Counts(rows, empty, resumed)


def _finished(part: Path, note: Path) -> int | None:
    """How many rows of a finished part have no text; None where it is not there or not as it was written."""
    with suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        about = json.loads(regular(note).read_text())
        blank = int(about["empty"])
        if about["sha256"] == _sha256(regular(part), blank):
            return blank
    return None


def _sha256(part: Path, blank: int) -> str:
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f" {blank}".encode())
    return digest.hexdigest()


def _state(stage: Path) -> str | None:
    """The digest of the call that made this folder, if there is one."""
    if stage.is_symlink():
        raise TpvError(f"{stage} is a link", fix="remove it")
    with suppress(OSError, UnicodeDecodeError):
        return regular(stage / "state").read_text()
    return None


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are one file."""
    with suppress(OSError):
        return os.path.samefile(one, other)
    return False
