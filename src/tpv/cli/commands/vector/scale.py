"""`tpv vector scale`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import OutFile
from tpv.cli.show import load_vector, save

ORDER = 40


def command(
    vector: Annotated[Path, typer.Argument(help="A vector.")],
    out: OutFile,
    by: Annotated[float, typer.Option(help="The factor, lambda.")],
) -> None:
    """Multiply a vector by a number (lambda in eq. 3 and 6).

    Example: `tpv vector scale sst2.safetensors --by 0.5 -o half.safetensors`
    """
    save(load_vector(vector) * by, out)
