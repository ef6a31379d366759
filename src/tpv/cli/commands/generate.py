"""`tpv generate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from tpv.cli.files import FileOptions
from tpv.cli.options import ModelOptions, TaskOption, UsedLengthOption
from tpv.cli.tuned import Usable, usable
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.models import Backbone

ORDER = 45


@dataclass
class DecodingOptions:
    """How text is generated."""

    title: ClassVar[str] = "Decoding"
    max_new_tokens: Annotated[
        int | None, typer.Option(help="At most so many tokens.  [default: the task's max_target_length]")
    ] = None
    num_beams: Annotated[int, typer.Option(help="1 is greedy decoding, more is beam search.")] = 1
    do_sample: Annotated[bool, typer.Option("--sample", help="Draw each token from the model's distribution.")] = False
    temperature: Annotated[float, typer.Option(help="Of that distribution.")] = 1.0
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0

    def values(self) -> dict[str, Any]:
        """The arguments of `tpv.generate`."""
        return vars(self)


def command(
    prompt: Annotated[Path, typer.Argument(help="Folder that `tpv tune` wrote, or a prompt file.")],
    model: ModelOptions,
    decoding: DecodingOptions,
    files: FileOptions,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to answer; without any, the lines of standard input.")
    ] = None,
    task: TaskOption = None,
    column: Annotated[str, typer.Option(help="What to call a file's column of answers.")] = "generated",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    max_input_length: UsedLengthOption = None,
) -> None:
    """Write what the model answers to new texts with a tuned prompt.

    A folder that `tpv tune` wrote knows its template and model. With `--task` a text goes through that task's template;
    with neither it is read as it is. One text is printed as it is written.

    Examples: `tpv generate runs/summaries "a long article"`

    `tpv generate runs/summaries --input new.csv --output answered.csv`
    """
    used = usable(prompt, task, None, "text", needs_labels=False)
    used.length = max_input_length or used.length
    if files.check(texts, as_json):
        _answer_file(files, used, model, decoding, column)
        return
    from tpv.evaluation.generate import generate

    rows = used.rows(texts)
    backbone = model.load(tuned=used.model)
    live = len(rows) == 1 and not as_json and decoding.num_beams == 1

    def tell(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    table = generate(
        backbone,
        used.task,
        used.one_prompt,
        rows,
        max_input_length=used.length,
        tell=tell if live else None,
        **decoding.values(),
    )
    for row in table.to_pylist():
        if as_json:
            typer.echo(json.dumps(row, ensure_ascii=False))
        else:
            typer.echo("" if live else row["generated"])


def _answer_file(files: FileOptions, used: Usable, model: ModelOptions, decoding: DecodingOptions, column: str) -> None:
    """Answer the rows of a file."""
    from tpv.evaluation.generate import generate

    if decoding.do_sample:
        raise TpvError("--sample", expected="greedy decoding or beams for a file, which can be resumed", got="draws")
    backbone: Backbone | None = None

    def answer(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        nonlocal backbone
        backbone = backbone or model.load(tuned=used.model)
        table = generate(
            backbone, used.task, used.one_prompt, used.whole(rows), max_input_length=used.length, **decoding.values()
        )
        return [{column: text} for text in table["generated"].to_pylist()]

    key = [*used.key(model), decoding.values()]
    files.run(used.columns(files.text), answer, {column: str}, key, "answered")
