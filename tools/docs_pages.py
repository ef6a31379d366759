"""Write the reference pages of the docs site, made from the code, into docs/reference (`make docs` runs this).

The command line comes from the parser, config keys from the pydantic models, extensions from the registries.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffe import Docstring, DocstringSectionKind

GROUPS = {
    "Models, tasks and prompts": ("load_backbone", "load_task", "Task", "Example", "SoftPrompt", "TaskPromptVector"),
    "Training": ("Recipe", "fit", "fit_vectors", "cross_validate", "Progress"),
    "Evaluation": ("evaluate", "Scores", "predict", "generate", "Decoding", "search_scale"),
    "Calibration": ("calibrate", "cross_calibrate", "Calibrator"),
    "Vectors": ("Library", "merge", "port", "cosine_matrix"),
    "From few rows": ("transfer", "PromptClassifier"),
    "Serving": ("Client",),
    "Errors": ("TpvError", "IncompatibleError", "DamagedFileError", "TrainingError", "TpvWarning", "CutWarning"),
}
HOMES = {
    "merge": "tpv.merging.merge",
    "transfer": "tpv.transfers.transfer",
    "port": "tpv.porting.port",
}  # functions that a module is named like
PLOTS = "tpv.plot"


def cell(text: object) -> str:
    """Text for a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


# --- Python ---------------------------------------------------------------------------------------------
def python_pages() -> Iterator[tuple[str, str]]:
    """A page for each group of public names."""
    import tpv

    told = {name for names in GROUPS.values() for name in names}
    missing = set(tpv.__all__) - told - {"Backbone", "plot"}
    if missing:
        raise SystemExit(f"tools/docs_pages.py: public names in no group: {sorted(missing)}")
    lines = ["# Python", "", "Every public name of `import tpv`.", ""]
    for group, names in GROUPS.items():
        page = [f"# {group}", ""]
        for name in names:
            thing = getattr(tpv, name)
            home = HOMES.get(name) or f"{thing.__module__}.{thing.__qualname__}"
            page += [
                f"## tpv.{name}",
                "",
                f"::: {home}",
                "    options:",
                "      show_root_heading: false",
                "      show_root_toc_entry: false",
                "",
            ]
        file = f"{group.lower().replace(' ', '_').replace(',', '')}.md"
        yield f"reference/python/{file}", "\n".join(page)
        lines.append(f"- [{group}]({file}): {', '.join(f'`{name}`' for name in names)}")
    page = [
        "# Plots",
        "",
        f"::: {PLOTS}",
        "    options:",
        "      show_root_heading: false",
        "      show_root_toc_entry: false",
        "",
    ]
    yield "reference/python/plots.md", "\n".join(page)
    lines.append("- [Plots](plots.md): `tpv.plot`")
    yield "reference/python/index.md", "\n".join([*lines, ""])


# --- the command line -----------------------------------------------------------------------------------
def command_line() -> str:
    """Every command with its options."""
    from typer.main import get_command

    from tpv.cli.app import app

    root = get_command(app)
    lines = ["# Command line", "", "Made from `tpv --help`. A mistake prints one line and exits with code 2.", ""]
    for name, command in _commands(root, "tpv"):
        lines += [f"## {name}", "", *_usage(name, command)]
    return "\n".join(lines)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _usage(name: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden and p.name != "help"]
    words = " ".join(str(p.metavar or p.name).upper() for p in arguments)
    yield from ["```text", " ".join(filter(None, [name, "[OPTIONS]" if options else "", words])), "```", ""]
    yield inspect.cleandoc(command.help or "")
    yield ""
    if arguments:
        yield from ["| argument | |", "|---|---|"]
        yield from (f"| `{str(p.metavar or p.name).upper()}` | {cell(p.help or '')} |" for p in arguments)
        yield ""
    panels: dict[str, list[Any]] = {}
    for option in options:
        panels.setdefault(option.rich_help_panel or "Options", []).append(option)
    for panel, mine in panels.items():
        yield from [f"| {panel} | | default |", "|---|---|---|"]
        for option in mine:
            flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
            yield f"| {flags} | {cell(option.help or '')} | {_default(option)} |"
        yield ""


def _default(option: Any) -> str:
    value = option.default
    if option.required or value is None or value is False or callable(value) or value in ((), [], ""):
        return ""
    value = getattr(value, "value", value)
    return f"`{cell(value)}`" if not isinstance(value, bool) else "on"


# --- configs --------------------------------------------------------------------------------------------
def config_keys() -> str:
    """Every key of a config and of a task file."""
    from tpv.studies.settings import config_model
    from tpv.tasks.spec import TaskSpec

    lines = [
        "# Config keys",
        "",
        'A config is a TOML file for `tpv plan`, `tpv run` and `tpv report`. `extends = "mini.toml"` starts from',
        "another file; a key set here replaces the inherited one. An unknown key is refused.",
        "",
    ]
    lines += _table(config_model(), "", set())
    lines += ["", "# Task files", "", "A task file is a TOML file for `--task`, `tpv.load_task` and configs.", ""]
    lines += _table(TaskSpec, "", set())
    return "\n".join(lines)


def _table(model: Any, prefix: str, seen: set[Any]) -> list[str]:
    from pydantic import BaseModel
    from pydantic_core import PydanticUndefined

    text, about = _described(model)
    lines = [
        f"## `[{prefix}]`" if prefix else "## Top level",
        "",
        text,
        "",
        "| key | type | default | |",
        "|---|---|---|---|",
    ]
    inner: list[tuple[str, Any]] = []
    for name, field in model.model_fields.items():
        models = [kind for kind in _kinds(field.annotation) if inspect.isclass(kind) and issubclass(kind, BaseModel)]
        path = f"{prefix}.{name}" if prefix else name
        if about.get(name, "").startswith("Filled in"):
            continue
        if models:
            inner += [(path, kind) for kind in models if kind not in seen]
            meaning = about.get(name) or _described(models[0])[0].split("\n\n")[0]
            lines.append(f"| `{name}` | table, see below | | {cell(meaning)} |")
            continue
        default = (
            "required"
            if field.is_required()
            else ""
            if field.default in (None, PydanticUndefined)
            else f"`{cell(_toml(field.default))}`"
        )
        meaning = field.description or about.get(name, "")
        lines.append(f"| `{name}` | {cell(_typed(field.annotation))} | {default} | {cell(meaning)} |")
    lines.append("")
    for path, kind in inner:
        seen.add(kind)
        lines += _table(kind, path, seen)
    return lines


def _kinds(annotation: Any) -> Iterator[Any]:
    from typing import get_args

    yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _typed(annotation: Any) -> str:
    from types import UnionType
    from typing import Annotated, Literal, Union, get_args, get_origin

    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _typed(inside[0])
    if origin is Literal:
        return ", ".join(_toml(value) for value in inside)
    if origin in (Union, UnionType):
        return " or ".join(_typed(kind) for kind in inside if kind is not type(None))
    if origin in (tuple, list):
        return f"list of {_typed(inside[0])}"
    if origin is dict:
        return "table"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _toml(value: Any) -> str:
    import json

    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value) if isinstance(value, str | bool | int | float) else str(value)


def _described(thing: Any) -> tuple[str, dict[str, str]]:
    """The text of a docstring, and what it says of each attribute."""
    about: dict[str, str] = {}
    for base in reversed([one for one in thing.__mro__ if one.__module__.startswith("tpv.")]):
        for section in Docstring(inspect.cleandoc(base.__doc__ or ""), lineno=1).parse("google"):
            if section.kind is DocstringSectionKind.attributes:
                about |= {one.name: one.description for one in section.value}
    sections = Docstring(inspect.cleandoc(thing.__doc__ or ""), lineno=1).parse("google")
    text = [section.value for section in sections if section.kind is DocstringSectionKind.text]
    return "\n\n".join(text), about


# --- tables and extensions ------------------------------------------------------------------------------
def table_columns() -> str:
    """Columns of the tables that tpv writes."""
    from tpv.reporting.records import Row

    _, about = _described(Row)
    lines = [
        "# Result tables",
        "",
        "`results.parquet` of a run has one row for each number:",
        "",
        "| column | |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {cell(about.get(name, ''))} |" for name in Row.__dataclass_fields__]
    lines += [
        "",
        "Files written by `tpv predict --input … --output …` keep all of their columns and gain `label` and",
        "`probability`.",
        "`tpv.predict` gives an Arrow table:",
        "",
        "| column | |",
        "|---|---|",
        "| `source` | the text as the model reads it |",
        "| `predicted` | the likeliest label |",
        "| `probability` | of that label, calibrated where there is a calibrator |",
        "| `said` | what greedy decoding says, null if that is no label |",
        "| `log_probs` | log-probability of every label, in the task's order |",
        "",
    ]
    return "\n".join(lines)


def extensions() -> str:
    """What is registered."""
    from tpv.registry import register

    lines = [
        "# Extensions",
        "",
        "What `tpv registry` lists: each is one file. [Add your own](../how_to/extend.md).",
        "",
    ]
    for kind, registry in register.registries().items():
        lines += [f"## {kind}", "", "| name | | parameters |", "|---|---|---|"]
        for entry in registry:
            doc = (inspect.getdoc(entry.thing) or "").split("\n\n")[0]
            lines.append(f"| `{entry.name}` | {cell(doc)} | {cell(', '.join(entry.describe()))} |")
        lines.append("")
    return "\n".join(lines)


def pages() -> Iterator[tuple[str, str]]:
    """Paths below docs/, and what is in them."""
    yield from python_pages()
    yield "reference/command_line.md", command_line()
    yield "reference/config.md", config_keys()
    yield "reference/tables.md", table_columns()
    yield "reference/extensions.md", extensions()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    out: Path = parser.parse_args().out
    for path, text in pages():
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
