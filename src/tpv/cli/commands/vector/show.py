"""`tpv vector show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tpv.cli.options import LengthOption, ModelOptions, Split, TaskOptions
from tpv.cli.show import cell, console, load_vector
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.models import Backbone
    from tpv.prompts.algebra import TaskPromptVector
    from tpv.tasks import Task

ORDER = 70


def command(
    files: Annotated[list[Path], typer.Argument(help="Vector or prompt files.")],
    model: ModelOptions,
    source: TaskOptions,
    on: Annotated[
        str | None, typer.Option("--on", help="Try vectors on this model: what to expect of them elsewhere.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="With --on: the task of each vector, in order.")
    ] = None,
    unseen: Annotated[
        int, typer.Option("--inits", "--starts", help="With --on: how many initializations that no vector saw.", min=1)
    ] = 5,
    split: Annotated[Split, typer.Option(help="With --on: the rows to score.")] = Split.validation,
    max_input_length: LengthOption = 256,
) -> None:
    """Show what files hold: terms, shape, norm, model, initialization; with --on, how vectors do elsewhere.

    Examples: `tpv vector show runs/quickstart/vectors/*.safetensors`

    `tpv vector show a.safetensors b.safetensors --on mini --task mini/sst2 --task mini/trec`
    """
    if (on is None) != (not task):
        raise TpvError("trying vectors", expected="--on MODEL and a --task for each", got="one of them")
    if task and len(task) != len(files):
        raise TpvError("--task", expected=f"{len(files)}, one per vector", got=len(task))
    _print_files(files)
    if on is not None and task:
        vectors = [load_vector(path) for path in files]
        tasks = [source.named(name) for name in task]
        for data in tasks:
            data.examples(split.value)
        _try(model.load(on), vectors, [path.stem for path in files], tasks, unseen, split.value, max_input_length)


def _print_files(files: list[Path]) -> None:
    from rich.table import Table

    from tpv.prompts.algebra import SoftPrompt, load_any

    table = Table("file", "kind", "terms", "P", "H", "norm", "model", "trained from")
    for path in files:
        item = load_any(path)
        origins = sorted({part.home for part in item.components})
        inits = [str(item.init)] if isinstance(item, SoftPrompt) else origins
        table.add_row(
            cell(str(path)),
            type(item).__name__,
            cell(item.expression),
            str(item.num_tokens),
            str(item.model.hidden_size),
            f"{item.norm():.3f}",
            cell(" ".join(filter(None, (item.model.name, item.model.fingerprint[:8], item.model.quantization)))),
            cell("; ".join(inits)),
        )
    console().print(table)


def _try(
    backbone: Backbone,
    vectors: list[TaskPromptVector],
    names: list[str],
    tasks: list[Task],
    inits: int,
    split: str,
    max_input_length: int,
) -> None:
    """How vectors do on initializations that they did not see, and in pairs."""
    from rich.table import Table

    from tpv.evaluation.portability import interference, portability

    table = Table(
        "vector",
        "task",
        "norm / init's",
        f"exact match on {inits} unseen initializations",
        "lowest",
        "highest",
        "majority",
        "n",
        title=f"on initializations that no vector saw, split {split}",
    )
    for name, vector, data in zip(names, vectors, tasks, strict=True):
        found = portability(backbone, vector, data, inits=inits, split=split, max_input_length=max_input_length)
        mean = sum(found.scores) / len(found.scores)
        cells = (f"{found.norm_ratio:.2f}", f"{mean:.3f}", f"{min(found.scores):.3f}", f"{max(found.scores):.3f}")
        rows = str(len(data.examples(split)))
        table.add_row(cell(name), cell(data.name), *cells, f"{found.majority:.3f}", rows)
    console().print(table)
    if len(vectors) > 1:
        matrix = interference(backbone, vectors, tasks, inits=inits, split=split, max_input_length=max_input_length)
        table = Table(
            "exact match on",
            *(f"+ {cell(name)}" for name in names),
            title="each task under its own vector plus another (alone on the diagonal)",
        )
        for data, scores in zip(tasks, matrix.tolist(), strict=True):
            table.add_row(cell(data.name), *(f"{score:.3f}" for score in scores))
        console().print(table)
