"""`tpv predict`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from tpv.cli.files import FileOptions
from tpv.cli.options import LabelsOption, ModelOptions, NormalizeOption, Style, TaskOption, UsedLengthOption
from tpv.cli.served import Served, ServerOption
from tpv.cli.tuned import Usable, usable
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.models import Backbone

ORDER = 40


@dataclass
class ColumnOptions:
    """What answers are called in a file."""

    title: ClassVar[str] = "Files"
    label_column: Annotated[str, typer.Option(help="What to call a file's column of labels.")] = "label"
    probability_column: Annotated[str, typer.Option(help="What to call a file's column of probabilities.")] = (
        "probability"
    )

    @property
    def added(self) -> dict[str, type]:
        """Both, with their types.

        Raises:
            TpvError: they are the same.
        """
        if self.label_column == self.probability_column:
            raise TpvError("--label-column and --probability-column", expected="different names", got=self.label_column)
        return {self.label_column: str, self.probability_column: float}

    def filled(self, table: Any) -> list[dict[str, Any]]:
        """The columns of the rows of a table of predictions."""
        found = zip(table["predicted"].to_pylist(), table["probability"].to_pylist(), strict=True)
        return [{self.label_column: label, self.probability_column: sure} for label, sure in found]


def command(
    prompt: Annotated[
        Path, typer.Argument(help="Folder that `tpv tune` wrote, or a prompt file; of a server, a name.")
    ],
    model: ModelOptions,
    files: FileOptions,
    columns: ColumnOptions,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to label; without any, the lines of standard input.")
    ] = None,
    task: TaskOption = None,
    style: Annotated[Style, typer.Option(help="The task's template.")] = Style.text,
    labels: LabelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line, with log-probabilities.")] = False,
    normalize: NormalizeOption = None,
    max_input_length: UsedLengthOption = None,
    server: ServerOption = None,
) -> None:
    """Label new texts with a tuned prompt: the likeliest label of each, and its probability.

    A folder that `tpv tune` wrote knows its template, labels, model and calibrator. For a prompt file, name them: with
    `--task` a text goes through the task's template, the parts of a pair separated by a tab; with `--labels` it is read
    as it is. With `--server` a server that `tpv serve` runs answers, with a prompt of its library or an expression.

    Examples: `tpv predict runs/stars "what a place"`

    `tpv predict runs/stars --input new.csv --output labelled.csv`

    `tpv predict runs/sst2/prompt.safetensors --task mini/sst2 "the plot is never dull."`

    `tpv predict --server http://127.0.0.1:8000 sst2 "the plot is never dull."`
    """
    if server is not None:
        given = {
            "--labels": labels is not None,
            "--style": style is not Style.text,
            "--normalize": normalize is not None,
        }
        given |= {"--max-input-length": max_input_length is not None, "options of the model": model != ModelOptions()}
        with Served.of(server, prompt, task, given) as served:
            _ask(served, files, columns, texts, as_json)
        return
    from tpv.evaluation.predict import predict

    used = usable(prompt, task, labels, style.value)
    used.length = max_input_length or used.length
    used.normalize = normalize.value if normalize else None
    if files.check(texts, as_json):
        _label_file(files, used, model, columns)
        return
    rows = used.rows(texts)
    backbone = model.load(tuned=used.model)
    table = predict(
        backbone,
        used.task,
        used.prompt,
        rows,
        max_input_length=used.length,
        normalize=used.normalize,
        calibrator=used.calibrator,
    )
    _print(table, used.task.labels, as_json)


def _print(table: Any, labels: Sequence[str], as_json: bool) -> None:
    """A line for each row."""
    for row in table.to_pylist():
        if as_json:
            scores = dict(zip(labels, row.pop("log_probs"), strict=True))
            typer.echo(json.dumps(row | {"log_probs": scores}, ensure_ascii=False))
        else:
            typer.echo(f"{row['predicted']}\t{row['probability']:.3f}\t{row['source']}")


def _ask(served: Served, files: FileOptions, columns: ColumnOptions, texts: list[str] | None, as_json: bool) -> None:
    """Let a server label texts, or the rows of a file."""
    if files.check(texts, as_json):
        files.run(
            served.columns(files.text),
            lambda rows: columns.filled(served.predict(rows)),
            columns.added,
            served.key(),
            "labelled",
        )
        return
    table = served.predict(served.rows(texts))
    _print(table, served.labels_of(table), as_json)


def _label_file(files: FileOptions, used: Usable, model: ModelOptions, columns: ColumnOptions) -> None:
    """Label the rows of a file into another."""
    from tpv.evaluation.predict import predict

    added = columns.added
    backbone: Backbone | None = None

    def answer(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        nonlocal backbone
        backbone = backbone or model.load(tuned=used.model)
        table = predict(
            backbone,
            used.task,
            used.prompt,
            used.whole(rows),
            max_input_length=used.length,
            normalize=used.normalize,
            calibrator=used.calibrator,
        )
        return columns.filled(table)

    files.run(used.columns(files.text), answer, added, used.key(model), "labelled")
