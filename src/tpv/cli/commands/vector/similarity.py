"""`tpv vector similarity`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.show import cell, console
from tpv.errors import TpvError

ORDER = 90


def command(
    files: Annotated[list[Path], typer.Argument(help="Two or more vector files, or prompt files.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the matrix here too (.csv).")] = None,
) -> None:
    """Cosine of every pair.

    Example: `tpv vector similarity runs/quickstart/vectors/*.safetensors`
    """
    from rich.table import Table

    from tpv.files import atomic_write
    from tpv.prompts.algebra import cosine_matrix, load_any

    items = [load_any(path) for path in files]
    kinds = sorted({type(item).__name__ for item in items})
    if len(kinds) > 1:
        raise TpvError("similarity", expected="only vectors, or only prompts", got=" and ".join(kinds))
    matrix = cosine_matrix(items).tolist()
    names = [path.stem for path in files]
    if out is not None:
        with atomic_write(out) as part, part.open("w", newline="") as file:
            csv.writer(file).writerows([["", *names], *([n, *row] for n, row in zip(names, matrix, strict=True))])
    table = Table("", *map(cell, names))
    for name, row in zip(names, matrix, strict=True):
        table.add_row(cell(name), *(f"{value:.3f}" for value in row))
    console().print(table)
