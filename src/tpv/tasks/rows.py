"""From the rows of a table to examples: texts, labels and numbers, each checked."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpv.errors import TpvError, did_you_mean
from tpv.tasks.spec import FileSource, HubSource, LocalSource, TaskSpec, render
from tpv.tasks.task import Example

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


def column_values(rows: Sequence[dict[str, Any]], name: str, place: Place, kind: str) -> list[Any]:
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
        TpvError: bytes, a list or object, or text that cannot be written as UTF-8.
    """
    if isinstance(value, bytes | bytearray):
        raise TpvError(f"{where}: column {column!r} is not text", got="bytes", fix="decode them first")
    if isinstance(value, list | tuple | dict | set) or hasattr(value, "__array__"):
        raise TpvError(
            f"{where}: column {column!r} is not text",
            got=f"a {'object' if isinstance(value, dict) else 'list'}",
            fix="make it one text first",
        )
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
    assert isinstance(source, FileSource | HubSource | LocalSource)
    hub = source if isinstance(source, HubSource) else None
    named = {field: hub.columns.get(field, field) if hub else field for field in spec.fields}
    columns = {field: column_values(rows, column, place, "text") for field, column in named.items()}
    for field, mark in (hub.joined if hub else {}).items():
        columns[field] = [mark.join(value) if isinstance(value, list) else value for value in columns[field]]
    text = spec.output == "text"
    labels = _gold_values(rows, source, place) if text else column_values(rows, source.label_column, place, "label")
    numbers = spec.numbers
    examples = []
    for index, label in enumerate(labels):
        number = start + index
        where = f"{place.row} row {number + 1}"
        if hub and not text and _label_text(label) == UNLABELLED not in spec.labels:
            continue
        fields = {name: _text(values[index], where, named[name]) for name, values in columns.items()}
        # nobody can mend a row of the hub, and its template says more than the fields do
        if not hub and not any(text.strip() for text in fields.values()):
            raise TpvError(f"{where}: the text is empty", fix="fill in or drop such rows")
        name, said = f"{place.id}:{number}", render(spec.template, fields)
        if text:
            answers = _gold_texts(label, spec, where, source.target_column)
            if answers:  # without one, a row of the hub has no gold answer
                more = answers if len(answers) > 1 else ()
                examples.append(Example(name, said, answers[0], 0, spec.cue, None, more))
            continue
        own = None
        if numbers:
            label_id, own = _nearest(label, numbers, where)
        else:
            label_id = _label_id(label, spec.labels, where, hub.label_values if hub else ())
        examples.append(Example(name, said, spec.labels[label_id], label_id, spec.cue, own))
    return examples


def _gold_values(
    rows: Sequence[dict[str, Any]], source: FileSource | HubSource | LocalSource, place: Place
) -> list[Any]:
    """What a text task's rows hold as gold texts: of the target column, a dot in whose name goes into a column of
    objects, and of the column of further answers, where there is one."""
    column = source.target_column
    outer, dot, inner = column.partition(".")
    if not rows or column in rows[0] or not dot:
        values = column_values(rows, column, place, "target")
    else:
        objects = column_values(rows, outer, place, "target")
        values = [value.get(inner) if isinstance(value, dict) else None for value in objects]
    if not isinstance(source, HubSource) or source.answers_column is None:
        return values
    more = column_values(rows, source.answers_column, place, "answers")
    return [[one, *(others if others is not None else [])] for one, others in zip(values, more, strict=True)]


def _gold_texts(value: Any, spec: TaskSpec, where: str, column: str) -> tuple[str, ...]:
    """The texts that are right for a row, each once: one, or several where the column holds a list of them.

    Raises:
        TpvError: none, but in rows of the hub; or one that is no text.
    """
    several = isinstance(value, list | tuple) or (hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1)
    texts = [_text(item, where, column).strip() for item in (value if several else [value])]
    found = tuple(dict.fromkeys(text for text in texts if text))
    if found:
        return found
    if spec.no_answer is not None:
        return (spec.no_answer,)
    if isinstance(spec.source, HubSource):
        return ()
    raise TpvError(f"{where}: the target in column {column!r} is empty", fix="fill in or drop such rows")


def infer_labels(values: Sequence[Any]) -> tuple[str, ...]:
    """Label words from a column: its distinct values as text, whole numbers first and in numeric order."""
    words = {_label_text(value) for value in values} - {""}
    numbers = {word for word in words if word.isascii() and word.removeprefix("-").isdigit()}
    return (*sorted(numbers, key=int), *sorted(words - numbers))
