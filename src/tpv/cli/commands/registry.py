"""`tpv registry`."""

from __future__ import annotations

from typing import Annotated

import typer

from tpv.cli.show import cell, console
from tpv.errors import TpvError, did_you_mean

ORDER = 140


def command(
    sort: Annotated[
        str | None,
        typer.Argument(help="merge, port, initializer, method, output, metric, job or experiment.  [default: all]"),
    ] = None,
) -> None:
    """List what is registered: merges, maps between models, initializers, training methods, metrics and so on.

    Example: `tpv registry merge`, or with a module of your own `tpv --plugin my_module registry merge`
    """
    from rich.table import Table

    from tpv.registry import register

    every = register.registries()
    if sort is not None and sort not in every:
        raise TpvError(f"unknown registry {sort!r}", fix=did_you_mean(sort, every))
    for name in [sort] if sort else every:
        table = Table(name, "parameters", "what it is", title_justify="left")
        for entry in every[name]:
            shown = entry.describe() if every[name].told else []
            table.add_row(entry.name, cell(", ".join(shown)), cell(entry.summary))
        console().print(table)
