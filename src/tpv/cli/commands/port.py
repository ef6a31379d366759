"""`tpv port`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from tpv.cli.options import DataOptions, RecipeOptions, TaskOption, TaskOptions, model_names
from tpv.cli.porting import MapOptions, PairOptions, TeacherOptions
from tpv.cli.show import save
from tpv.errors import TpvError

ORDER = 27


def command(
    items: Annotated[list[Path], typer.Argument(metavar="VECTOR...", help="Vectors, or prompts, of one model.")],
    old: Annotated[str, typer.Option("--from", help="The model that they belong to.", autocompletion=model_names)],
    new: Annotated[str, typer.Option("--to", help="The model to port to.", autocompletion=model_names)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Write the result here (.safetensors); a folder for several.")
    ],
    models: PairOptions,
    mapping: MapOptions,
    teaching: TeacherOptions,
    named: TaskOptions,
    data: DataOptions,
    training: RecipeOptions,
    task: TaskOption = None,
) -> None:
    """Port vectors or prompts to another model.

    A map between the models' embeddings, fitted on the tokens that both have, takes each row to the other model.
    Portable vectors (`tpv tune --portable`) port best. With
    --task or --train the result then trains on a few rows there; with --teacher source the rows need no labels, since
    the old model with the old prompt labels them. docs/across_models.md says what to expect.

    Examples: `tpv port sst2.safetensors --from mini --to ./new-model -o ported.safetensors`

    `tpv port vectors/*.safetensors --from mini --to ./new-model --method ridge -o ported/`

    `tpv port prompt.safetensors --from mini --to ./new-model --task mini/sst2 --unlabelled texts.csv
    --teacher source --steps 50 -o ported.safetensors`
    """
    from tpv.porting import port
    from tpv.prompts.algebra import load_any

    folder = len(items) > 1 or out.suffix != ".safetensors"
    twice = [name for name, count in Counter(path.name for path in items).items() if count > 1]
    if folder and (twice or out.suffix == ".safetensors"):
        got = f"two files called {twice[0]}" if twice else str(out)
        raise TpvError("--out", expected="a folder, and files of different names", got=got)
    found: list[Any] = [load_any(path) for path in items]  # of mixed kinds, which `port` refuses
    rows = teaching.task(task, data, named)
    options = mapping.options(named)
    if rows is not None:
        options |= {"data": rows, "teacher": teaching.teacher.value, "recipe": training.recipe(rows)}
    moved = port(found, models.load(old), models.load(new), **options)
    for path, item in zip(items, moved, strict=True):
        save(item, out / path.name if folder else out)
