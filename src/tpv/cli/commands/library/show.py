"""`tpv library show`."""

from __future__ import annotations

from typing import Annotated

import typer

from tpv.cli.options import LibraryArgument
from tpv.cli.show import cell, console

ORDER = 30


def command(
    folder: LibraryArgument, name: Annotated[str, typer.Argument(help="Name of a vector, see `tpv library list`.")]
) -> None:
    """Show one vector of a library: what went into it and from where, its norm, scores, digest and file.

    Example: `tpv library show vectors sst2`
    """
    from rich.table import Table

    from tpv.prompts.library import Library

    library = Library(folder)
    entry, vector = library.entry(name), library[name]
    table = Table(show_header=False)
    lines = {
        "name": name,
        "file": entry.path or "",
        "terms": vector.expression,
        "P, H": f"{vector.num_tokens}, {vector.model.hidden_size}",
        "norm": f"{vector.norm():.3f}",
        "mode": entry.facts.mode,
        "portable": "yes" if entry.facts.portable else "no",
        "model": str(vector.model),
        "digest": vector.digest,
    }
    for title, text in lines.items():
        table.add_row(title, cell(text))
    for part in vector.components:
        table.add_row("trained on", cell(f"{part.coefficient:g} × {part.name}, {part.home or 'a merge'}"))
    for score in entry.scores():
        start = f", added to {score['start']}" if score.get("start") else ""
        figures = f"exact match {score['exact_match']:.3f}, majority {score['majority']:.3f}, n {score['n']}"
        table.add_row("scores", cell(f"{score['task']} {score['split']}: {figures}{start}"))
    console().print(table)
