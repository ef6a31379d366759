"""A small table that prints on a terminal, in a page, in LaTeX and as CSV from the same cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tpv.errors import plain

if TYPE_CHECKING:
    from rich.table import Table as RichTable

MISSING = "–"

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "λ": r"$\lambda$",
    "×": r"$\times$",
    "[": "{[}",
    "]": "{]}",
    "*": r"\textasteriskcentered{}",
}


def tex(text: str) -> str:
    """Text with everything that LaTeX would read as a command escaped, on one line."""
    return "".join(_TEX.get(char, char) for char in _line(text))


def markdown(text: str) -> str:
    """Text with everything that Markdown would read as markup escaped, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", _line(text))


def _line(text: str) -> str:
    return plain(re.sub(r"[\s\x00-\x1f]+", " ", text))


@dataclass(frozen=True)
class Value:
    """A mean over n runs and its deviation, in the unit it is shown in; prints as text, HTML and LaTeX.

    Attributes:
        std: sample standard deviation; None or n below 2: not shown.
        star: marks a significant difference.
        signed: a difference: prints its plus sign too.
    """

    mean: float
    std: float | None = None
    n: int = 1
    digits: int = 1
    star: bool = False
    signed: bool = False

    @property
    def _mean(self) -> str:
        rounded = round(self.mean, self.digits) + 0.0  # no -0.0
        return f"{rounded:{'+' if self.signed and rounded else ''}.{self.digits}f}"

    @property
    def _std(self) -> str:
        return "" if self.std is None or self.n < 2 else f"{self.std:.{self.digits}f}"

    def __str__(self) -> str:
        return self._mean + (f" ± {self._std}" if self._std else "") + ("*" if self.star else "")

    def __html__(self) -> str:
        """Read by Jinja: only digits and signs of ours, so nothing to escape."""
        spread = f"<sub>{self._std}</sub>" if self._std else ""
        return self._mean.replace("-", "−") + spread + ("<sup>*</sup>" if self.star else "")

    def tex(self, style: str = "") -> str:
        r"""`$93.2_{0.1}^{*}$`, its mean in `style`: `\textbf`, `\underline` or nothing."""
        mean = f"{style}{{{self._mean}}}" if style else self._mean
        return f"${mean}" + (f"_{{{self._std}}}" if self._std else "") + ("^{*}" if self.star else "") + "$"


Cell = str | Value


@dataclass(frozen=True)
class Table:
    """A titled table; the first column names the row.

    Attributes:
        best: cells (row, column) to set in bold.
        second: cells to underline.
        name: of its files, without suffix.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    note: str = ""
    best: set[tuple[int, int]] = field(default_factory=set)
    second: set[tuple[int, int]] = field(default_factory=set)
    name: str = ""

    @property
    def text(self) -> set[int]:
        """Columns of words, which are left-aligned; the first always is."""
        words = {
            c
            for row in self.rows
            for c, of in enumerate(row)
            if isinstance(of, str) and of not in ("", MISSING) and not re.match(r"[<+−-]?\d", of)
        }
        return {0} | words

    @property
    def breaks(self) -> set[int]:
        """Rows before which a line sets groups apart: where rows share their first cell, and it changes."""
        first = [str(row[0]) for row in self.rows]
        changes = {r for r in range(1, len(first)) if first[r] != first[r - 1]}
        return changes if len(changes) < len(first) - 1 else set()

    def as_rich(self) -> RichTable:
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=Text(self.title),
            title_justify="left",
            caption=Text(self.note) if self.note else None,
            caption_justify="left",
        )
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if number in self.text else "right")
        for r, row in enumerate(self.rows):
            table.add_row(*(Text(str(cell), self._mark((r, c), "bold", "underline")) for c, cell in enumerate(row)))
        return table

    def _mark(self, at: tuple[int, int], best: str, second: str) -> str:
        return best if at in self.best else second if at in self.second else ""

    def markdown(self) -> str:
        """A Markdown table (GitHub's), its title above it and its note below."""

        def cell(at: tuple[int, int], content: Cell) -> str:
            mark = self._mark(at, "**", "_")
            return f"{mark}{markdown(str(content))}{mark}"

        align = ["---" if c in self.text else "--:" for c in range(len(self.columns))]
        body = [[cell((r, c), content) for c, content in enumerate(row)] for r, row in enumerate(self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in [list(map(markdown, self.columns)), align, *body]]
        note = f"\n\n{markdown(self.note)}" if self.note else ""
        return f"**{markdown(self.title)}**\n\n" + "\n".join(lines) + f"{note}\n"

    def csv(self) -> str:
        """Comma-separated values in full precision: columns for mean, deviation, number of runs and star of a value."""
        head: list[str] = []
        columns: list[list[object]] = []
        for c, name in enumerate(self.columns):
            cells = [row[c] for row in self.rows]
            values = [cell if isinstance(cell, Value) else None for cell in cells]
            head.append(name)
            columns.append(
                [cell.mean if isinstance(cell, Value) else "" if cell == MISSING else cell for cell in cells]
            )
            if any(value and value.std is not None for value in values):
                head += [f"{name} (deviation)", f"{name} (runs)"]
                columns.append([value.std if value and value.n > 1 else "" for value in values])
                columns.append([value.n if value else "" for value in values])
            if any(value and value.star for value in values):
                head.append(f"{name} (significant)")
                columns.append([int(value.star) if value else "" for value in values])
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(zip(*columns, strict=True))
        return buffer.getvalue()

    def tex(self) -> str:
        """A LaTeX `tabular` (package booktabs)."""

        def cell(at: tuple[int, int], content: Cell) -> str:
            if isinstance(content, Value):
                return content.tex(self._mark(at, r"\mathbf", r"\underline"))
            style = self._mark(at, r"\textbf", r"\underline")
            return f"{style}{{{tex(content)}}}" if style else tex(content)

        lines = [
            rf"% {tex(self.title)}",
            rf"\begin{{tabular}}{{{''.join('l' if c in self.text else 'r' for c in range(len(self.columns)))}}}",
            r"\toprule",
            " & ".join(map(tex, self.columns)) + r" \\",
            r"\midrule",
            *(
                (r"\midrule" + "\n" if r in self.breaks else "")
                + " & ".join(cell((r, c), content) for c, content in enumerate(row))
                + r" \\"
                for r, row in enumerate(self.rows)
            ),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"


def mean_and_spread(values: Sequence[float]) -> str:
    """`0.93 ± 0.02` over runs: mean and sample standard deviation; the mean alone for a single run."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.2f} ± {spread:.2f}"
