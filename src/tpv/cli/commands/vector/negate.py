"""`tpv vector negate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import OutFile
from tpv.cli.show import load_vector, save

ORDER = 50


def command(vector: Annotated[Path, typer.Argument(help="A vector.")], out: OutFile) -> None:
    """Multiply a vector by -1.

    Example: `tpv vector negate sst2.safetensors -o unlearn-sst2.safetensors`
    """
    save(-load_vector(vector), out)
