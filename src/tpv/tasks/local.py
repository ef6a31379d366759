"""Tasks from tables of rows, and the rows of local files: CSV, TSV and Parquet by pyarrow, JSONL by json."""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from tpv.errors import TpvError
from tpv.files import read_parquet, regular
from tpv.tasks.rows import Place, column_values, examples_from_rows, infer_labels
from tpv.tasks.spec import FileSource, TaskSpec, build_spec, template_fields
from tpv.tasks.splits import apply_split_rule
from tpv.tasks.task import SPLITS, Example, Task

SUFFIXES = (".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet")


@dataclass(frozen=True)
class DataTable:
    """Rows as dictionaries, and the label words that their source names itself, in id order."""

    rows: list[dict[str, Any]]
    place: Place
    words: tuple[str, ...] = ()


def is_data_file(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def _read_separated(path: Path) -> pa.Table:
    """CSV with quotes as RFC 4180 has them, or TSV, which has none; every value stays the text it is."""
    if path.name.endswith(".tsv"):
        parse = pa.csv.ParseOptions(delimiter="\t", quote_char=False)
    else:
        parse = pa.csv.ParseOptions(newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    types = dict.fromkeys(names, pa.string())
    return pa.csv.read_csv(path, parse_options=parse, convert_options=pa.csv.ConvertOptions(column_types=types))


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    """An object a line; what a line leaves out is None.

    Not by pyarrow.json, which takes text that looks like a date for one, and dies of a line that is `null`.
    """
    rows: list[dict[str, Any]] = []
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as binary:
        for number, line in enumerate(TextIOWrapper(binary, encoding="utf-8-sig"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TpvError(
                    f"data file {path} does not parse: line {number}", expected="a JSON object", got=str(error)
                ) from None
            if not isinstance(row, dict):
                raise TpvError(f"data file {path} line {number}", expected="a JSON object", got=type(row).__name__)
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a data file as dictionaries.

    Raises:
        TpvError: missing or unreadable file, unknown ending, or content that does not parse.
    """
    if not is_data_file(path):
        raise TpvError(f"data file {path}", expected=f"a name ending in {', '.join(SUFFIXES)}")
    try:
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            return _read_json_lines(regular(path))
        table = read_parquet(path) if path.name.endswith(".parquet") else _read_separated(regular(path))
        rows: list[dict[str, Any]] = table.to_pylist()
    except OSError as error:
        reason = error.strerror or str(error)
        raise TpvError(f"data file {path} cannot be read", got=reason) from None
    except (pa.ArrowException, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise TpvError(f"data file {path} does not parse", got=str(error).splitlines()[0]) from None
    for column in table.schema:
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            raise TpvError(f"data file {path} is not UTF-8", got=f"other bytes in column {column.name!r}")
    return rows


def read_table(path: Path) -> DataTable:
    """The rows of a data file.

    Raises:
        TpvError: it has none; see also `read_rows`.
    """
    rows = read_rows(path)
    if not rows:
        raise TpvError(f"data file {path} has no rows", expected="labelled examples")
    return DataTable(rows, Place.of_file(path))


def task_from_files(spec: TaskSpec, folder: Path, *, seed: int = 0) -> Task:
    """Load a task whose source is `files`.

    Under the rule `given`, a validation or test split that is not named is held out of the training rows (a
    stratified tenth each), so that no row is in two splits; under `paper`, see `paper_splits`.

    Raises:
        TpvError: see `read_rows` and `examples_from_rows`; also too few rows to hold any out.
    """
    source = spec.source
    if not isinstance(source, FileSource):
        raise TpvError(f"task {spec.name!r} has no files", expected="source kind 'files'", got=source.kind)
    splits: dict[str, list[Example]] = {}
    origin: dict[str, str] = {}
    for split in SPLITS:
        name = getattr(source, split)
        if name is not None:
            table = read_table(folder / name)
            splits[split] = examples_from_rows(table.rows, spec, table.place)
            origin[f"{split} file"] = str((folder / name).resolve())
    return apply_split_rule(spec, splits, seed, origin)


def find_split(folder: Path, split: str) -> Path | None:
    """The data file of one split in a folder, if there is one.

    Raises:
        TpvError: it holds several.
    """
    found = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
    if len(found) > 1:
        raise TpvError(f"folder {folder} has several {split} files", got=[path.name for path in found])
    return found[0] if found else None


def default_name(path: Path) -> str:
    """A file's name without its ending, or its folder's where the file is just called `train`."""
    full = path.resolve()
    stem = next((full.name.removesuffix(suffix) for suffix in SUFFIXES if full.name.endswith(suffix)), full.name)
    return full.parent.name if stem in SPLITS and full.parent.name else stem


def files_of(path: Path) -> dict[str, Path]:
    """The data file of each split: those of a folder with `train`, `validation` and `test` files, or just the one.

    Raises:
        TpvError: a folder without training data, or with several files of a split.
    """
    if not path.is_dir():
        return {"train": path}
    found = {split: file for split in SPLITS if (file := find_split(path, split))}
    if "train" not in found:
        raise TpvError(f"folder {path} holds no training data", expected=f"train{{{', '.join(SUFFIXES)}}}")
    return found


def task_from_tables(
    tables: Mapping[str, DataTable],
    *,
    text: str | Sequence[str] | None = None,
    label: str = "label",
    labels: Sequence[str] | None = None,
    template: str | None = None,
    name: str,
    files: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Task:
    """A task from the rows of its splits, what is missing held out of the training rows (see `task_from_files`).

    Args:
        text: the input column or columns; may be left out where there is only one beside the label, or where
            the template names them.
        label: the label column, ids or words.
        labels: the label words in id order; by default those the training rows' source names, or else the distinct
            values of their labels.
        template: the input text with columns in braces; by default `column: {column} ...`.
        name: what to call the task.
        files: the file of each split, where the rows come from some.

    Raises:
        TpvError: no such column, labels that are too few or too many; see also `examples_from_rows`.
    """
    rows, place = tables["train"].rows, tables["train"].place
    values = column_values(rows, label, place, "label")
    if isinstance(labels, str):
        raise TpvError("label words", expected="a sequence of words", got=repr(labels))
    fields = [text] if isinstance(text, str) else list(text or ())
    if not fields and template:
        try:
            fields = template_fields(template)
        except ValueError as error:
            raise TpvError(str(error)) from None
    if not fields:
        fields = [column for column in rows[0] if column != label]
        if len(fields) > 1:  # a column that repeats the label, or an index, must not slip into the input
            raise TpvError(
                f"which columns of {place.full} are the input",
                expected="text column(s) named",
                got=f"columns {fields} beside the label",
                fix=f"for instance --text {fields[0]} (text={fields[0]!r})",
            )
    if label in fields:
        raise TpvError(f"column {label!r} of {place.full} cannot be both text and label")
    words = tuple(labels) if labels else tables["train"].words or infer_labels(values)
    if len(words) < 2:
        raise TpvError(
            f"label column {label!r} of {place.full} has too few values",
            expected="at least 2 label words",
            got=list(words),
        )
    if len(words) > 1000 and not labels:
        raise TpvError(
            f"label column {label!r} of {place.full} has {len(words)} distinct values",
            expected="a class label",
            fix="name the label column, or list the label words",
        )
    for field in fields:
        column_values(rows, field, place, "text")
    content = {
        "name": name,
        "fields": fields,
        "template": template or " ".join(f"{field}: {{{field}}}" for field in fields),
        "labels": words,
        "metric": "f1" if len(words) == 2 else "macro_f1",
        "source": {"kind": "files", "label_column": label, **(files or {})},
    }
    spec = build_spec(content, where=place.full)
    splits = {split: examples_from_rows(table.rows, spec, table.place) for split, table in tables.items()}
    origin = {f"{split} file": file for split, file in (files or {}).items()}
    return apply_split_rule(spec, splits, seed, origin or {"memory": "rows given in Python"})
