"""A user's own data: files, pandas DataFrames and what `datasets` has, all through one way into a task.

Frames and data sets are told by what they can do, so that neither library is imported here.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tpv.errors import TpvError, did_you_mean
from tpv.tasks.local import DataTable, default_name, files_of, read_table, task_from_tables
from tpv.tasks.rows import Place
from tpv.tasks.task import SPLITS, Task

KINDS = "a pandas DataFrame, a datasets.Dataset, or a mapping of either by split"


def is_frame(source: object) -> bool:
    """Whether this has the methods of a pandas DataFrame that are used here."""
    return hasattr(source, "itertuples") and hasattr(source, "columns")


def is_dataset(source: object) -> bool:
    """Whether this has the methods of a `datasets.Dataset` that are used here, and an end, which a stream may lack."""
    return all(hasattr(source, name) for name in ("to_list", "features", "__len__"))


def by_split(source: object) -> dict[str, Any]:
    """A frame or data set as the training split of a mapping; a mapping (a `DatasetDict` too) as it is.

    Raises:
        TpvError: something else, a split of another name, or no training split.
    """
    if is_frame(source) or is_dataset(source):
        return {"train": source}
    if not isinstance(source, Mapping):
        raise TpvError("a task to load", expected=f"a name, a path, {KINDS}", got=type(source).__name__)
    for split in source:
        if split not in SPLITS:
            hint = did_you_mean(str(split), SPLITS)
            raise TpvError(f"unknown split {split!r} of the data", fix=f"{hint}; pass only splits of these names")
    if "train" not in source:
        raise TpvError("the data has no training split", expected="one called 'train'", got=list(source))
    return dict(source)


def own_task(
    source: object,
    *,
    validation: object = None,
    test: object = None,
    encoding: str | None = None,
    name: str | None = None,
    label: str = "label",
    labels: Sequence[str] | None = None,
    **how: Any,
) -> Task:
    """A task from a path (a data file, or a folder with one a split), a frame, a data set, or a mapping of them.

    Args:
        validation: that split's data, a path or a frame, in place of what `source` has for it.
        test: the same of the test split.
        encoding: of the files, where they are not UTF-8.
        name: what to call the task; by default as the file, or "data".
        how: see `task_from_tables`, as `label` and `labels`.

    Raises:
        TpvError: see `by_split`, `files_of`, `table_of`, `read_table` and `task_from_tables`.
    """
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    parts: dict[str, Any] = by_split(source) if path is None else dict(files_of(path))
    parts |= {split: given for split, given in (("validation", validation), ("test", test)) if given is not None}
    parts = {split: Path(part) if isinstance(part, str | os.PathLike) else part for split, part in parts.items()}
    tables = {
        split: read_table(part, encoding) if isinstance(part, Path) else table_of(part, split, label, labels)
        for split, part in parts.items()
    }
    files = {split: str(part.resolve()) for split, part in parts.items() if isinstance(part, Path)}
    name = name or (default_name(path) if path else "data")
    return task_from_tables(tables, name=name, files=files, label=label, labels=labels, **how)


def table_of(source: object, split: str, label: str, labels: Sequence[str] | None) -> DataTable:
    """The rows of a frame or data set. A `ClassLabel` becomes its name, or the word of `labels` for its id.

    Args:
        split: what the rows are called in messages and ids.
        label: the label column.
        labels: the user's label words in id order, if any.

    Raises:
        TpvError: neither of the two, repeated column names, another number of label words than classes, no rows.
    """
    place = Place(f"{split} data", f"{split} data", split)
    words: tuple[str, ...] = ()
    if is_frame(source):
        rows = _frame_rows(source, place)
    elif is_dataset(source):
        rows = source.to_list()  # type: ignore[attr-defined]
        words = tuple(getattr(source.features.get(label), "names", None) or ())  # type: ignore[attr-defined]
        if words and labels and len(labels) != len(words):
            raise TpvError(
                f"label words for the classes of {label!r}",
                expected=f"{len(words)}, for {list(words)}",
                got=list(labels),
            )
        words = tuple(labels or words) if words else ()
        for row in rows if words else ():
            row[label] = _word(row[label], words)
    else:
        raise TpvError(f"{place.full}", expected="a pandas DataFrame or a datasets.Dataset", got=type(source).__name__)
    if not rows:
        raise TpvError(f"{place.full} has no rows", expected="labelled examples")
    return DataTable(rows, place, words)


def _frame_rows(frame: Any, place: Place) -> list[dict[str, Any]]:
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise TpvError(f"{place.full} has columns of the same name", got=names, fix="rename them")
    return [dict(zip(names, values, strict=True)) for values in frame.itertuples(index=False, name=None)]


def _word(value: object, words: Sequence[str]) -> object:
    """The label word of a class; -1 is the library's "no label"."""
    return words[value] if isinstance(value, int) and 0 <= value < len(words) else None
