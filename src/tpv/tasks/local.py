"""Tasks from tables of rows, and the rows of local files: CSV, TSV and Parquet by pyarrow, JSONL by json."""

import gzip
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.csv

from tpv.errors import TpvError, did_you_mean
from tpv.files import read_parquet, regular
from tpv.tasks.spec import FileSource, HubSource, TaskSpec, build_spec, render, template_fields
from tpv.tasks.task import SPLITS, Example, Task, stratified_sample

SUFFIXES = (".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet")
HELD_OUT_FRACTION, HELD_OUT_MOST = 0.1, 1000
PAPER_LARGE, PAPER_VALIDATION = 10_000, 1_000
UNLABELLED = "-1"  # the hub's label of a row that has no gold label


@dataclass(frozen=True)
class Place:
    """Where rows come from: `full` in messages about all, `row` before the number of one, `id` in examples' ids."""

    full: str
    row: str
    id: str

    @classmethod
    def of_file(cls, path: Path) -> "Place":
        return cls(f"data file {path}", path.name, path.name)


@dataclass(frozen=True)
class Table:
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


def read_table(path: Path) -> Table:
    """The rows of a data file.

    Raises:
        TpvError: it has none; see also `read_rows`.
    """
    rows = read_rows(path)
    if not rows:
        raise TpvError(f"data file {path} has no rows", expected="labelled examples")
    return Table(rows, Place.of_file(path))


def _column(rows: Sequence[dict[str, Any]], name: str, place: Place, kind: str) -> list[Any]:
    if rows and name not in rows[0]:
        raise TpvError(
            f"{place.full} has no {kind} column {name!r}",
            expected=f"one of {sorted(rows[0])}",
            fix=did_you_mean(name, rows[0]) if len(rows[0]) > 1 else None,
        )
    return [row[name] for row in rows]


def _missing(value: Any) -> bool:
    """None and NaN, and what pandas has for them: NaT is not itself either, and NA will not be compared."""
    if value is None or isinstance(value, str):
        return value is None
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"


def _text(value: Any, where: str, column: str) -> str:
    """An input as text, a missing one empty.

    Raises:
        TpvError: bytes, or text that cannot be written as UTF-8.
    """
    if isinstance(value, bytes | bytearray):
        raise TpvError(f"{where}: column {column!r} is not text", got="bytes", fix="decode them first")
    text = "" if _missing(value) else str(value)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise TpvError(f"{where}: column {column!r} is not UTF-8", fix="convert it first")
    return text


def _label_text(value: Any) -> str:
    """A label as its word: 1, 1.0 and "1.0" are all `1`; a missing value is empty."""
    if _missing(value):
        return ""
    text = str(value).strip()
    return re.sub(r"^(-?\d{1,15})\.0+$", r"\1", text)


def _label_id(value: Any, labels: Sequence[str], where: str, values: Sequence[str] = ()) -> int:
    """A label's id from an id, a word, or the source's own name for it; whole floats (a CSV's 1.0) count as ids."""
    text = _label_text(value)
    if text in labels:
        return labels.index(text)
    if text in values:
        return values.index(text)
    if text.isascii() and text.isdigit() and int(text) < len(labels):
        return int(text)
    raise TpvError(
        f"{where}: label {text!r} is not one of the task's",
        expected=f"a word of {list(labels)} or an id from 0 to {len(labels) - 1}",
        got=repr(value),
        fix=did_you_mean(text, labels) if text else "fill in or drop rows without a label",
    )


def _nearest(value: Any, numbers: Sequence[float], where: str) -> tuple[int, float]:
    """A label that is a number: the id of the word nearest to it, and the number itself.

    Half-way between two words it is the one of even id, as T5's rounding has it.
    """
    text = _label_text(value)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not numbers[0] <= number <= numbers[-1]:  # nan too
        raise TpvError(
            f"{where}: label {text!r} is not one of the task's",
            expected=f"a number from {numbers[0]} to {numbers[-1]}",
            got=repr(value),
            fix=None if text else "fill in or drop rows without a label",
        )
    distances = [abs(number - other) for other in numbers]
    near = [i for i, distance in enumerate(distances) if distance <= min(distances) + 1e-9]
    return min(near, key=lambda i: i % 2), number


def examples_from_rows(
    rows: Sequence[dict[str, Any]], spec: TaskSpec, place: Place, *, start: int = 0
) -> list[Example]:
    """Render rows through the task's template.

    Args:
        place: where they come from, for ids and for messages.
        start: number of the first row, where these are not the first ones.

    Raises:
        TpvError: a missing column, an empty text, a label outside the task's list; row named.
    """
    source = spec.source
    assert isinstance(source, FileSource | HubSource)
    hub = source if isinstance(source, HubSource) else None
    named = {field: hub.columns.get(field, field) if hub else field for field in spec.fields}
    columns = {field: _column(rows, column, place, "text") for field, column in named.items()}
    labels = _column(rows, source.label_column, place, "label")
    numbers = spec.numbers
    examples = []
    for index, label in enumerate(labels):
        number = start + index
        where = f"{place.row} row {number + 1}"
        if hub and _label_text(label) == UNLABELLED not in spec.labels:
            continue
        fields = {name: _text(values[index], where, named[name]) for name, values in columns.items()}
        # nobody can mend a row of the hub, and its template says more than the fields do
        if not hub and not any(text.strip() for text in fields.values()):
            raise TpvError(f"{where}: the text is empty", fix="fill in or drop such rows")
        own = None
        if numbers:
            label_id, own = _nearest(label, numbers, where)
        else:
            label_id = _label_id(label, spec.labels, where, hub.label_values if hub else ())
        name, source_text, target = f"{place.id}:{number}", render(spec.template, fields), spec.labels[label_id]
        examples.append(Example(name, source_text, target, label_id, spec.cue, own))
    return examples


def infer_labels(values: Sequence[Any]) -> tuple[str, ...]:
    """Label words from a column: its distinct values as text, whole numbers first and in numeric order."""
    words = {_label_text(value) for value in values} - {""}
    numbers = {word for word in words if word.isascii() and word.removeprefix("-").isdigit()}
    return (*sorted(numbers, key=int), *sorted(words - numbers))


def hold_out(rows: list[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Split off a stratified tenth (1,000 at most, 1 at least): `(kept, held out)`."""
    size = max(1, min(HELD_OUT_MOST, round(HELD_OUT_FRACTION * len(rows))))
    chosen = set(stratified_sample([row.label for row in rows], size, Random(f"hold out {seed}")))
    return ([row for i, row in enumerate(rows) if i not in chosen], [row for i, row in enumerate(rows) if i in chosen])


def paper_splits(given: Mapping[str, list[Example]], seed: int) -> dict[str, list[Example]]:
    """The splits of the paper (appendix A), which has labels for two of a source's splits only.

    Over 10,000 training rows, 1,000 of them become validation and the source's validation split becomes test;
    otherwise training stays whole and the source's validation split (its test split where it has no other) is
    halved into validation and test.

    Raises:
        TpvError: no training rows, or no other labelled split.
    """
    train = given.get("train")
    other = given.get("validation") or given.get("test")
    if not train or not other or len(other) < 2:
        raise TpvError(
            "the splits of the paper",
            expected="a training split and a labelled validation split",
            got={split: len(rows) for split, rows in given.items()},
        )
    rng = Random(f"paper splits {seed}")
    if len(train) > PAPER_LARGE:
        chosen = set(rng.sample(range(len(train)), PAPER_VALIDATION))
        return {
            "train": [row for i, row in enumerate(train) if i not in chosen],
            "validation": [row for i, row in enumerate(train) if i in chosen],
            "test": other,
        }
    shuffled = rng.sample(other, len(other))
    half = len(other) // 2
    return {"train": train, "validation": shuffled[:half], "test": shuffled[half:]}


def apply_split_rule(
    spec: TaskSpec, splits: dict[str, list[Example]], seed: int, origin: Mapping[str, str] | None = None
) -> Task:
    """The task with its source's splits made into train, validation and test by the rule the task names.

    Raises:
        TpvError: too few rows to hold any out; also see `paper_splits`.
    """
    if spec.splits == "paper":
        splits = paper_splits(splits, seed)
    elif "train" in splits:
        for split in ("test", "validation"):
            if split not in splits:
                if len(splits["train"]) < 3:
                    raise TpvError(
                        f"task {spec.name!r} has too few rows to hold out a {split} split",
                        expected="at least 3 training rows, or a file for each split",
                        got=len(splits["train"]),
                    )
                splits["train"], splits[split] = hold_out(splits["train"], seed)
    return Task(spec, {split: tuple(splits.get(split, ())) for split in SPLITS}, origin or {})


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
    """The data file of one split in a folder, if it holds one.

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
    tables: Mapping[str, Table],
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
    values = _column(rows, label, place, "label")
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
        _column(rows, field, place, "text")
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
