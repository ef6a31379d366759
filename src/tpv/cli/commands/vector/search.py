"""`tpv vector search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import LengthOption, ModelOptions, Split, TaskOptions
from tpv.cli.show import console, load_prompt, load_vector, save
from tpv.evaluation.grid import scale_grid

ORDER = 80


def command(
    vectors: Annotated[list[Path], typer.Argument(help="Vectors to add.")],
    prompt: Annotated[Path, typer.Option("--prompt", help="The initialization to add their sum to.")],
    on: Annotated[str, typer.Option("--on", help="The model they were trained on.")],
    task: Annotated[list[str], typer.Option("--task", "-t", help="What the sum has to do: one or more tasks.")],
    model: ModelOptions,
    source: TaskOptions,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the best prompt here.")] = None,
    step: Annotated[float, typer.Option(help="Spacing of the lambdas from 0 to 1.", min=0.001, max=1)] = 0.05,
    race: Annotated[bool, typer.Option("--race/--no-race", help="Drop early what is clearly behind.")] = True,
    split: Annotated[Split, typer.Option(help="The rows to score.")] = Split.validation,
    max_input_length: LengthOption = 256,
) -> None:
    """Find the lambda at which init + lambda * (sum of vectors) does best on all the tasks (eq. 4, section 4.3).

    Example: `tpv vector search a.safetensors b.safetensors --prompt i.safetensors --on mini -t mini/sst2 -t mini/trec`
    """
    from rich.table import Table

    from tpv.evaluation.search import search_scale

    scales = scale_grid(step, "--step")
    loaded, init = [load_vector(path) for path in vectors], load_prompt(prompt)
    tasks = [source.named(name) for name in task]
    for data in tasks:
        data.examples(split.value)
    total = sum(loaded[1:], loaded[0])
    found = search_scale(
        model.load(on), init, total, tasks, scales, split=split.value, race=race, max_input_length=max_input_length
    )
    table = Table("lambda", "mean exact match", "rows per task", "")
    for scale, match, rows in zip(found.scales, found.exact_match, found.rows, strict=True):
        table.add_row(f"{scale:g}", f"{match:.3f}", str(rows), "best" if scale == found.scale else "")
    console().print(table)
    if out is not None:
        save(total.apply(init, found.scale), out)
