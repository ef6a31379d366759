"""The columns of the tables that tpv writes and returns."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

import tpv
from site_pages.markdown import code, meanings, table
from tpv.outputs.label import Label
from tpv.outputs.text import GeneratedText
from tpv.prompts.library import Library
from tpv.reporting import records
from tpv.training import history
from tpv.transfers import racing, result


@dataclass(frozen=True)
class Columns:
    """A table.

    Attributes:
        where: what writes or returns it.
        said: the meaning of each column.
        schema: the table's own; None where it depends on the call.
    """

    title: str
    where: str
    said: dict[str, str]
    schema: pa.Schema | None = None


def tables() -> list[Columns]:
    """Every table."""
    row, predicted = meanings(records.Row), meanings(Label.columns, "Columns")
    text = meanings(GeneratedText.predictions, "Columns")
    labels, texts = _predictions("mini/sst2"), _predictions("mini/last_word")
    added = {"label": "The likeliest label word.", "probability": "Its probability among the label words."}
    return [
        Columns(
            "Results of a run",
            "`results.parquet` of a run: a number a row. `timings.parquet` has the same columns, for seconds.",
            row,
            records.SCHEMA,
        ),
        Columns(
            "Predictions of labels",
            "`Scores.predictions` of `tpv.evaluate`, and `tpv evaluate --predictions FILE`. `tpv.predict` returns "
            "`source`, the whole input, instead of `example` and `gold`.",
            predicted,
            labels.schema,
        ),
        Columns(
            "Predictions of texts",
            "The same for tasks whose output is text. `tpv.generate` returns `source` and `generated`, and with "
            "several prompts `prompt`, the name or position of the prompt.",
            text,
            texts.schema,
        ),
        Columns(
            "Labelled files",
            "`tpv predict FOLDER --input FILE --output FILE` keeps all columns of the file and adds these. "
            "`--label-column` and `--probability-column` rename them. `tpv generate` adds `generated`.",
            added,
        ),
        Columns(
            "History of a training",
            "`history.csv` in the folder that `tpv tune` writes, and `prompt.history` after `tpv.fit`.",
            meanings(history.history_of, "Columns"),
            history.SCHEMA,
        ),
        Columns(
            "Candidates of a transfer",
            "`tpv.transfer(…).table`, `standings` in `transfer.json`; the winner comes first.",
            meanings(racing.Standing.row, "Columns"),
        ),
        Columns(
            "Ranking of sources",
            "`tpv.transfer(…).sources`, `sources` in `transfer.json`.",
            meanings(result.source_table, "Columns"),
            result.source_table([]).schema,
        ),
        Columns(
            "Learning curve",
            "`tpv.transfer(…).curve`, `curve` in `transfer.json`.",
            meanings(result.curve_table, "Columns"),
            result.curve_table([]).schema,
        ),
        Columns(
            "Vectors of a library",
            "`tpv.Library(…).describe()`.",
            meanings(Library.describe, "Columns"),
            Library([]).describe().schema,
        ),
    ]


def _predictions(name: str) -> pa.Table:
    """The table of predictions of two rows of a task."""
    backbone = tpv.load_backbone("mini", device="cpu")
    task = tpv.load_task(name)
    task = replace(task, splits={split: examples[:2] for split, examples in task.splits.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tpv.TpvWarning)
        prompt = tpv.SoftPrompt.sample(backbone, num_tokens=2)
        return tpv.evaluate(backbone, task, prompt).predictions


def pages() -> Iterator[tuple[str, str]]:
    """The page's place and text."""
    text = "# Columns of tables\n\nTables are pyarrow tables: `table.to_pandas()` gives a DataFrame.\n"
    for each in tables():
        text += f"\n## {each.title}\n\n{each.where}\n\n"
        if each.schema is None:
            text += table(["column", "meaning"], [[code(name), about] for name, about in each.said.items()])
        else:
            rows = [[code(field.name), _type(field.type), each.said[field.name]] for field in each.schema]
            text += table(["column", "type", "meaning"], rows)
    yield "reference/tables.md", text


def _type(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "struct of " + ", ".join(code(field.name) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list of {_type(kind.value_type)}"
    return code(kind)
