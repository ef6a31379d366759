"""From artifacts to rows: the only way a number gets into `results.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from tpv.errors import DamagedFileError
from tpv.reporting.records import Row, table_of
from tpv.studies.cells import Cell


def rows_of_cell(cell: Cell, folder: Path, key: str, labels: Mapping[str, Sequence[str]]) -> list[Row]:
    """The rows of one finished cell.

    Args:
        folder: of the job's artifact.
        key: of the job.
        labels: the label words of every task.

    Raises:
        DamagedFileError: its files are intact, and still are not what such a job leaves.
    """
    try:
        rows = list(cell.job.rows(cell, folder, key, labels))
        table_of(rows)  # a record may say a word where a number belongs
    except (OSError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, pa.ArrowException) as error:
        raise DamagedFileError(
            f"artifact {folder} does not contain what a job writes",
            got=f"{type(error).__name__}: {error}",
            fix="delete it; `tpv run` makes it again",
        ) from None
    return rows
