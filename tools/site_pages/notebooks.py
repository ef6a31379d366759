"""The notebooks in examples/notebooks, executed, as pages with outputs and plots."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor

FOLDER = "examples"
SKIP = "TPV_DOCS_EXECUTE"  # set to 0 to show the notebooks' code only
PATIENCE = 1800  # seconds for one cell


def pages(notebooks: Path) -> Iterator[tuple[str, str | bytes]]:
    """Each page's place and text, and each plot's place and bytes.

    Args:
        notebooks: a folder of notebooks, stored by jupytext as py:percent.
    """
    for source in sorted(notebooks.glob("*.py")):
        notebook = jupytext.read(source)
        if os.environ.get(SKIP) != "0":
            _execute(notebook, notebooks)
        text, resources = MarkdownExporter().from_notebook_node(
            notebook, {"output_files_dir": f"{source.stem}_files", "unique_key": source.stem}
        )
        yield f"{FOLDER}/{source.stem}.md", text
        for name, content in resources["outputs"].items():
            yield f"{FOLDER}/{name}", content


def _execute(notebook: Any, notebooks: Path) -> None:
    """Fill in the outputs; it runs in a copy of examples/, so that what it writes is not kept."""
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python"}
    with TemporaryDirectory() as place:
        copy = Path(place) / "examples"
        shutil.copytree(notebooks.parent, copy)
        ExecutePreprocessor(timeout=PATIENCE).preprocess(notebook, {"metadata": {"path": copy / notebooks.name}})
