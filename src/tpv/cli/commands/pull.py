"""`tpv pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.errors import TpvError

ORDER = 100


def command(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face hub.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the files.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Get prompts and vectors from the Hugging Face hub; each is checked, and nothing else is downloaded.

    Example: `tpv pull me/reviews --out runs/reviews`
    """
    from tpv.files import staged_folder
    from tpv.interop.repository import pull

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise TpvError(f"{out} exists already", expected="a new folder", fix="choose another --out")
    with staged_folder(out) as stage:
        items = pull(repository, revision=revision)
        for name, item in items.items():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            item.save(stage / f"{name}.safetensors")
    for name, item in items.items():
        typer.echo(f"wrote {out / name}.safetensors: {item!r}")
