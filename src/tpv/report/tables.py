"""A small table that prints on a terminal and in a page from the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """A titled table; the first column names the row, the others are numbers as text."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    best: set[tuple[int, int]] = field(default_factory=set)  # cells (row, column) to set in bold

    def as_rich(self) -> RichTable:
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=self.title, title_justify="left", caption=self.note or None, caption_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if number == 0 else "right")
        for r, row in enumerate(self.rows):
            table.add_row(*(Text(cell, "bold" if (r, c) in self.best else "") for c, cell in enumerate(row)))
        return table


def mean_and_spread(values: Sequence[float]) -> str:
    """`0.93 ± 0.02` over runs: mean and sample standard deviation; the mean alone for a single run."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.2f} ± {spread:.2f}"
