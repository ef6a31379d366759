"""Read a config: TOML files that may extend one another, every mistake reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tpv.errors import TpvError, did_you_mean
from tpv.registry import load_plugins
from tpv.studies.settings import Config, config_model
from tpv.tasks import task_specs
from tpv.tasks.spec import TaskSpec, read_spec, read_toml, styled


def read_config(path: str | Path) -> Config:
    """The config in a TOML file; `extends = "other.toml"` takes over what the file itself does not say.

    Tables are merged key by key (an empty one clears what was there), anything else is replaced. Task files and
    data folders are taken from the folder of the file that names them.

    Raises:
        TpvError: unreadable file, a circle of extensions, or values that do not fit: all mistakes in one message.
    """
    file = Path(path)
    return build_config(_merged(file, ()), where=f"config {file}")


def _merged(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    values = read_toml(file, "config")
    real = file.resolve()
    if real in seen:
        raise TpvError(f"config {file} extends itself", got=" -> ".join(str(step) for step in (*seen, real)))
    values = _anchored(values, file.parent)
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise TpvError(f"config {file}: extends", expected="the name of another config", got=repr(base))
    return _overlaid(_merged(file.parent / base, (*seen, real)), values)


def _anchored(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative task files and folders of data and vectors, made absolute."""
    for name in ("data_dir", "library"):
        if isinstance(values.get(name), str):
            try:
                values[name] = str((folder / Path(values[name]).expanduser()).resolve())
            except (ValueError, RuntimeError) as error:  # a NUL, or the home of nobody
                raise TpvError(f"{name} {values[name]!r} is no path", got=str(error)) from None
    if "stored" in values:
        raise TpvError("stored is filled in by tpv", fix="drop it, and name the folder of vectors as library")
    if "plugins" in values:
        if "plugin_folder" in values:
            raise TpvError("plugin_folder is filled in by tpv", fix="drop it: plugins are found near the config")
        values["plugin_folder"] = str(folder.resolve())
    for family in values.get("families", []) if isinstance(values.get("families"), list) else []:
        for role in ("sources", "targets"):
            names = family.get(role) if isinstance(family, dict) else None
            if isinstance(names, list):
                family[role] = [
                    str(folder / name) if isinstance(name, str) and name.endswith(".toml") else name for name in names
                ]
    return values


def _overlaid(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for one, other in (("steps", "epochs"), ("epochs", "steps")):  # they exclude each other
        if one in over and other not in over:
            result.pop(other, None)
    for key, value in over.items():
        both = value and isinstance(value, dict) and isinstance(base.get(key), dict)  # an empty table clears
        result[key] = _overlaid(base[key], value) if both else value
    return result


def build_config(values: dict[str, Any], *, where: str) -> Config:
    """A `Config` from plain values.

    Raises:
        TpvError: every mistake, key by key, in one message.
    """
    config: Config | None = None
    values = dict(values)
    _import_plugins(values)
    mistakes = _take_in_tasks(values)
    try:
        config = config_model().model_validate(values)
    except ValidationError as error:
        mistakes = [*_told(error), *mistakes]
    if mistakes or config is None:
        raise TpvError(
            f"invalid {where} ({len(mistakes)} mistake{'s' * (len(mistakes) != 1)})", got="; ".join(mistakes)
        )
    return config


def _import_plugins(values: Mapping[str, Any]) -> None:
    """Import the modules that register what the rest of the config may name."""
    plugins = values.get("plugins", ())
    if isinstance(plugins, list | tuple) and all(isinstance(name, str) for name in plugins):  # else: refused later
        folder = values.get("plugin_folder")
        load_plugins(plugins, near=Path(folder) if folder else None)


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    """The keys that the table at this place of a config may have."""
    model: Any = config_model()
    for part in place:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = [arg for arg in getattr(annotation, "__args__", ()) if isinstance(arg, type)]
        model = next(
            (one for one in [annotation, *inner] if isinstance(one, type) and issubclass(one, BaseModel)), None
        )
        if model is None:
            return []
    return sorted(model.model_fields)


def _told(error: ValidationError) -> list[str]:
    """Each mistake with its key, in plain words."""
    mistakes: list[str] = []
    places = [item["loc"] for item in error.errors()]
    for item in error.errors():
        place, key = item["loc"], ".".join(str(part) for part in item["loc"] if not str(part).startswith("tuple["))
        # a list whose items are wrong is then told to be too short as well, and a number to be no list
        if item["type"] == "too_short" and any(other[: len(place)] == place for other in places if other != place):
            continue
        if item["type"] == "extra_forbidden":
            told = [f"unknown key, {did_you_mean(str(place[-1]), _known_keys(place[:-1]))}"]
        elif item["type"] == "literal_error":
            known = re.findall(r"'((?:[^'\\]|\\.)*)'|\"([^\"]*)\"", item["ctx"]["expected"])
            told = [f"unknown value {item['input']!r:.60}, {did_you_mean(str(item['input']), map(''.join, known))}"]
        elif item["type"] in ("model_type", "dict_type"):
            told = [f"should be a table, is {item['input']!r:.60}"]
        elif item["type"] == "tuple_type":
            told = [f"should be a list, is {item['input']!r:.60}"]
        else:
            told = item["msg"].removeprefix("Value error, ").splitlines()
        mistakes += [f"{key}: {line}" if key else line for line in told]
    return mistakes


def _take_in_tasks(values: dict[str, Any]) -> list[str]:
    """Put the name of each task file in its place and the file into `task_files`; what is wrong with the tasks."""
    mistakes: list[str] = []
    files: dict[str, str] = {}
    families = values.get("families")
    if "task_files" in values:
        mistakes.append("task_files: is filled in by tpv; name the file among the sources or targets of a family")
    if not isinstance(families, list):
        return mistakes
    values["families"] = families = [dict(family) if isinstance(family, dict) else family for family in families]
    for number, family in enumerate(families):
        for role in ("sources", "targets"):
            names = family.get(role) if isinstance(family, dict) else None
            if not isinstance(names, list):
                continue
            family[role] = taken = list(names)
            for place, name in enumerate(names):
                if not isinstance(name, str):
                    continue
                try:
                    spec = task_spec(name, {name: name} if name.endswith(".toml") else {})
                except TpvError as error:
                    mistakes.append(f"families.{number}.{role}: {error}")
                    continue
                if values.get("style") == "instruct":
                    try:
                        styled(spec, "instruct")
                    except TpvError as error:
                        mistakes.append(f"style: {error}")
                if name.endswith(".toml"):
                    if spec.name in task_specs() or files.get(spec.name, name) != name:
                        mistakes.append(
                            f"families.{number}.{role}: task file {name} has the name of another task, {spec.name!r}"
                        )
                    taken[place], files[spec.name] = spec.name, name
    values["task_files"] = files
    return mistakes


def task_spec(name: str, files: Mapping[str, str]) -> TaskSpec:
    """The spec of a task named in a config.

    Args:
        files: the user's own task files, by task name.

    Raises:
        TpvError: no such task, or a task file that does not read.
    """
    if name in files:
        return read_spec(Path(files[name]))
    known = task_specs()
    if name not in known:
        raise TpvError(f"unknown task {name!r}", fix=did_you_mean(name, known))
    return known[name]
