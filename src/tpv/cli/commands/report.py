"""`tpv report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.runs import run_folder
from tpv.cli.show import console
from tpv.errors import TpvError

ORDER = 130


def command(
    runs: Annotated[list[str], typer.Argument(help="A run directory, or two to compare.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Where to write.  [default: the run directory, for a URL runs/NAME; runs/A-B for two]"
        ),
    ] = None,
) -> None:
    """Make every table and figure of a run from its stored predictions, or compare two runs.

    Writes `report.html`, `report.md`, `results.parquet`, `tables/` (CSV, LaTeX) and `figures/` (PNG, SVG).

    Examples: `tpv report runs/mini`

    `tpv report runs/paper runs/paper_compat`
    """
    from tpv.execution.remote import is_url
    from tpv.execution.reporting import compare_runs, report_run

    if len(runs) > 2:
        raise TpvError("run directories", expected="one, or two to compare", got=len(runs))
    names = [Path(run).name for run in runs]
    if len(runs) == 1:
        place = out or (Path("runs") / names[0] if is_url(runs[0]) else Path(runs[0]))
        for table in report_run(run_folder(runs[0]), place):
            console().print(table.as_rich())
        typer.echo(f"wrote {place / 'report.html'}")
    else:
        folder = out or Path("runs") / f"{names[0]}-{names[1]}"
        compare_runs(run_folder(runs[0]), run_folder(runs[1]), folder)
        typer.echo(f"wrote {folder / 'comparison.html'}")
