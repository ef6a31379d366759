"""Tasks by name, by task file, or straight from data files."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from tpv import mini
from tpv.errors import TpvError, did_you_mean
from tpv.tasks.local import is_data_file, task_from_files, task_from_path
from tpv.tasks.spec import GeneratedSource, TaskSpec, build_spec, read_spec, render
from tpv.tasks.task import SPLITS, Example, Task

__all__ = ["SPLITS", "Example", "Task", "TaskSpec", "labels_only", "load_task", "task_specs"]


@cache
def task_specs() -> dict[str, TaskSpec]:
    """Every task that comes with tpv, by name, in name order."""
    with as_file(files("tpv.tasks") / "data") as folder:
        specs = [read_spec(path) for path in sorted(folder.rglob("*.toml"))]
    return {spec.name: spec for spec in specs}


@cache
def _generated(spec: TaskSpec) -> Task:
    """The task of a spec whose rows are made in code."""
    assert isinstance(spec.source, GeneratedSource)
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
                Example(f"{split}:{i}", render(spec.template, fields), spec.labels[label], label)
                for i, (fields, label) in enumerate(rows)
            )
            for split, rows in splits.items()
        },
    )


def load_task(
    name: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    label: str = "label",
    labels: Sequence[str] | None = None,
    template: str | None = None,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    task_name: str | None = None,
    seed: int = 0,
) -> Task:
    """Load a task.

    Args:
        name: a name from `tpv tasks` (`"mini/sst2"`), the path of a task file (`.toml`), of a data
            file (`.csv .tsv .jsonl .jsonl.gz .parquet`), or of a folder with one such file a split.
        text: for data files, the input column or columns; may be left out where there is only one beside
            the label, or where the template names them.
        label: for data files, the label column; ids or words.
        labels: for data files, the label words in id order; by default the values found.
        template: for data files, the input text, columns in braces.
        validation: a data file for that split; without one a tenth of the training rows is held out.
        test: the same for the test split.
        task_name: for data files, what to call the task; by default the file's or folder's name.
        seed: of the held-out draw.

    Raises:
        TpvError: unknown name, unreadable file, missing column, label outside the list, no rows.
    """
    path = Path(name)
    if str(name) in task_specs() or path.suffix == ".toml":
        options = {"text": text, "labels": labels, "template": template, "validation": validation, "test": test,
                   "task_name": task_name, "label": None if label == "label" else label}  # fmt: skip
        given = [option for option, value in options.items() if value is not None]
        if given:
            raise TpvError(
                f"task {str(name)!r} says itself what its data is", got=f"options for data files: {', '.join(given)}",
                fix="drop them, or write them into the task file",
            )  # fmt: skip
        spec = task_specs().get(str(name)) or read_spec(path)
        return _generated(spec) if isinstance(spec.source, GeneratedSource) else task_from_files(
            spec, path.parent, seed=seed
        )  # fmt: skip
    try:
        known = path.is_dir() or is_data_file(path)
    except (OSError, ValueError) as error:
        raise TpvError(f"task {str(name)[:60]!r}… cannot be read", got=getattr(error, "strerror", str(error))) from None
    if known:
        return task_from_path(
            path, text=text, label=label, labels=labels, template=template, name=task_name, seed=seed,
            validation=Path(validation) if validation else None, test=Path(test) if test else None,
        )  # fmt: skip
    raise TpvError(f"unknown task {str(name)!r}", fix=did_you_mean(str(name), task_specs()))


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
