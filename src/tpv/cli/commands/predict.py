"""`tpv predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import LabelsOption, LengthOption, ModelOptions, Style, TaskOption
from tpv.cli.show import load_prompt, rendered, words
from tpv.errors import TpvError

ORDER = 40


def command(
    prompt: Annotated[Path, typer.Argument(help="Prompt file.")],
    model: ModelOptions,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to label; without any, the lines of standard input.")
    ] = None,
    task: TaskOption = None,
    style: Annotated[Style, typer.Option(help="The task's template.")] = Style.text,
    labels: LabelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line, with log-probabilities.")] = False,
    max_input_length: LengthOption = 256,
) -> None:
    """Label new texts with a prompt.

    With `--task` a text goes through the task's template, the parts of a pair separated by a tab; with `--labels` it is
    read as it is.

    Example: `tpv predict runs/sst2/prompt.safetensors --task mini/sst2 "the plot is never dull."`
    """
    from tpv.evaluation.predict import predict

    if (task is None) == (labels is None):
        raise TpvError("which labels", expected="either --task or --labels", got="both" if task else "neither")
    data = words(task, style.value, [word.strip() for word in str(labels).split(",")])
    rows = rendered(data, task, texts)
    loaded = load_prompt(prompt)
    table = predict(model.load(), data, loaded, rows, max_input_length=max_input_length)
    for row in table.to_pylist():
        if as_json:
            scores = dict(zip(data.labels, row.pop("log_probs"), strict=True))
            typer.echo(json.dumps(row | {"log_probs": scores}, ensure_ascii=False))
        else:
            typer.echo(f"{row['predicted'] or '(invalid)'}\t{row['source']}")
