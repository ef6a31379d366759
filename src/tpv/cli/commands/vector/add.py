"""`tpv vector add`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import OutFile
from tpv.cli.show import load_vector, save
from tpv.errors import TpvError

ORDER = 20


def command(
    vectors: Annotated[list[Path], typer.Argument(help="Vectors to add.")],
    out: OutFile,
    weights: Annotated[str | None, typer.Option(help="A factor for each, separated by commas: '1,0.5,-1'.")] = None,
) -> None:
    """Add vectors, each times its weight (eq. 4).

    Example: `tpv vector add a.safetensors b.safetensors --weights 1,0.5 -o sum.safetensors`
    """
    from tpv.merging import merge

    factors = None
    if weights is not None:
        try:
            factors = tuple(float(weight) for weight in weights.split(","))
        except ValueError:
            raise TpvError("--weights", expected="numbers separated by commas", got=repr(weights)) from None
        if len(factors) != len(vectors):
            raise TpvError("--weights", expected=f"{len(vectors)} numbers, one per vector", got=len(factors))
    save(merge([load_vector(path) for path in vectors], weights=factors), out)
