"""How a training went, step by step."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tpv.training.recipe import Recipe
from tpv.training.run import Run

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("lr", pa.float64()),
        ("score", pa.float64()),
        ("exact_match", pa.float64()),
    ]
)


def history_of(run: Run, recipe: Recipe) -> pa.Table:
    """A row for each step.

    Columns:
        step: number of the optimizer step, from 1.
        loss: training loss of the step's rows, nats per token.
        lr: learning rate of the step.
        score: what checkpoints are selected by, on the validation split; null where the step was not followed by a
            validation. The metadata names it: the loss, in nats per token, or a metric.
        exact_match: exact match on the validation split; null likewise.

    Args:
        recipe: with a number for `lr`.
    """
    judged = {step: (score, match) for step, score, match in run.validations}
    rows = [
        (step, loss, recipe.lr_at(step - 1, run.total) * run.lr_factor, *judged.get(step, (None, None)))
        for step, loss in enumerate(run.losses, 1)
    ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in SCHEMA]
    return pa.table(columns, schema=SCHEMA).replace_schema_metadata({"select": recipe.select})


def write_history(history: pa.Table | None, path: Path) -> None:
    """Write a history as CSV."""
    from pyarrow.csv import write_csv

    if history is not None:
        write_csv(history, path)
