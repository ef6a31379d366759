"""`tpv vector make`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import OutFile
from tpv.cli.show import load_prompt, save

ORDER = 10


def command(
    tuned: Annotated[Path, typer.Argument(help="The tuned prompt.")],
    init: Annotated[Path, typer.Argument(help="Its initialization, the prompt before training.")],
    out: OutFile,
) -> None:
    """Tuned minus initialization: the task prompt vector (eq. 2).

    Example: `tpv vector make runs/sst2/prompt.safetensors runs/sst2/init.safetensors -o sst2.safetensors`
    """
    save(load_prompt(tuned) - load_prompt(init), out)
