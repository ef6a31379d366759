"""Tasks from tables of rows, and from local files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpv.errors import TpvError
from tpv.tasks.checks import warn_of_labels, warn_of_rare_labels, warn_of_shared_texts, warn_of_two_labels
from tpv.tasks.formats import SUFFIXES, format_of, read_all
from tpv.tasks.rows import Place, column_values, examples_from_rows, infer_labels
from tpv.tasks.spec import FileSource, TaskSpec, build_spec, template_fields
from tpv.tasks.splits import apply_split_rule
from tpv.tasks.task import SPLITS, Example, Task


@dataclass(frozen=True)
class DataTable:
    """Rows as dictionaries, and the label words that their source names itself, in id order."""

    rows: list[dict[str, Any]]
    place: Place
    words: tuple[str, ...] = ()


def is_data_file(path: Path) -> bool:
    return format_of(path) is not None


def read_table(path: Path, encoding: str | None = None) -> DataTable:
    """The rows of a data file.

    Raises:
        TpvError: it has none; see also `read_all`.
    """
    rows = read_all(path, encoding=encoding)
    if not rows:
        raise TpvError(f"data file {path} has no rows", expected="labelled examples")
    return DataTable(rows, Place.of_file(path))


def task_from_files(spec: TaskSpec, folder: Path, *, seed: int = 0, encoding: str | None = None) -> Task:
    """Load a task whose source is `files`.

    Under the rule `given`, a validation or test split that is not named is held out of the training rows (a
    stratified tenth each), so that no row is in two splits; under `paper`, see `paper_splits`.

    Raises:
        TpvError: see `read_all` and `examples_from_rows`; also too few rows to hold any out.
    """
    source = spec.source
    if not isinstance(source, FileSource):
        raise TpvError(f"task {spec.name!r} has no files", expected="source kind 'files'", got=source.kind)
    splits: dict[str, list[Example]] = {}
    origin: dict[str, str] = {}
    for split in SPLITS:
        name = getattr(source, split)
        if name is not None:
            table = read_table(folder / name, encoding)
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
    target: str | None = None,
    template: str | None = None,
    name: str,
    files: Mapping[str, str] | None = None,
    hold_out: bool = True,
    seed: int = 0,
) -> Task:
    """A task from the rows of its splits, what is missing held out of the training rows (see `task_from_files`).

    Args:
        text: the input column or columns; may be left out where there is only one beside the label, or where
            the template names them.
        label: the label column, ids or words.
        target: the column of the text to write; the task is one of text then, and has no labels.
        labels: the label words in id order; by default those the training rows' source names, or else the distinct
            values of their labels.
        template: the input text with columns in braces; by default `column: {column} ...`.
        name: what to call the task.
        files: the file of each split, where the rows come from some.
        hold_out: whether what is missing is held out, or stays empty.

    Raises:
        TpvError: no such column, labels that are too few or too many; see also `examples_from_rows`.
    """
    rows, place = tables["train"].rows, tables["train"].place
    answer = target if target is not None else label
    if target is not None and labels is not None:
        raise TpvError("label words", expected="none beside a target column, which holds text", got=list(labels))
    values = column_values(rows, answer, place, "label" if target is None else "target")
    fields = _input_columns(tables["train"], text, template, answer)
    if target is None:
        words = _label_words(tables["train"], labels, values, label)
        kind: dict[str, Any] = {"labels": words, "metric": "f1" if len(words) == 2 else "macro_f1"}
    else:
        kind = {"output": "text", "metric": "token_f1", "cue": f"{target}:"}
    for field in fields:
        column_values(rows, field, place, "text")
    content = {
        "name": name,
        "fields": fields,
        "template": template or " ".join(f"{field}: {{{field}}}" for field in fields),
        "source": {
            "kind": "files",
            **({"label_column": label} if target is None else {"target_column": target}),
            **(files or {}),
        },
        **kind,
    }
    spec = build_spec(content, where=place.full)
    warn_of_labels(spec.labels, place.full)
    splits = {split: examples_from_rows(table.rows, spec, table.place) for split, table in tables.items()}
    if target is None:
        warn_of_rare_labels(splits, f"task {name!r}")
        warn_of_two_labels(splits, f"task {name!r}")
    origin = {f"{split} file": file for split, file in (files or {}).items()}
    where = origin or {"memory": "rows given in Python"}
    task = apply_split_rule(spec, splits, seed, where, hold_out_missing=hold_out)
    warn_of_shared_texts(task.splits, f"task {name!r}")
    return task


def _input_columns(train: DataTable, text: str | Sequence[str] | None, template: str | None, answer: str) -> list[str]:
    """The columns of the input: those named, those of the template, or the only one beside the answer's."""
    place = train.place
    fields = [text] if isinstance(text, str) else list(text or ())
    if not fields and template:
        try:
            fields = template_fields(template)
        except ValueError as error:
            raise TpvError(str(error)) from None
    if not fields:
        fields = [column for column in train.rows[0] if column != answer]
        if len(fields) > 1:  # a column that repeats the label, or an index, must not slip into the input
            raise TpvError(
                f"which columns of {place.full} are the input",
                expected="text column(s) named",
                got=f"columns {fields} beside {answer!r}",
                fix=f"for instance --text {fields[0]} (text={fields[0]!r})",
            )
    if answer in fields:
        raise TpvError(f"column {answer!r} of {place.full} cannot be both the input and its answer")
    return fields


def _label_words(train: DataTable, labels: Sequence[str] | None, values: Sequence[Any], label: str) -> tuple[str, ...]:
    """The label words: those given, those that the source names, or the values found."""
    if isinstance(labels, str):
        raise TpvError("label words", expected="a sequence of words", got=repr(labels))
    words = tuple(labels) if labels else train.words or infer_labels(values)
    where = f"label column {label!r} of {train.place.full}"
    if len(words) < 2:
        raise TpvError(f"{where} has too few values", expected="at least 2 label words", got=list(words))
    if len(words) > 1000 and not labels:
        raise TpvError(
            f"{where} has {len(words)} distinct values",
            expected="a class label",
            fix="name the label column, list the label words, or name the column as --target for a text task",
        )
    return words
