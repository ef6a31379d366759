"""The docs site: the reference says all there is, and a reader needs no network."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from unittest.mock import MagicMock

import pytest
from places import ROOT
from typer.main import get_command

import tpv
from tpv.cli.app import app
from tpv.registry import register
from tpv.studies.settings import config_model
from tpv.transfers.racing import Standing

pytest.importorskip("mkdocs", reason="needs the extra docs, which `make docs` installs")

from site_pages import command_line, config_keys, extensions, python_api, tables

OUTSIDE = ("http:", "https:", "//")


@pytest.fixture(scope="module")
def reference():
    """The text of each page of the reference, by its place."""
    modules = (python_api, command_line, config_keys, extensions, tables)
    return {place: text for module in modules for place, text in module.pages()}


def leaves(command, path=("tpv",)):
    if not hasattr(command, "commands"):
        yield path, command
    else:
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))


def test_every_command_and_option_has_its_row(reference):
    for path, command in leaves(get_command(app)):
        page = reference[f"reference/command_line/{path[1]}.md"]
        (section,) = (part for part in page.split('title="Usage"\n')[1:] if part.startswith(f"{' '.join(path)} "))
        for option in command.params:
            shown = option.opts[0] if option.param_type_name == "option" else (option.metavar or option.name.upper())
            assert f"`{shown}" in section or shown == "--help", (path, shown)
        assert f"{' '.join(path)}" in reference["reference/command_line/index.md"]


def test_the_examples_in_the_help_are_commands_with_options_that_exist():
    for path, command in leaves(get_command(app)):
        lines = command_line.examples(command)
        assert lines, path
        for line in lines:
            words = line.partition(" registry")[0].split() if "--plugin" in line else line.split()
            known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {
                "--plugin"
            }
            assert {word for word in words if word.startswith("--")} <= known, line


def test_every_key_of_a_config_has_its_row(reference):
    page = reference["reference/config.md"]
    for name, field in config_model().model_fields.items():
        inner = config_keys._model_of(field.annotation)
        if inner is None:
            assert f"| `{name}` |" in page or name in config_keys.FILLED_IN
        else:
            section = page.partition(f"{{#{name}}}")[2].partition("\n## ")[0]
            assert all(f"| `{key}` |" in section for key in inner.model_fields), name


def test_every_public_name_is_on_a_page():
    assert python_api.left_out() == set()


def test_everything_registered_is_listed_with_its_parameters(reference):
    page = reference["reference/extensions.md"]
    for sort, registry in register.registries().items():
        section = page.partition(f"{{#{sort}}}")[2].partition("\n## ")[0]
        for entry in registry:
            assert f"`{entry.name}`" in section, (sort, entry.name)
            own = section.partition(f"{{#{sort}-{entry.name}}}")[2].partition("\n### ")[0]
            assert all(f"| `{name}` |" in own for name in entry.parameters.model_fields if registry.told), entry.name


def test_columns_are_those_of_the_tables():
    """Tables whose schema the page does not take from the code itself."""
    known = {each.title: each for each in tables.tables()}
    assert set(known["Candidates of a transfer"].said) == {*Standing.row(MagicMock()), "chosen"}
    for each in known.values():
        if each.schema is not None:
            assert set(each.schema.names) <= set(each.said), each.title
            assert set(each.said) - set(each.schema.names) <= {"value"}, each.title  # only where labels are numbers


class Loads(HTMLParser):
    """What a page loads to be shown."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found.append(attrs.get("src"))
        elif tag == "link" and attrs.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(attrs.get("href"))


def test_the_site_builds_without_warnings_and_loads_nothing_from_outside(tmp_path):
    """Strict: a link, an anchor or a page of the navigation that leads nowhere stops the build."""
    for name in ("mkdocs.yml", "examples", "src", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs" / "examples").mkdir(parents=True)
    for path in (ROOT / "docs").iterdir():
        if path.name not in ("examples", "reference"):  # what `make docs` may have written
            (tmp_path / "docs" / path.name).symlink_to(path)
    for notebook in (ROOT / "examples" / "notebooks").glob("*.py"):  # which take minutes to run
        (tmp_path / "docs" / "examples" / f"{notebook.stem}.md").write_text(f"# {notebook.stem}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tmp_path,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        parser = Loads()
        parser.feed(page.read_text())
        assert parser.found
        for target in filter(None, parser.found):
            assert not target.startswith((*OUTSIDE, "data:text")), (page, target)
            if page.name != "404.html":
                assert (page.parent / target.partition("?")[0].partition("#")[0]).is_file(), (page, target)
    for sheet in site.rglob("*.css"):
        style = sheet.read_text()
        assert not any(f"url({quote}{outside}" in style for quote in ("", '"', "'") for outside in OUTSIDE), sheet
        assert "@import" not in style, sheet
    shown = "".join(page.read_text() for page in (site / "reference" / "python").glob("*.html"))
    assert all(
        f'id="tpv.{name}"' in shown or f'id="tpv.{python_api.PLACES.get(name, name)[4:]}"' in shown
        for name in tpv.__all__
    )
