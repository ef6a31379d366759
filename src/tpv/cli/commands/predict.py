"""`tpv predict`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpv.cli.files import FileOptions
from tpv.cli.options import LabelsOption, ModelOptions, NormalizeOption, Style, TaskOption, UsedLengthOption
from tpv.cli.tuned import Usable, usable
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.models import Backbone

ORDER = 40


def command(
    prompt: Annotated[Path, typer.Argument(help="Folder that `tpv tune` wrote, or a prompt file.")],
    model: ModelOptions,
    files: FileOptions,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to label; without any, the lines of standard input.")
    ] = None,
    task: TaskOption = None,
    style: Annotated[Style, typer.Option(help="The task's template.")] = Style.text,
    labels: LabelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line, with log-probabilities.")] = False,
    normalize: NormalizeOption = None,
    label_column: Annotated[str, typer.Option(help="What to call a file's column of labels.")] = "label",
    probability_column: Annotated[
        str, typer.Option(help="What to call a file's column of probabilities.")
    ] = "probability",
    max_input_length: UsedLengthOption = None,
) -> None:
    """Label new texts with a tuned prompt: the likeliest label of each, and its probability.

    A folder that `tpv tune` wrote knows its template, labels, model and calibrator. For a prompt file, name them: with
    `--task` a text goes through the task's template, the parts of a pair separated by a tab; with `--labels` it is read
    as it is.

    Examples: `tpv predict runs/stars "what a place"`

    `tpv predict runs/stars --input new.csv --output labelled.csv`

    `tpv predict runs/sst2/prompt.safetensors --task mini/sst2 "the plot is never dull."`
    """
    from tpv.evaluation.predict import predict

    used = usable(prompt, task, labels, style.value)
    used.length = max_input_length or used.length
    used.normalize = normalize.value if normalize else None
    if files.check(texts, as_json):
        _label_file(files, used, model, label_column, probability_column)
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
    for row in table.to_pylist():
        if as_json:
            scores = dict(zip(used.task.labels, row.pop("log_probs"), strict=True))
            typer.echo(json.dumps(row | {"log_probs": scores}, ensure_ascii=False))
        else:
            typer.echo(f"{row['predicted']}\t{row['probability']:.3f}\t{row['source']}")


def _label_file(
    files: FileOptions, used: Usable, model: ModelOptions, label_column: str, probability_column: str
) -> None:
    """Label the rows of a file into another."""
    from tpv.evaluation.predict import predict

    if label_column == probability_column:
        raise TpvError("--label-column and --probability-column", expected="different names", got=label_column)
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
        found = zip(table["predicted"].to_pylist(), table["probability"].to_pylist(), strict=True)
        return [{label_column: label, probability_column: sure} for label, sure in found]

    added = {label_column: str, probability_column: float}
    files.run(used.columns(files.text), answer, added, used.key(model), "labelled")
