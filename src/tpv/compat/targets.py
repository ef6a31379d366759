"""Quirk 3: the authors' code pads label words to the longest of their task, and the padding enters the loss."""

from __future__ import annotations

from collections.abc import Sequence

from tpv.models import Backbone, Tokens
from tpv.outputs.label import label_tokens
from tpv.tasks import Example, Task


def padded_targets(backbone: Backbone, task: Task, rows: Sequence[Example]) -> Sequence[Tokens]:
    """The gold label word of each row, padded to the longest label word; what `tpv.fit(targets=)` takes."""
    words = label_tokens(backbone, task)
    longest = max(map(len, words))
    padded = [(*word, *[backbone.pad_id] * (longest - len(word))) for word in words]
    return [padded[row.label] for row in rows]
