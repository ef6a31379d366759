"""Labels: the answer is one of a few label words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpv import metrics
from tpv.errors import TpvError
from tpv.models import Backbone, Tokens
from tpv.outputs.ranking import Calibrator, Normalize, ranked
from tpv.outputs.scores import SEPARATOR, Scores, score_predictions
from tpv.registry import register
from tpv.tasks import Example, Task


@dataclass(frozen=True)
class Answers:
    """What a model said to N inputs of a task with C label words.

    Attributes:
        log_probs: log-probability of every label word, [N, C], nats.
        greedy: id of the label word that greedy decoding says, [N]; `metrics.INVALID` where it says something else.
        label_tokens: tokens of every label word, [C].
        normalize: how log-probabilities are normalized before label words are ranked by them.
        context: log-probability of every label word without a text, [C], where `normalize` needs it.
        calibrator: makes the probabilities, if there is one.
    """

    log_probs: Tensor
    greedy: Tensor
    label_tokens: Tensor
    normalize: Normalize = "none"
    context: Tensor | None = None
    calibrator: Calibrator | None = None

    def ranked(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The likeliest label word of every input, [N], and the probability of each, [N, C]."""
        context = None if self.context is None else self.context.numpy()
        return ranked(self.log_probs.numpy(), self.normalize, self.label_tokens.numpy(), context, self.calibrator)


def label_tokens(backbone: Backbone, task: Task) -> list[Tokens]:
    """Token ids of a task's label words, end-of-sequence included.

    Raises:
        TpvError: two label words that the tokenizer writes the same way.
    """
    tokens = [backbone.encode_target(word) for word in task.labels]
    for i, row in enumerate(tokens):
        if row in tokens[:i]:
            raise TpvError(
                f"labels {task.labels[tokens.index(row)]!r} and {task.labels[i]!r} of task {task.name!r} are the same "
                f"tokens to {backbone.identity.name}",
                fix="choose label words that differ",
            )
    return tokens


class Label:
    """One of a few label words; scored by greedy decoding and by the words' log-probabilities."""

    generated = False

    def check(self, spec: Any) -> None:
        """Refuse a task file that does not fit.

        Raises:
            ValueError: what is wrong with it.
        """

    def targets(self, backbone: Backbone, task: Task, rows: Sequence[Example]) -> list[Tokens]:
        """Tokens of the gold label word of each row."""
        words = label_tokens(backbone, task)
        return [words[row.label] for row in rows]

    def predictions(self, said: Answers, task: Task, rows: Sequence[Example]) -> pa.Table:
        """`example`, `gold`, `predicted` (the likeliest label word), `probability` (of it, among the task's label
        words), `said` (what greedy decoding says, null where that is no label word), `log_probs`.

        Raises:
            TpvError: log-probabilities that are not finite.
        """
        return table_of(self.columns(said, task, rows), said, task)

    def columns(self, said: Answers, task: Task, rows: Sequence[Example]) -> dict[str, Any]:
        """The columns of the table of predictions, which has a row per example.

        Columns:
            example: id of the example.
            gold: the right label word.
            value: the row's own number, where label words are numbers.
            predicted: the likeliest of the task's label words.
            probability: its probability among the label words.
            said: what greedy decoding says; null where that is no label word.
            log_probs: log-probability of each label word, nats, in the order of `labels` in the schema metadata.
        """
        return {"example": [row.id for row in rows], "gold": [row.target for row in rows], **answer_columns(said, task)}

    def scores(self, table: pa.Table) -> Scores:
        """The scores of a table of predictions."""
        return score_predictions(table)


def answer_columns(said: Answers, task: Task) -> dict[str, Any]:
    """The columns that say what a model answered: `predicted`, `probability`, `said`, `log_probs`.

    Raises:
        TpvError: log-probabilities that are not finite.
    """
    if not torch.isfinite(said.log_probs).all():
        raise TpvError(f"the model's scores on task {task.name!r} are not finite", fix="use precision fp32")
    best, probabilities = said.ranked()
    words = [None if p == metrics.INVALID else task.labels[p] for p in said.greedy.tolist()]
    return {
        "predicted": pa.array([task.labels[i] for i in best.tolist()], pa.string()),
        "probability": pa.array(probabilities[np.arange(len(best)), best], pa.float64()),
        "said": pa.array(words, pa.string()),
        "log_probs": list_column(said.log_probs),
    }


def list_column(values: Tensor) -> pa.Array:
    """A matrix [N, C] as a column of N lists."""
    return pa.FixedSizeListArray.from_arrays(values.flatten().numpy(), values.shape[1])


def table_of(columns: dict[str, Any], said: Answers, task: Task) -> pa.Table:
    """A table of predictions whose metadata contains what scoring needs."""
    about = {
        "task": task.name,
        "labels": SEPARATOR.join(task.labels),
        "label_tokens": SEPARATOR.join(str(length) for length in said.label_tokens.tolist()),
        "positive": str(task.spec.positive),
    }
    if said.normalize != "none":
        about["normalize"] = said.normalize
    if said.context is not None:
        about["context"] = json.dumps(said.context.tolist())
    if said.calibrator is not None:
        about["calibrator"] = said.calibrator.model_dump_json()
    return pa.table(columns).replace_schema_metadata(about)


register.output("label", order=1)(Label())
