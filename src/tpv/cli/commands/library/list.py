"""`tpv library list`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tpv.cli.options import LibraryArgument
from tpv.cli.show import cell, console
from tpv.errors import TpvError

ORDER = 20


def command(
    folder: LibraryArgument,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Only vectors of this model: its name or fingerprint.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per vector, with digests and files.")] = False,
) -> None:
    """List the vectors of a library: what each was trained on and how, and its scores where they are known.

    Examples: `tpv library list vectors`

    `tpv library list runs --model mini --json`
    """
    from rich.table import Table

    from tpv.prompts.library import Library

    library = Library(folder, model=model)
    if not library:
        raise TpvError(
            f"{folder} holds no vectors{library.left_out_text(before='; ')}",
            fix=f"add one: tpv library add VECTOR --to {folder}",
        )
    rows = library.describe(digests=as_json).to_pylist()
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    else:
        table = Table("name", "terms", "P", "mode", "trained from", "exact match", "model")
        for row in rows:
            scores = ", ".join(f"{score['exact_match']:.3f} {score['task']}" for score in row["scores"] or ())
            of = f"{row['model']} {row['fingerprint'][:8]}"
            cells = (row["name"], row["terms"], str(row["num_tokens"]), row["mode"], row["init"], scores, of)
            table.add_row(*map(cell, cells))
        console().print(table)
    if left := library.left_out_text():
        typer.echo(left, err=as_json)
