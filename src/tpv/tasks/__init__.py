"""Tasks by name, by task file, or straight from data files."""

import os
from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from tpv import mini
from tpv.errors import TpvError, did_you_mean
from tpv.tasks.formats import checked_format, other_kind
from tpv.tasks.hub import DATA_DIR, split_sizes, task_from_data_dir, task_from_hub
from tpv.tasks.local import is_data_file, task_from_files
from tpv.tasks.own import own_task
from tpv.tasks.spec import GeneratedSource, HubSource, LocalSource, TaskSpec, build_spec, read_spec, render, styled
from tpv.tasks.task import SPLITS, Example, Task, concatenate

__all__ = [
    "SPLITS",
    "Example",
    "Task",
    "TaskSpec",
    "concatenate",
    "labels_only",
    "load_task",
    "split_sizes",
    "task_specs",
    "without_rows",
]


@cache
def task_specs() -> dict[str, TaskSpec]:
    """Every task that comes with tpv, by name: those of the hub, then the miniature ones, each in name order."""
    with as_file(files("tpv.tasks") / "data") as folder:
        specs = [read_spec(path) for path in sorted(folder.rglob("*.toml"))]
    return {spec.name: spec for spec in specs}


@cache
def _generated(spec: TaskSpec) -> Task:
    """The task of a spec whose rows are made in code."""
    assert isinstance(spec.source, GeneratedSource)
    if spec.output == "text" and spec.source.generator in mini.TEXTS:
        return _generated_text(spec, spec.source.generator)
    if spec.source.generator not in mini.GENERATORS:
        raise TpvError(
            f"task {spec.name!r} names an unknown generator {spec.source.generator!r}",
            fix=did_you_mean(spec.source.generator, mini.GENERATORS),
        )
    splits = mini.splits(spec.source.generator)
    columns, most = splits["train"][0][0], max(label for _, label in splits["train"])
    if set(spec.fields) != set(columns) or len(spec.labels) <= most:
        raise TpvError(
            f"task {spec.name!r} does not fit its generator {spec.source.generator!r}",
            expected=f"fields {sorted(columns)} and {most + 1} labels",
            got=f"fields {sorted(spec.fields)} and {len(spec.labels)} labels",
        )
    return Task(
        spec,
        {
            split: tuple(
                Example(f"{split}:{i}", render(spec.template, fields), spec.labels[label], label, spec.cue)
                for i, (fields, label) in enumerate(rows)
            )
            for split, rows in splits.items()
        },
        {"generator": spec.source.generator},
    )


def _generated_text(spec: TaskSpec, generator: str) -> Task:
    """The task of a spec whose texts are made in code."""
    return Task(
        spec,
        {
            split: tuple(
                Example(f"{split}:{i}", render(spec.template, fields), target, 0, spec.cue)
                for i, (fields, target) in enumerate(rows)
            )
            for split, rows in mini.text_splits(generator).items()
        },
        {"generator": generator},
    )


def _only_for_hub(name: object, data_dir: str | Path | None, authors_splits: bool) -> None:
    """Refuse what only a task of the hub has."""
    options = {"data_dir": data_dir is not None, "authors_splits": authors_splits}
    if any(options.values()):
        raise TpvError(
            f"task {str(name)!r} is not one of the hub's",
            got=f"options for those: {', '.join(option for option, given in options.items() if given)}",
            fix="drop them",
        )


def _only_for_data(name: object, data_dir: str | Path | None, authors_splits: bool, style: str) -> None:
    """Refuse for own data what it does not have."""
    _only_for_hub(name, data_dir, authors_splits)
    if style != "text":
        raise TpvError(
            f"style {style!r} for {str(name)[:60]!r}",
            expected="a hub task or a task file",
            fix="for own data, write the instruction as the template",
        )


def _from_hub(spec: TaskSpec, data_dir: str | Path | None, *, seed: int, authors_splits: bool) -> Task:
    folder = data_dir if data_dir is not None else os.environ.get(DATA_DIR) or None
    if folder is None and isinstance(spec.source, LocalSource):
        raise TpvError(
            f"task {spec.name!r} is on no hub",
            expected=f"a folder with {spec.name}/train.*, validation.* and test.* in it, from {spec.source.origin}",
            fix=f"set {DATA_DIR}, or give --data-dir (data_dir)",
        )
    if folder is None:
        return task_from_hub(spec, seed=seed, authors_splits=authors_splits)
    if authors_splits:
        raise TpvError(
            f"the splits of task {spec.name!r}",
            expected="either the authors' (of the hub's data), or those of a local copy",
            got=f"authors_splits with {f'{DATA_DIR}=' if data_dir is None else ''}{str(folder)!r}",
            fix="a local copy's splits are used as they are",
        )
    return task_from_data_dir(spec, Path(folder).expanduser())


def load_task(
    name: object,
    *,
    text: str | Sequence[str] | None = None,
    label: str = "label",
    labels: Sequence[str] | None = None,
    target: str | None = None,
    template: str | None = None,
    validation: object = None,
    test: object = None,
    encoding: str | None = None,
    task_name: str | None = None,
    hold_out: bool = True,
    seed: int = 0,
    data_dir: str | Path | None = None,
    authors_splits: bool = False,
    style: str = "text",
) -> Task:
    """Load a task.

    Args:
        name: a name from `tpv tasks` (`"mini/sst2"`, `"sst2"`), the path of a task file (`.toml`), of a data
            file (`.csv .tsv .jsonl .jsonl.gz .json .parquet`), or of a folder with one such file per split. A `Path`
            is always a path, a string that is both a name. Or the data itself: a pandas DataFrame, a
            `datasets.Dataset`, or either by split in a `DatasetDict` or any other mapping.
        text: for own data, the input column or columns; may be left out where there is only one beside
            the label, or where the template names them.
        label: for own data, the label column; ids or words.
        labels: for own data, the label words in id order; by default the names of a `ClassLabel`, or the values found.
        target: for own data, the column of the text to write: the task's output is text then, and it has no labels.
        template: for own data, the input text, columns in braces.
        validation: for own data, that split's file, frame or data set; without one a tenth of the training rows is
            held out.
        test: the same for the test split.
        encoding: for own data, that of the files, where they are not UTF-8: `"utf-16"`, `"latin-1"`.
        task_name: for own data, what to call the task; by default the file's or folder's name, or "data".
        hold_out: for own data, whether rows are held out for splits that are not given; else those are empty.
        seed: of the draws that make the splits.
        data_dir: for tasks of the hub, a folder with local copies, one `<task>/{train,validation,test}` file a
            split in the hub's columns; they are used as they are. By default that of the environment variable
            TPV_DATA_DIR; without either the data set is downloaded.
        authors_splits: for tasks of the hub, the splits of the authors' code where it differs from their paper.
        style: which of its templates a task goes through: `text`, or `instruct`, an instruction in plain words, which
            tasks of the hub have, and task files with a line `instruct`.

    Raises:
        TpvError: unknown name, unreadable file, missing column, label outside the list, no rows, no network, no
            template of that style.
    """
    own: dict[str, Any] = {
        "text": text,
        "label": label,
        "labels": labels,
        "target": target,
        "template": template,
        "validation": validation,
        "test": test,
        "encoding": encoding,
        "name": task_name,
        "hold_out": hold_out,
        "seed": seed,
    }
    if not isinstance(name, str | os.PathLike):
        _only_for_data(type(name).__name__, data_dir, authors_splits, style)
        return own_task(name, **own)
    path = Path(name)
    known_spec = task_specs().get(name) if isinstance(name, str) else None
    if known_spec or path.suffix == ".toml":
        options = {
            "text": text,
            "labels": labels,
            "target": target,
            "template": template,
            "validation": validation,
            "test": test,
            "encoding": encoding,
            "task_name": task_name,
            "hold_out": None if hold_out else False,
            "label": None if label == "label" else label,
        }
        given = [option for option, value in options.items() if value is not None]
        if given:
            raise TpvError(
                f"task {str(name)!r} says itself what its data is",
                got=f"options for data files: {', '.join(given)}",
                fix="drop them, or write them into the task file",
            )
        spec = styled(known_spec or read_spec(path), style)
        if isinstance(spec.source, HubSource | LocalSource):
            return _from_hub(spec, data_dir, seed=seed, authors_splits=authors_splits)
        _only_for_hub(name, data_dir, authors_splits)
        if isinstance(spec.source, GeneratedSource):
            return _generated(spec)
        return task_from_files(spec, path.parent, seed=seed)
    _only_for_data(name, data_dir, authors_splits, style)
    try:
        known = path.is_dir() or is_data_file(path)
    except (OSError, ValueError) as error:
        raise TpvError(f"task {str(name)[:60]!r}… cannot be read", got=getattr(error, "strerror", str(error))) from None
    if known:
        return own_task(path, **own)
    if other_kind(path):
        checked_format(path)
    raise TpvError(f"unknown task {str(name)!r}", fix=did_you_mean(str(name), task_specs()))


def without_rows(name: str, *, style: str = "text") -> Task:
    """A task's template and label words: enough to predict with, and nothing is downloaded.

    Args:
        style: of its template, see `load_task`.

    Raises:
        TpvError: see `load_task`, which data files go through, since their label words come from their rows.
    """
    known = task_specs().get(name)
    if known or name.endswith(".toml"):
        return Task(styled(known or read_spec(Path(name)), style), {})
    return load_task(name, style=style)


def labels_only(labels: Sequence[str]) -> Task:
    """A task that has label words and no examples: enough to predict with."""
    content = {
        "name": "labels",
        "fields": ["text"],
        "template": "{text}",
        "labels": tuple(labels),
        "source": {"kind": "files"},
    }
    return Task(build_spec(content, where="list of labels"), {})
