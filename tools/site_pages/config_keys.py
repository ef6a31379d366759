"""The keys of configs, task files and files of keys, from their pydantic models."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

from site_pages.markdown import code, default_words, meanings, prose, sentence, table, toml_words, type_words
from tpv.serving.keys import KeyRecord
from tpv.studies.parts import Family
from tpv.studies.settings import Config, config_model
from tpv.tasks.spec import TaskSpec
from tpv.training.recipe import Recipe

HEAD = ("key", "value", "default", "meaning")
FILLED_IN = ("plugin_folder", "stored", "task_files")  # by tpv, when a config is read
SET_ELSEWHERE = ("seed", "max_input_length")  # keys of a recipe: [seeds] order, [model] max_input_length


def pages() -> Iterator[tuple[str, str]]:
    """Each page's place and text."""
    yield "reference/config.md", config_page()
    yield "reference/task_files.md", task_page()


def keys(model: type[BaseModel]) -> Iterator[tuple[str, Any, str]]:
    """Name, pydantic field and meaning of each key of a table.

    Raises:
        LookupError: a key that its model's docstring does not describe.
    """
    said = meanings(model)
    for name, field in model.model_fields.items():
        about = sentence(field.description) if field.description else said.get(name)
        if about is None:
            raise LookupError(f"{model.__module__}.{model.__name__} does not say what {name} is")
        yield name, field, about


def config_page() -> str:
    """Every table of a config."""
    model = config_model()
    own, tables = [], []
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is not None:
            tables.append((name, inner))
    inner_names = {name for name, _ in tables}
    for name, field, about in keys(Config):
        if name not in inner_names and name not in FILLED_IN:
            own.append(_row(name, field, about))
    text = (
        "# Config keys\n\nWhat a study's config may say, for `tpv plan`, `tpv run` and `tpv report`. A config is a "
        "TOML file; unknown keys are refused, and all mistakes are reported at once.\n\n## At the top\n\n"
    )
    own.insert(
        0,
        [
            code("extends"),
            "text",
            "–",
            "Another config, whose keys this one overrides; an empty table clears an inherited one.",
        ],
    )
    text += table(HEAD, own)
    for name, inner in tables:
        heading = f"[[{name}]]" if inner is Family else f"[{name}]"
        text += f"\n## {heading} {{#{name}}}\n\n{_intro(inner)}{table(HEAD, _rows(inner))}"
    return text + _training()


def _training() -> str:
    """The keys of a recipe, which tables called `training` hold."""
    said, hints, rows = meanings(Recipe), get_type_hints(Recipe), []
    for field in fields(Recipe):
        if field.name not in SET_ELSEWHERE:
            default = "required" if field.default is MISSING else toml_words(field.default)
            rows.append([code(field.name), type_words(hints[field.name]), default, said[field.name]])
    return (
        "\n## training {#training}\n\nHow prompts train: `[sources.training]`, `[vectors.training]`, "
        '`[transfer.training]` and, for one task, `[sources.per_task."NAME"]`. In Python, `tpv.Recipe`.\n\n'
        f"{table(HEAD, rows)}"
    )


def task_page() -> str:
    """The keys of a task file, with one table of keys for each kind of source."""
    text = (
        "# Task files\n\nA TOML file that says what a task's inputs and answers are, for `--task`, `tpv.load_task` and "
        f"the `sources` and `targets` of a config.\n\n{table(HEAD, _rows(TaskSpec, without=('source',)))}"
    )
    for source in _sources():
        kind = get_args(source.model_fields["kind"].annotation)[0]
        text += f'\n## [source] with kind = "{kind}" {{#{kind}}}\n\n{_intro(source)}'
        text += table(HEAD, _rows(source, without=("kind",)))
    return text + (
        "\n# Files of keys\n\nFor `tpv serve --keys FILE`: a table for each client, named as you like, "
        f"`[NAME]`.\n\n{table(HEAD, _rows(KeyRecord))}"
    ).replace("\n# ", "\n## ")


def _sources() -> list[type[BaseModel]]:
    union = TaskSpec.model_fields["source"].annotation
    return [each for each in get_args(union) if isinstance(each, type) and issubclass(each, BaseModel)]


def _intro(model: type[BaseModel]) -> str:
    return f"{prose(inspect.getdoc(model) or '')}\n\n"


def _rows(model: type[BaseModel], without: tuple[str, ...] = ()) -> list[list[str]]:
    return [_row(name, field, about) for name, field, about in keys(model) if name not in without]


def _row(name: str, field: Any, about: str) -> list[str]:
    return [code(name), type_words(field.annotation, field.metadata), default_words(field), about]


def _model_of(kind: Any) -> type[BaseModel] | None:
    """The table's model, of a key that is a table or a list of tables."""
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one if one.__name__ != "MergeChoice" else None
    return None
