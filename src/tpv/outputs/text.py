"""Text: the answer is whatever the model writes until the end-of-sequence."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tpv import metrics
from tpv.errors import TpvError, TpvWarning
from tpv.metrics.text import exact_of, text_exact_match, text_majority
from tpv.models import Backbone, Tokens
from tpv.outputs.scores import Scores
from tpv.registry import register
from tpv.tasks import Example, Task


@dataclass(frozen=True)
class Texts:
    """What a model said to N inputs.

    Attributes:
        texts: what it generated.
        nll: negative log-likelihood of the gold text, [N], nats.
        tokens: tokens of the gold text, [N].
    """

    texts: Sequence[str]
    nll: Tensor
    tokens: Tensor


class GeneratedText:
    """Text of any length, generated; scored by what it says and by the likelihood of the gold text."""

    generated = True

    def check(self, spec: Any) -> None:
        """Refuse a task file that does not fit.

        Raises:
            ValueError: what is wrong with it.
        """

    def targets(self, backbone: Backbone, task: Task, rows: Sequence[Example]) -> list[Tokens]:
        """Tokens of the gold text of each row, end-of-sequence included.

        Warns:
            TpvWarning: texts longer than the task's `max_target_length`, with their number.
        """
        limit = task.spec.max_target_length
        found, cut = backbone.encode_targets([row.target for row in rows], limit)
        if cut:
            message = (
                f"{cut} of {len(rows)} targets of task {task.name!r} are longer than {limit} tokens and were truncated"
            )
            warnings.warn(TpvWarning(message), stacklevel=2)
        return found

    def predictions(self, said: Texts, task: Task, rows: Sequence[Example]) -> pa.Table:
        """The table of predictions, a row per example.

        Columns:
            example: id of the example.
            gold: the text to write.
            answers: all texts that are right.
            predicted: the text that the model wrote.
            nll: negative log-likelihood of the gold text, nats.
            tokens: number of tokens of the gold text.

        Raises:
            TpvError: a likelihood that is not finite.
        """
        if not torch.isfinite(said.nll).all():
            raise TpvError(f"the model's scores on task {task.name!r} are not finite", fix="use precision fp32")
        columns = {
            "example": [row.id for row in rows],
            "gold": [row.target for row in rows],
            "answers": pa.array([list(row.answers or (row.target,)) for row in rows], pa.list_(pa.string())),
            "predicted": pa.array(list(said.texts), pa.string()),
            "nll": pa.array(said.nll.double().numpy(), pa.float64()),
            "tokens": pa.array(said.tokens.numpy(), pa.int64()),
        }
        return pa.table(columns).replace_schema_metadata({"task": task.name, "output": "text"})

    def scores(self, table: pa.Table) -> Scores:
        """The scores of a table of predictions."""
        return score_texts(table)


def score_texts(table: pa.Table) -> Scores:
    """Scores of a table of texts, as `Scores.predictions` gives it or as it was stored."""
    gold, said = table["answers"].to_pylist(), table["predicted"].to_pylist()
    found, further = metrics.measured(metrics.of_text(gold), lambda _: {"gold": gold, "said": said})
    return Scores(
        exact_match=text_exact_match(gold, said),
        majority=text_majority(gold),
        loss=float(np.sum(table["nll"].to_numpy()) / np.sum(table["tokens"].to_numpy())),
        n=len(gold),
        predictions=table,
        further=further,
        **found,
    )


def per_example(table: pa.Table, metric: str) -> np.ndarray | None:
    """The value of a metric on each example of a table of texts, [N]; None where it is not a mean over examples."""
    of = exact_of if metric == "exact_match" else register.metric[metric].about.get("per_example")
    if of is None:
        return None
    rows = zip(table["answers"].to_pylist(), table["predicted"].to_pylist(), strict=True)
    return np.array([of(gold, said) for gold, said in rows])


register.output("text", order=3)(GeneratedText())
