"""One self-contained page: text, tables and inline figures through a Jinja template."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

import tpv
from tpv.errors import plain
from tpv.files import atomic_write
from tpv.reporting import figures
from tpv.reporting.tables import Table, markdown

if TYPE_CHECKING:
    import matplotlib.figure

    from tpv.reporting.significance import Verdict


@dataclass(frozen=True)
class Figure:
    """A drawing and what it shows; `name` is of its files, without suffix."""

    drawing: matplotlib.figure.Figure
    caption: str
    name: str = ""

    @cached_property
    def svg(self) -> str:
        """The drawing as an `<svg>` element."""
        return figures.svg(self.drawing)

    @property
    def least(self) -> int:
        """Pixels of width below which its text would be too small: a narrow page scrolls instead."""
        return round(0.7 * 96 * float(self.drawing.get_figwidth()))


@dataclass(frozen=True)
class Section:
    heading: str
    text: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Chapter:
    """An experiment's part of a report.

    Attributes:
        verdicts: of its comparisons, to be tested by resampling examples too.
        further: other verdicts.
    """

    sections: Sequence[Section]
    verdicts: Sequence[Verdict] = ()
    further: Sequence[Verdict] = ()


MOST = 1000  # characters of one text of a page; CSV files have all of it


def _shown(value: object) -> object:
    """What a template puts into the page: text without what would turn its direction, of a length people read."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = plain(value)
    return text if len(text) <= MOST else f"{text[:MOST]}…"


def made_with() -> str:
    """Versions and machine, for the foot of a page."""
    import torch
    import transformers

    return (
        f"tpv {tpv.__version__}, torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()} with {torch.get_num_threads()} threads"
    )


def write_page(path: Path, title: str, intro: Sequence[str], sections: Sequence[Section], footer: str) -> None:
    """Render the page and write it atomically; all text is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tpv.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    html = environment.get_template("page.html.jinja").render(
        title=title, intro=intro, sections=sections, footer=footer
    )
    with atomic_write(path) as part:
        part.write_text(html, encoding="utf-8")


def write_markdown(path: Path, title: str, intro: Sequence[str], sections: Sequence[Section], footer: str) -> None:
    """The same page as Markdown, without its figures: to keep among other documents."""
    parts = [f"# {markdown(title)}", *map(markdown, intro)]
    for section in sections:
        parts += [f"## {markdown(section.heading)}", markdown(section.text), *(of.markdown() for of in section.tables)]
    with atomic_write(path) as part:
        part.write_text("\n\n".join(text.rstrip("\n") for text in [*parts, markdown(footer)]) + "\n", encoding="utf-8")
