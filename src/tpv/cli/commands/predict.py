"""`tpv predict`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from tpv.cli.options import (
    EncodingOption,
    LabelsOption,
    ModelOptions,
    NormalizeOption,
    Style,
    TaskOption,
    UsedLengthOption,
)
from tpv.cli.tuned import Usable, usable
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.models import Backbone

ORDER = 40


@dataclass
class FileOptions:
    """A file of rows in, the same rows with labels out."""

    title: ClassVar[str] = "Files"
    input: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="Label the rows of this file: csv, tsv, jsonl[.gz], parquet; - is stdin."),
    ] = None
    output: Annotated[Path | None, typer.Option("--output", help="Write them here, all columns kept; - is stdout.")] = (
        None
    )
    format: Annotated[str | None, typer.Option(help="Of stdin and stdout: csv, tsv or jsonl.")] = None
    text: Annotated[
        list[str] | None,
        typer.Option(help="Column of the text, where it is not called as in training (repeatable, in that order)."),
    ] = None
    label_column: Annotated[str, typer.Option(help="What to call the column of labels.")] = "label"
    probability_column: Annotated[str, typer.Option(help="What to call the column of probabilities.")] = "probability"
    encoding: EncodingOption = None


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
    if (files.input is None) != (files.output is None):
        raise TpvError("files to label", expected="both --input and --output", got="one of them")
    if files.input is not None:
        if texts or as_json:
            raise TpvError("what to label", expected="texts, or --input FILE", got="both" if texts else "--json")
        _label_file(files, used, model)
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


def _label_file(files: FileOptions, used: Usable, model: ModelOptions) -> None:
    """Label the rows of a file into another."""
    import sys

    from tpv.evaluation.label_file import Place, label_file, same_file
    from tpv.evaluation.predict import predict
    from tpv.progress import counting_bar
    from tpv.tasks.formats import as_format

    assert files.input is not None
    assert files.output is not None
    if same_file(files.input, files.output):
        raise TpvError("--output", expected="another file than --input", got=str(files.output))
    kind = as_format(files.format)
    source = Place.of(files.input, sys.stdin.buffer, kind, "standard input")
    target = Place.of(files.output, sys.stdout.buffer, kind, "standard output")
    if files.label_column == files.probability_column:
        raise TpvError("--label-column and --probability-column", expected="different names", got=files.label_column)
    fields = used.columns(files.text)
    backbone: Backbone | None = None

    def answer(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        nonlocal backbone
        backbone = backbone or model.load(tuned=used.model)
        table = predict(
            backbone,
            used.task,
            used.prompt,
            rows if used.template else [row[next(iter(fields))] for row in rows],
            max_input_length=used.length,
            normalize=used.normalize,
            calibrator=used.calibrator,
        )
        found = zip(table["predicted"].to_pylist(), table["probability"].to_pylist(), strict=True)
        return [{files.label_column: label, files.probability_column: sure} for label, sure in found]

    added = {files.label_column: str, files.probability_column: float}
    choice = model.choice(used.model).model_dump()
    calibrator = used.calibrator.model_dump() if used.calibrator else None
    key = [used.prompt.digest, used.task.spec.model_dump(mode="json"), used.length, used.normalize, calibrator, choice]
    with counting_bar("labelling", None) as advance:
        counts = label_file(source, target, fields, answer, added, key=key, encoding=files.encoding, advance=advance)
    done = f", {counts.resumed} of them done before" if counts.resumed else ""
    typer.echo(f"labelled {counts.rows - counts.empty} of {counts.rows} rows{done}: {target.name}", err=True)
    if counts.empty:
        have = "row has" if counts.empty == 1 else "rows have"
        typer.echo(f"warning: {counts.empty} {have} no text and got no label", err=True)
