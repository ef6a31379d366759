"""What scikit-learn's users call X and y, as rows of a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from tpv.errors import TpvError
from tpv.tasks import Task
from tpv.tasks.local import DataTable, task_from_tables
from tpv.tasks.rows import Place

TEXT = "text"  # what a list of texts is called in a template
NAME = "data"  # of the task, as of any data in memory


class InputError(TpvError, ValueError):
    """X, y or a parameter that cannot be used; also a ValueError, which scikit-learn's tools expect."""


@contextmanager
def as_refusals() -> Iterator[None]:
    """scikit-learn's own refusals as tpv's."""
    try:
        yield
    except TpvError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from None


def checked(estimator: Any, X: Any, y: Any = None, *, fit: bool) -> tuple[list[dict[str, str]], NDArray[Any] | None]:
    """The rows of X, by field, and y where it is fitted to; the estimator gets `table_`, whether X is one.

    X is a list, array or Series of texts, whose one field is `text`; or a table, whose fields are a DataFrame's columns
    or else x0, x1, …

    Raises:
        InputError: another shape, missing values, columns or dimensions that are not those of training, no y.
    """
    if isinstance(X, str) or (isinstance(X, Mapping) and not issparse(X)):
        raise InputError("X", expected="a list of texts, or a table", got="one text", fix="put it in a list")
    table = _is_table(X)
    if not fit and table != estimator.table_:
        known = "a table, as in fit" if estimator.table_ else "a list of texts, as in fit"
        got = "a table" if table else "one dimension. Reshape your data"
        raise InputError("X", expected=known, got=got)
    how: dict[str, Any] = {"dtype": None, "ensure_2d": table, "ensure_min_samples": 2 if fit else 1}
    gold: NDArray[Any] | None = None
    with as_refusals():
        if fit:
            values, gold = validate_data(estimator, X, y, **how)
            check_classification_targets(gold)
        else:
            values = validate_data(estimator, X, reset=False, **how)
    if fit:
        estimator.table_ = table
    names = [TEXT]
    if table:
        own = getattr(estimator, "feature_names_in_", None)
        names = [f"x{i}" for i in range(values.shape[1])] if own is None else list(map(str, own))
    rows = values.tolist() if table else [[value] for value in values.tolist()]
    for number, row in enumerate(rows, 1):
        for name, value in zip(names, row, strict=True):
            if value is None or isinstance(value, bytes | list | tuple | dict):
                got = "a missing value" if value is None else type(value).__name__
                raise InputError(f"row {number} of X, {name}", expected="a text", got=got)
    return [{name: str(value) for name, value in zip(names, row, strict=True)} for row in rows], gold


def _is_table(X: Any) -> bool:
    """Whether X has two dimensions."""
    shape = getattr(X, "shape", None)
    if shape is None:
        with as_refusals():
            shape = np.asarray(X, dtype=None if hasattr(X, "__array__") else object).shape
    if len(shape) not in (1, 2):
        raise InputError("X", expected="a list of texts, or a table", got=f"{len(shape)} dimensions")
    return len(shape) == 2


def encoded(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes in y, sorted, and the place of each value among them.

    Raises:
        InputError: fewer than two classes.
    """
    with as_refusals():
        encoder = LabelEncoder().fit(y)
    if len(encoder.classes_) < 2:
        raise InputError("y", expected="at least two classes", got=f"one class, {encoder.classes_.tolist()}")
    return encoder.classes_, encoder.transform(y)


def words_of(classes: NDArray[Any], given: object) -> list[str]:
    """The word that the model says for each class: the class itself, or as given.

    Args:
        given: words in the order of the sorted classes, or a mapping from classes to words.

    Raises:
        InputError: words that do not fit.
    """
    values = classes.tolist()
    if given is None:
        whole = [int(one) if isinstance(one, float) and one.is_integer() else one for one in values]
        return [str(one) for one in whole]
    if isinstance(given, Mapping):
        missing = [one for one in values if one not in given]
        if missing:
            raise InputError("label_words", expected=f"a word for each of {values}", got=f"none for {missing}")
        return [str(given[one]) for one in values]
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != len(values):
        raise InputError("label_words", expected=f"{len(values)} words, for {values}", got=repr(given)[:60])
    return list(map(str, given))


def task_of(rows: Sequence[Mapping[str, str]], labels: Sequence[str], words: list[str], template: str | None) -> Task:
    """The task of labelled rows, all to train on; what `tpv.load_task` makes of the same frame."""
    column = "label"
    while column in rows[0]:
        column += "_"
    table = [{**row, column: label} for row, label in zip(rows, labels, strict=True)]
    place = Place("train data", "train data", "train")
    return task_from_tables(
        {"train": DataTable(table, place)},
        text=list(rows[0]),
        label=column,
        labels=words,
        template=template,
        name=NAME,
        hold_out=False,
    )
