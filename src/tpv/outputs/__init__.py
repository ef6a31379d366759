"""Output kinds: what a task's answers are. A file a kind; each registers itself with `@tpv.register.output("label")`.

A task names its kind, `output = "label"` in a task file. The kind says

- `generated`: whether the model writes freely, or chooses among the task's label words;
- `check(spec)`: what it needs of a task file; raises `ValueError`;
- `targets(backbone, task, rows)`: the tokens that training teaches, one sequence per row;
- `predictions(said, task, rows)`: the table of predictions of one prompt, from what the model said to the rows
  (`Answers`, or `Texts` where it is generated), one row an example with the columns `example` and `gold` at least;
- `scores(table)`: `tpv.Scores` of such a table, as it was made or as it was stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tpv.registry import register

if TYPE_CHECKING:
    import pyarrow as pa

    from tpv.models import Backbone, Tokens
    from tpv.outputs.scores import Scores
    from tpv.tasks import Example, Task


class OutputKind(Protocol):
    """An output kind; see the top of this page."""

    generated: bool

    def check(self, spec: Any) -> None: ...

    def targets(self, backbone: Backbone, task: Task, rows: Sequence[Example]) -> list[Tokens]: ...

    def predictions(self, said: Any, task: Task, rows: Sequence[Example]) -> pa.Table: ...

    def scores(self, table: pa.Table) -> Scores: ...


def output_of(spec: Any) -> OutputKind:
    """The output kind of a task's spec.

    Raises:
        TpvError: no kind of this name is registered.
    """
    kind: OutputKind = register.output[spec.output].thing
    return kind
