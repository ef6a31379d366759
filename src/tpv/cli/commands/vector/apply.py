"""`tpv vector apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import OutFile
from tpv.cli.show import load_prompt, load_vector, save

ORDER = 60


def command(
    vector: Annotated[Path, typer.Argument(help="A vector.")],
    prompt: Annotated[Path, typer.Argument(help="The prompt to add it to.")],
    out: OutFile,
    scale: Annotated[float, typer.Option(help="Factor of the vector, lambda.")] = 1.0,
) -> None:
    """Add a vector to a prompt: move a task to another initialization (eq. 3, 6).

    Example: `tpv vector apply sst2.safetensors other.safetensors --scale 0.8 -o moved.safetensors`
    """
    save(load_vector(vector).apply(load_prompt(prompt), scale), out)
