"""Output kinds: what a task's answers are. A file a kind; each registers itself with `@tpv.register.output("label")`.

A task names its kind, `output = "label"` in a task file. The kind says

- `check(spec)`: what it needs of a task file; raises `ValueError`;
- `targets(backbone, task, rows)`: the tokens that training teaches, one sequence per row;
- `predictions(asked, task, rows)`: the table of predictions of one prompt, from what the model said to the rows
  (`Answers`), one row an example with the columns `example` and `gold` at least;
- `scores(table)`: `tpv.Scores` of such a table, as it was made or as it was stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tpv.registry import register

if TYPE_CHECKING:
    from tpv.outputs.label import Label


def output_of(spec: Any) -> Label:
    """The output kind of a task's spec.

    Raises:
        TpvError: no kind of this name is registered.
    """
    kind: Label = register.output[spec.output].thing
    return kind
