"""Run examples/notebooks and write them, with what they print and draw, into docs/examples (`make docs`)."""

from __future__ import annotations

import argparse
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]


def render(source: Path, out: Path) -> None:
    """Execute one notebook in the repository's root; write NAME.md and its figures."""
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in notebook.cells:  # warnings and progress bars are no part of the story
        if "outputs" in cell:
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    files = f"{source.stem}_files"
    text, made = MarkdownExporter().from_notebook_node(notebook, resources={"output_files_dir": files})
    (out / files).mkdir(parents=True, exist_ok=True)
    for name, content in made["outputs"].items():
        (out / name).write_bytes(content)
    told = f"This page is `examples/notebooks/{source.name}`, run when the site was built.\n"
    title, _, rest = text.partition("\n\n")
    (out / f"{source.stem}.md").write_text(f"{title.strip()}\n\n{told}\n{rest}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "examples")
    out: Path = parser.parse_args().out
    for source in sorted((ROOT / "examples" / "notebooks").glob("*.py")):
        render(source, out)


if __name__ == "__main__":
    main()
