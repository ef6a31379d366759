"""Numbers: the label words are numbers, and a row's own number may lie between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tpv.outputs.label import Answers, Label
from tpv.registry import register
from tpv.tasks import Example, Task


class Number(Label):
    """Label words that are numbers, ascending; also scored by the correlation of the number said with the row's own."""

    def columns(self, said: Answers, task: Task, rows: Sequence[Example]) -> dict[str, Any]:
        """Those of `Label`, and `value`: the row's own number."""
        return super().columns(said, task, rows) | {"value": pa.array([row.value for row in rows], pa.float64())}


register.output("number", order=2)(Number())
