"""`tpv doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from tpv.cli.options import TaskOptions
from tpv.cli.show import cell, console

ORDER = 15


def command(
    source: TaskOptions,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per line, for a bug report.")] = False,
) -> None:
    """Look at this machine: versions, device, precision, memory, caches, the hub, data, and what extras are there.

    Nothing is downloaded. It ends with code 1 where something is broken, and not where something is only missing.

    Example: `tpv doctor`
    """
    import json

    from rich.table import Table

    from tpv.cli.machine import checks

    found = []
    table = Table(show_header=False, box=None, padding=(0, 1))
    for check in checks(source.folder()):
        found.append(check)
        if as_json:
            typer.echo(json.dumps(vars(check), ensure_ascii=False))
        style = {"ok": None, "note": "yellow", "broken": "bold red"}[check.state]
        table.add_row(check.state, check.name, cell(check.text), style=style)
    if not as_json:
        console().print(table)
    broken = [check.name for check in found if check.state == "broken"]
    if broken:
        typer.echo(f"broken: {', '.join(broken)}", err=True)
        raise typer.Exit(1)
