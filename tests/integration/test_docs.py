"""Every block of code in the README and on the site's pages runs, page by page, from top to bottom."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from typer.main import get_command

from tpv.cli.app import app
from tpv.serving.keys import ApiKeys
from tpv.studies.config import read_config
from tpv.tasks.spec import build_spec

ROOT = Path(__file__).parents[2]
UNTESTED = {"LOG.md", "results", "reference", "examples"}  # what was measured, and what the code itself writes
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.relative_to(ROOT / "docs").parts[0] not in UNTESTED),
]
SLOW = {
    "big_models.md",
    "estimator.md",
    "extend.md",
    "few_rows.md",
    "many_machines.md",
    "models.md",
    "own_data.md",
    "portable_and_composable.md",
    "serve.md",
    "text.md",
    "tokens_and_rate.md",
}
REASONS = (
    "needs the network",
    "needs two models",
    "needs a GPU",
    "needs a cluster",
    "needs SmolLM2",
    "takes",
    "starts a server",
)
TASK_FILE = (
    'name = "own"\nfields = ["t"]\ntemplate = "{t}"\nlabels = ["a", "b"]\nsource = {kind = "files", train = "t.csv"}\n'
)
SHOWN = {"text", "py", "yaml", "sh", ""}  # languages of blocks that are only shown: output, and other tools' code


def run_bash(example):
    folder = Path(sys.executable).parent
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        return f"{example.parsed}\nended with {done.returncode}:\n{done.stderr[-2000:]}"
    return None


def read_toml(example):
    """A task file, a file of keys, a config, or a part of one: tpv reads it."""
    content = tomllib.loads(example.parsed)
    if content.keys() >= {"template", "source"}:
        assert build_spec(content, where="a task file").name == content["name"]
    elif "model" not in content and all(
        isinstance(table, dict) and table.keys() & {"key", "sha256"} for table in content.values()
    ):
        Path("keys.toml").write_text(example.parsed)
        assert len(ApiKeys.load(Path("keys.toml"))) == len(content)
    else:
        text = (
            example.parsed if content.keys() & {"extends", "families"} else f'extends = "mini.toml"\n{example.parsed}'
        )
        path = Path("configs") / "page.toml"  # beside the task files and configs that it names
        path.write_text(text.replace('"configs/', '"'))
        for name in re.findall(r'"([\w-]+\.toml)"', text.replace('"configs/', '"')):
            if not (path.parent / name).is_file():
                (path.parent / name).write_text(TASK_FILE)
        assert read_config(path).name


def document(page):
    parsers = [
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser(language="bash", evaluator=run_bash),
        CodeBlockParser(language="toml", evaluator=read_toml),
    ]
    return Sybil(parsers=parsers, path=str(page.parent), pattern=page.name).parse(page)


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.name in SLOW else [], id=name_of(page)) for page in PAGES],
)
def test_its_code_runs(page, tmp_path, monkeypatch):
    for folder in ("examples", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for example in document(page).examples():
        with suppress(SkipTest):  # of that block, which says why
            example.evaluate()


def fences(page):
    """Each fenced block: what stands on the line before it, its language and its text."""
    found = re.finditer(
        r"(?:^([^\n]*)\n)?^ {0,4}```(\w*)\n(.*?)^ {0,4}```$", page.read_text(), re.MULTILINE | re.DOTALL
    )
    return [(match[1] or "", match[2], match[3]) for match in found]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_run_or_say_why_not(page):
    for before, language, text in fences(page):
        skip = re.fullmatch(r'<!-- skip: next "(.*)" -->', before)
        if skip:
            assert skip[1].startswith(REASONS), skip[1]
        else:
            assert "skip" not in before
            assert language in SHOWN | {"python", "bash", "toml"}, language
        if language == "":
            assert "tpv " not in text, f"commands without a language are not run: {text}"


def commands(text):
    """The tpv commands in a block, as lists of words."""
    for line in text.replace("\\\n", " ").splitlines():
        words = re.sub(r"#.*", "", line).split()
        while words and re.fullmatch(r"\w+=\S*", words[0]):
            words.pop(0)
        if words[:1] == ["tpv"]:
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_of_its_commands_exist(page):
    """Also of commands that are not run here."""
    for _, language, text in fences(page):
        if language not in ("bash", "sh"):
            continue
        for words in commands(text):
            command = get_command(app)
            known = {flag for param in command.params for flag in param.opts}
            while words and hasattr(command, "commands"):
                word = words.pop(0)
                if word in known:
                    words.pop(0)  # its value
                    continue
                assert word in command.commands, word
                command = command.commands[word]
            flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
            given = {word.split("=")[0] for word in words if word.startswith("-") and len(word) > 1}
            assert given <= flags | {"--help"}, given - flags


def test_the_site_has_every_page():
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert f" {page.relative_to(ROOT / 'docs')}\n" in nav, page
