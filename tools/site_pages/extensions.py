"""What is registered, sort by sort, with parameters: what `tpv registry` lists."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from site_pages.markdown import code, default_words, meanings, prose, table, type_words
from tpv.registry import Entry, register

SORTS = {
    "merge": 'Merges: `tpv vector merge --method NAME`, `tpv.merge(…, method="NAME")`, `merges` in a config.',
    "port": "Maps from one model's embeddings to another's: `tpv port --method NAME`, `tpv.port(…, method=\"NAME\")`.",
    "initializer": "Ways to make a prompt: `tpv tune --init NAME`, `[prompt] init` in a config.",
    "method": "What trains: `tpv tune --method NAME`, `[vectors] modes` in a config.",
    "output": "Kinds of answers: `output` in a task file.",
    "metric": "Scores: `metric` in a task file, `select` in a recipe, columns of every table of scores.",
    "candidate": "What competes in `tpv transfer`: `--candidate NAME`, `[transfer] candidates` in a config.",
    "job": "Kinds of work in a study. Experiments make jobs; `tpv plan` counts them.",
    "experiment": "Parts of a study: `experiments` in a config, `tpv run --only NAME`.",
}


def pages() -> Iterator[tuple[str, str]]:
    """The page's place and text."""
    text = (
        '# Registered extensions\n\nEach is one file with a decorator, such as `@tpv.register.merge("median")`; '
        "so are yours. `tpv registry` lists them too, with those of a plugin: `tpv --plugin own registry`.\n"
    )
    for name, registry in register.registries().items():
        text += f"\n## {name} {{#{name}}}\n\n{SORTS[name]}\n\n"
        text += table(["name", "what it is"], [[_name(name, entry), entry.summary] for entry in registry])
        if registry.told:
            text += "".join(_parameters(name, entry) for entry in registry if entry.parameters.model_fields)
    yield "reference/extensions.md", text


def _name(sort: str, entry: Entry) -> str:
    linked = register.registries()[sort].told and entry.parameters.model_fields
    return f"[{code(entry.name)}](#{sort}-{entry.name})" if linked else code(entry.name)


def _parameters(sort: str, entry: Entry) -> str:
    """The parameters of one thing, with what its docstring says of each."""
    said = meanings(entry.thing, "Args") | meanings(entry.thing)
    rows = [
        [code(name), type_words(field.annotation, field.metadata), default_words(field), said[name]]
        for name, field in entry.parameters.model_fields.items()
    ]
    further = prose(inspect.getdoc(entry.thing) or "").partition("\n")[2].strip()
    text = f"\n### {entry.name} {{#{sort}-{entry.name}}}\n\n{further}".rstrip()
    return f"{text}\n\n{table(['parameter', 'value', 'default', 'meaning'], rows)}"
