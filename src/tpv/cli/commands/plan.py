"""`tpv plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.runs import ConfigArgument, OnlyOption, RunOption, run_folder
from tpv.cli.show import console

ORDER = 110


def command(
    config: ConfigArgument,
    out: RunOption = None,
    only: OnlyOption = None,
    estimate: Annotated[bool, typer.Option(help="Measure a few steps to predict how long it takes.")] = True,
    workers: Annotated[int, typer.Option(help="Predict for this many workers, each as fast as this one.", min=1)] = 1,
) -> None:
    """Show what a config amounts to: jobs by kind, what is done already, and how long the rest takes.

    Needs neither a network nor the model; without them there is no prediction of time.

    Examples: `tpv plan configs/paper.toml`

    `tpv plan configs/mini.toml --workers 2`
    """
    from tpv.execution.overview import show
    from tpv.studies.config import read_config

    folder = run_folder(out or f"runs/{Path(config).stem}")
    show(read_config(config), folder, console(), experiment=only, estimate=estimate, workers=workers)
