"""`tpv vector merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import OutFile, SetOption, pairs
from tpv.cli.show import load_vector, save

ORDER = 30


def command(
    vectors: Annotated[list[Path], typer.Argument(help="Vectors to merge.")],
    out: OutFile,
    method: Annotated[str, typer.Option(help="A merge, see `tpv registry merge`.")] = "ties",
    parameters: SetOption = None,
) -> None:
    """Merge vectors by a registered method; `tpv registry merge` lists them with their parameters.

    Examples: `tpv vector merge a.safetensors b.safetensors --method ties --set density=0.2 -o merged.safetensors`

    `tpv --plugin my_merges vector merge a.safetensors b.safetensors --method median -o merged.safetensors`
    """
    from tpv.merging import merge

    save(merge([load_vector(path) for path in vectors], method, **pairs(parameters)), out)
