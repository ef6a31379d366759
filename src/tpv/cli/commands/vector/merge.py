"""`tpv vector merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import DataOptions, ModelOptions, OutFile, SetOption, TaskOptions, pairs
from tpv.cli.show import load_vector, save
from tpv.errors import TpvError

ORDER = 30


def command(
    vectors: Annotated[list[Path], typer.Argument(help="Vectors to merge.")],
    out: OutFile,
    model: ModelOptions,
    source: TaskOptions,
    data: DataOptions,
    method: Annotated[str, typer.Option(help="A merge, see `tpv registry merge`.")] = "ties",
    parameters: SetOption = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="For --method learned: a name from `tpv tasks`, or a task file.")
    ] = None,
) -> None:
    """Merge vectors by a registered method; `tpv registry merge` lists them with their parameters.

    Examples: `tpv vector merge a.safetensors b.safetensors --method ties --set density=0.2 -o merged.safetensors`

    `tpv vector merge a.safetensors b.safetensors --method learned --model mini --task mini/imdb -o merged.safetensors`

    `tpv --plugin my_merges vector merge a.safetensors b.safetensors --method median -o merged.safetensors`
    """
    from tpv.merging import merge
    from tpv.registry import register

    found, given = [load_vector(path) for path in vectors], pairs(parameters)
    if register.merge[method].about.get("learns"):
        given |= {"task": data.load(task, source, hold_out=False), "backbone": model.load()}
    elif task or data.train:
        raise TpvError(f"merge {method!r} learns from no rows", fix="drop --task and --train, or use --method learned")
    save(merge(found, method, **given), out)
