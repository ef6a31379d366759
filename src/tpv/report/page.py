"""One self-contained page: text, tables and inline figures through a Jinja template."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import torch
import transformers

import tpv
from tpv.report.tables import Table
from tpv.store import atomic_write


@dataclass(frozen=True)
class Figure:
    """An `<svg>` element we drew ourselves, and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    heading: str
    text: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


def made_with() -> str:
    """Versions and machine, for the foot of a page."""
    return (
        f"tpv {tpv.__version__}, torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()} with {torch.get_num_threads()} threads"
    )


def write_page(path: Path, title: str, intro: Sequence[str], sections: Sequence[Section], footer: str) -> None:
    """Render the page and write it atomically; all text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tpv.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("page.html.jinja").render(
        title=title, intro=intro, sections=sections, footer=footer
    )
    with atomic_write(path) as part:
        part.write_text(html, encoding="utf-8")
