"""A page for each command, from the parser."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer.main

from site_pages.markdown import code, table
from tpv.cli.app import app

FOLDER = "reference/command_line"
DEFAULT = re.compile(r"\s*\[default: (?P<words>[^\]]*)\]")
EXAMPLES = re.compile(r"^Examples?:\s*", re.MULTILINE)
KINDS = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}
SHARED = ("help", "install_completion", "show_completion")


def pages() -> Iterator[tuple[str, str]]:
    """Each page's place and text; the first lists all commands."""
    top = typer.main.get_command(app)
    rows = []
    for name, command in top.commands.items():
        for path, each in _leaves((name,), command):
            place = f"{name}.md" + (f"#{_anchor(path)}" if len(path) > 1 else "")
            rows.append([f"[{code('tpv ' + ' '.join(path))}]({place})", _summary(each)])
    shared = table(["option", "default", "what it does"], [_option(one) for one in _options(top)])
    yield (
        f"{FOLDER}/index.md",
        "# Command line\n\nEvery command has `--help`, which says what its page here says. These options stand before "
        f"the command, as in `tpv --plugin own registry merge`:\n\n{shared}\n## Commands\n\n"
        f"{table(['command', 'what it does'], rows)}",
    )
    for name, command in top.commands.items():
        leaves = list(_leaves((name,), command))
        text = f"# tpv {name}\n\n"
        if len(leaves) > 1:
            text += f"{_help(command)}\n\n"
            text += "\n".join(
                f"## tpv {' '.join(path)} {{#{_anchor(path)}}}\n\n{_body(path, each)}" for path, each in leaves
            )
        else:
            text += _body(*leaves[0])
        yield f"{FOLDER}/{name}.md", text


def _leaves(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
    else:
        for name, each in inner.items():
            yield from _leaves((*path, name), each)


def _anchor(path: tuple[str, ...]) -> str:
    return "-".join(("tpv", *path))


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "")


def _summary(command: Any) -> str:
    return " ".join(_help(command).split("\n\n")[0].split())


def examples(command: Any) -> list[str]:
    """The command lines that a command's help gives as examples."""
    _, _, after = _split(command)
    return [" ".join(line.split()) for line in re.findall(r"`([^`]+)`", after)]


def _split(command: Any) -> tuple[str, str, str]:
    """A command's help: what stands before its examples, `Examples:` itself, and what follows."""
    text = _help(command)
    found = EXAMPLES.search(text)
    return (text, "", "") if found is None else (text[: found.start()], found.group(), text[found.end() :])


def _body(path: tuple[str, ...], command: Any) -> str:
    """Usage, description, examples, arguments and options of a command."""
    about, _, _ = _split(command)
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    usage = " ".join(["tpv", *path, *map(_placeholder, arguments), "[OPTIONS]"])
    text = f'```text title="Usage"\n{usage}\n```\n\n{about.strip()}\n\n'
    if lines := examples(command):
        text += '```text title="Examples"\n' + "\n".join(lines) + "\n```\n\n"
    if arguments:
        text += table(["argument", "default", "meaning"], [_argument(one) for one in arguments]) + "\n"
    panels: dict[str, list[Any]] = {}
    for one in _options(command):
        panels.setdefault(one.rich_help_panel or "Options", []).append(one)
    for title, options in panels.items():
        text += f"**{title}**\n\n" + table(["option", "default", "meaning"], [_option(one) for one in options]) + "\n"
    return text


def _options(command: Any) -> list[Any]:
    return [
        one for one in command.params if one.param_type_name == "option" and not one.hidden and one.name not in SHARED
    ]


def _placeholder(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()) + ("…" if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _argument(one: Any) -> list[str]:
    text, default = _told(one)
    return [code(_placeholder(one).strip("[]")), "required" if one.required else default, text]


def _option(one: Any) -> list[str]:
    text, default = _told(one)
    names = ", ".join(map(code, (*one.opts, *one.secondary_opts)))
    value = "" if one.is_flag else f" {code(_value(one))}"
    return [names + value, "required" if one.required else default, text]


def _value(one: Any) -> str:
    """What stands for an option's value: `text|instruct`, `INTEGER`."""
    kind = one.type_descriptor.annotation
    kind = get_args(kind)[0] if get_args(kind) else kind
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    return str(one.metavar or KINDS[kind])


def _told(one: Any) -> tuple[str, str]:
    """The help of a parameter without its default, and the default."""
    text = one.help or ""
    found = DEFAULT.search(text)
    if found is not None:
        return DEFAULT.sub("", text), found["words"]
    if one.default is None or one.default is False:
        return text, "–"
    return text, code(getattr(one.default, "value", one.default))
