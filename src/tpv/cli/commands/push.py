"""`tpv push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.errors import TpvError

ORDER = 90


def command(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face hub.")],
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Prompt and vector files; NAME=FILE gives another name.")
    ],
    scores: Annotated[
        list[Path] | None,
        typer.Option("--scores", help="For the card: what `tpv evaluate --predictions` wrote (repeatable)."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private; require an old one to be.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; created where it is missing.")] = None,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
) -> None:
    """Put prompts and vectors on the Hugging Face hub, with a model card made from their metadata.

    What the repository holds already stays, is replaced where the name is the same, and is described too. `--scores`
    are matched to files by content: a prompt's to that prompt, a vector's to the vector that was added.
    Log in first (`hf auth login`, or HF_TOKEN).

    Example: `tpv push me/reviews sst2=runs/sst2/vector.safetensors yelp=runs/yelp/vector.safetensors`
    """
    from tpv.interop.repository import push
    from tpv.interop.scored import read_scores
    from tpv.prompts.algebra import load_any

    items = {name: load_any(path) for name, path in named(files).items()}
    known = [score for path in scores or () for score in read_scores(path)]
    address = push(repository, items, private=private, scores=known, revision=revision, message=message)
    for name, item in items.items():
        typer.echo(f"pushed {name}.safetensors: {item!r}")
    typer.echo(f"wrote {address}")


def named(files: list[str]) -> dict[str, Path]:
    """Files by the names they get: `NAME=FILE`, or the file's own."""
    found: dict[str, Path] = {}
    for text in files:
        name, equals, rest = text.partition("=")
        path = Path(rest if equals and not Path(text).exists() else text)
        name = name if path != Path(text) else path.name.removesuffix(".safetensors")
        if name in found:
            raise TpvError(
                f"two files are called {name!r}", got=f"{found[name]} and {path}", fix="give one another: NAME=FILE"
            )
        found[name] = path
    return found
