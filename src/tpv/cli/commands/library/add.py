"""`tpv library add`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.show import load_vector
from tpv.errors import TpvError

ORDER = 10


def command(
    vectors: Annotated[
        list[Path], typer.Argument(metavar="VECTOR...", help="Vector files, or folders that `tpv tune` wrote.")
    ],
    to: Annotated[Path, typer.Option("--to", help="The library: a folder, made if need be.")],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the vector.  [default: of the file; of its folder for a vector.safetensors]"),
    ] = None,
) -> None:
    """Copy vectors of one model into a folder, the library.

    Example: `tpv library add runs/sst2 runs/trec/vector.safetensors --to vectors`
    """
    from tpv.files import writing
    from tpv.prompts.library import Library

    if name is not None and len(vectors) > 1:
        raise TpvError("--name", expected="one vector with it", got=len(vectors))
    files = [path / "vector.safetensors" if path.is_dir() else path for path in vectors]
    empty = next((path for path in vectors if path.is_dir() and not (path / "vector.safetensors").is_file()), None)
    if empty is not None:
        raise TpvError(
            f"folder {empty} holds no vector",
            expected="a folder of tpv tune, or of tpv transfer where one prompt won",
            fix="give a vector file",
        )
    loaded = [(load_vector(path), name or _name_of(path)) for path in files]
    trial = Library([to, {}] if to.is_dir() else None)  # in memory: refuses before anything is written
    for vector, called in loaded:
        trial.add(vector, called)
    with writing(to):
        to.mkdir(parents=True, exist_ok=True)
    library = Library(to)
    if library.folder is None:
        raise TpvError(f"{to} is a run directory", expected="a folder of vectors", fix="choose another --to")
    for vector, called in loaded:
        library.add(vector, called)
        typer.echo(f"wrote {library.entry(called).path}: {vector!r}")


def _name_of(path: Path) -> str:
    return path.stem if path.stem != "vector" else path.resolve().parent.name
