"""Hooks of mkdocs: the pages of the reference, made from the code, join those in docs/."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File, Files
from site_pages import command_line, config_keys, extensions, python_api, tables

made: dict[str, str] = {}  # by its place: what the build at hand generated


def on_config(config: Any) -> Any:
    """Generate the pages, and put them into the navigation where it names their folder."""
    made.clear()
    for module in (python_api, command_line, config_keys, tables, extensions):
        made.update(module.pages())
    config.nav = _expanded(config.nav)
    return config


def _expanded(items: list[Any]) -> list[Any]:
    """A part of the navigation in which a folder, `reference/python/`, is replaced by the generated pages in it."""
    found: list[Any] = []
    for item in items:
        if isinstance(item, str) and item.endswith("/"):
            found += [place for place in made if place.startswith(item) and place.endswith(".md")]
        elif isinstance(item, dict):
            ((title, inner),) = item.items()
            found.append({title: _expanded(inner) if isinstance(inner, list) else inner})
        else:
            found.append(item)
    return found


def on_files(files: Files, config: Any) -> Files:
    """Add what was generated."""
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files
