"""`tpv quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ORDER = 10


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Seed of the initializations, samples and data orders.")] = 0,
) -> None:
    """Watch the method work on the embedded model, in about two minutes and with no network.

    Tunes six tasks from two initializations each, subtracts, moves the vectors to the other initialization, compares,
    adds and transfers them, and writes `report.html`, `results.parquet`, `vectors/` and `inits/`.

    Example: `tpv quickstart --out runs/quickstart`
    """
    from tpv.cli.show import console
    from tpv.execution import quickstart

    quickstart.run(out, seed=seed, console=console())
    typer.echo(f"wrote {out / 'report.html'}, {out / 'results.parquet'}, {out / 'vectors'}/ and {out / 'inits'}/")
