"""Options of the commands that work on run directories."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

ConfigArgument = Annotated[Path, typer.Argument(help="Config file (.toml), such as configs/mini.toml.")]
RunOption = Annotated[
    str | None, typer.Option("--out", "-o", help="Run directory: a folder, or a URL (s3://…).  [default: runs/CONFIG]")
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        help="Only this experiment and what it needs, such as sources, cross_initialization, similarity, combination, "
        "transfer, negation or cost."
    ),
]


class ExecutorChoice(StrEnum):
    """Where workers run."""

    local = "local"
    ray = "ray"


def run_folder(out: str) -> Path:
    """A run directory, or the working folder for that of a URL."""
    from tpv.execution.remote import is_url, working_folder

    return working_folder(out) if is_url(out) else Path(out)
