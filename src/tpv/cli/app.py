"""The application: its commands are the modules of `tpv.cli.commands`, a file each."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Annotated

import typer

from tpv.cli import commands
from tpv.cli.options import grouped
from tpv.registry import load_plugins

HELP = """Task prompt vectors: tune a soft prompt on a frozen language model, subtract its initialization,
and move, add, scale and negate the difference.

Start with `tpv quickstart`: two minutes, no network. `tpv` alone says where else."""
START = """tpv: task prompt vectors. Where to start:

see it work        tpv quickstart
                   two minutes, no network
label texts        tpv transfer --train few.csv --text review --label stars --out runs/x
                   from a few labelled rows; from many, say first what would be done:
                   tpv tune --train rows.csv --text review --label stars --dry-run
                   then, of either: tpv predict runs/x "a new text"
make a vector      tpv tune --task mini/sst2 --tokens 20 --steps 150 --out runs/sst2
                   tpv tasks lists the tasks there are
check the machine  tpv doctor
in Python          import tpv; help(tpv.PromptClassifier)
all commands       tpv --help, tpv COMMAND --help
completion         tpv --install-completion"""
SETTINGS = {"help_option_names": ["-h", "--help"]}


def _group(package: ModuleType, text: str, *, top: bool = False) -> typer.Typer:
    """The commands of a package.

    A module adds the command that its function `command` is, called by its `NAME` or its own name, in the place that
    its `ORDER` says; a package in it adds a group of commands.
    """
    group = typer.Typer(
        no_args_is_help=not top, add_completion=top, rich_markup_mode="markdown", context_settings=SETTINGS, help=text
    )
    found = [
        importlib.import_module(f"{package.__name__}.{inner.name}") for inner in pkgutil.iter_modules(package.__path__)
    ]
    for module in sorted(found, key=lambda module: (getattr(module, "ORDER", 1000), module.__name__)):
        name = getattr(module, "NAME", module.__name__.rpartition(".")[2])
        if hasattr(module, "__path__"):
            group.add_typer(_group(module, (module.__doc__ or "").strip()), name=name)
        else:
            group.command(name)(grouped(module.command))
    return group


app = _group(commands, HELP, top=True)


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="Import a Python module that registers merges, methods, metrics and so on (repeatable)."),
    ] = None,
) -> None:
    """What every command shares: plugins are imported before the command runs."""
    if version:
        from tpv import __version__

        typer.echo(f"tpv {__version__}")
        raise typer.Exit
    load_plugins(plugin or ())
    if context.invoked_subcommand is None:
        typer.echo(START)
